"""The paper's claims under other assumptions: which trials are judged together, and which claims depend on one."""

import math

import numpy as np
import pandas as pd
import pytest
from analysis_fixtures import SETTINGS, curve, framed, paper_trial
from report_fixtures import Tables, play, sent, tuned

from analysis import archive, load, report
from analysis.paper import assumptions
from analysis.paper.assumptions import MAIN, judged, matrix, reasons, sentences
from analysis.paper.evidence import PAIRS, PIXELS, Setting, gather, under_assumptions

COUNTS = {PIXELS: 100, PAIRS: 45}
SAM_ON_PAIRS = [Setting(PAIRS, "sam", lr) for lr in (0.01, 0.001)]


def trials(settings=SETTINGS, declining=(), lanes=6, seed=0, **changes):
    """The paper's settings at 0.9 throughout, but for those that fall to 0.8."""
    draw = np.random.default_rng(seed)
    return [
        paper_trial(
            setting,
            curve(COUNTS[setting.tasks], 0.9, 0.8 if setting in declining else 0.9, lanes, 0.001, draw).to_numpy(),
            **changes,
        )
        for setting in settings
    ]


def of_method(method):
    return [setting for setting in SETTINGS if setting.method == method]


def labels(sweep):
    return [assumption.label for assumption in under_assumptions(sweep)]


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({"training/pixels": "symmetric"}, "symmetric pixels"),
        ({"training/batch_size": 64}, "batch size 64"),
        ({"training/passes": 3}, "3 passes"),
        ({"model/widths": [200, 200]}, "hidden layers of 200-200"),
        ({"model/widths": [100, 100, 100]}, "hidden layers of 100-100-100"),
        ({"model/initialisation": "kaiming"}, "Kaiming's initialisation"),
        ({"tasks/images_per_task": 500}, "500 images a task"),
        ({"tasks/order_seed": 7}, "tasks/order_seed = 7"),
        ({"training/batch_size": 64, "training/passes": 3}, "batch size 64 and 3 passes"),
    ],
)
def test_a_departure_from_an_assumed_setting_is_judged_apart_and_named(changes, label):
    sweep = framed([*trials(), *trials(declining=SAM_ON_PAIRS, seed=1, **changes)])
    main, (other,) = gather(sweep), under_assumptions(sweep)
    assert other.label == label
    assert other.settings == changes
    assert main.assumed == main.stated == main.passed_over == ()
    assert set(main.accuracy) == set(other.evidence.accuracy) == set(SETTINGS)
    assert not set(main.run_ids.values()) & set(other.evidence.run_ids.values())
    for setting, table in other.evidence.accuracy.items():
        assert table.equals(sweep.accuracy(other.evidence.run_ids[setting]))


@pytest.mark.parametrize(
    ("method", "changes", "label"),
    [
        ("sam", {"optimizer/rho": 0.1}, "SAM with rho 0.1"),
        ("gnp", {"optimizer/r": 0.125}, "GNP with r 0.125, a blend of 0.8"),
        ("gnp", {"optimizer/r": 0}, "GNP with r 0"),
    ],
)
def test_where_only_one_method_differs_the_others_are_those_of_the_main_experiment(method, changes, label):
    sweep = framed([*trials(), *trials(of_method(method), seed=1, **changes)])
    main, (other,) = gather(sweep), under_assumptions(sweep)
    assert other.label == label
    for setting in SETTINGS:
        assert (main.run_ids[setting] == other.evidence.run_ids[setting]) == (setting.method != method)


def test_several_assumptions_each_stand_for_themselves():
    sweep = framed(
        [
            *trials(**{"training/batch_size": 64}),
            *trials(of_method("sam"), **{"optimizer/rho": 0.2}),
            *trials(),
            *trials(of_method("sam"), **{"optimizer/rho": 0.2, "training/batch_size": 64}),
        ]
    )
    assert gather(sweep).assumed == ()
    assert sorted(labels(sweep)) == ["SAM with rho 0.2", "batch size 64", "batch size 64 and SAM with rho 0.2"]
    together = {assumption.label: assumption.evidence.assumed for assumption in under_assumptions(sweep)}
    assert together["batch size 64 and SAM with rho 0.2"] == (
        "`training/batch_size` is 64 instead of 16",
        "`optimizer/rho` is 0.2 instead of 0.05",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"data/name": "mnist5k"},
        {"model/widths": [100]},
        {"model/widths": [100] * 4},
        {"tasks/change": 0.1},
        {"model/activation": "gelu"},
        {"model/layer_norm": "plain"},
    ],
)
def test_what_departs_from_the_papers_own_words_is_no_assumption(changes):
    sweep = framed([*trials(), *trials(seed=1, **changes)])
    main = gather(sweep)
    assert labels(sweep) == []
    assert main.stated == ()
    assert len(main.passed_over) == len(SETTINGS)


def test_a_sweep_without_the_preset_is_judged_by_what_it_has():
    """One departure in all of its trials is named, and withholds nothing."""
    sweep = framed(trials(**{"training/batch_size": 64}))
    assert labels(sweep) == []
    (only,) = judged(gather(sweep), under_assumptions(sweep))
    assert only.evidence.assumed == ("`training/batch_size` is 64 instead of 16",)
    assert {finding.claim: finding.verdict for finding in only.findings}["C5"] == "reproduced"


def test_a_claim_depends_on_what_turns_its_verdict():
    """C6, SAM declines on pairs, holds with batch size 64 alone; with three passes nothing was measured on pairs."""
    pixels = [setting for setting in SETTINGS if setting.tasks == PIXELS]
    sweep = framed(
        [
            *trials(),
            *trials(declining=SAM_ON_PAIRS, seed=1, **{"training/batch_size": 64}),
            *trials(pixels, seed=2, **{"training/passes": 3}),
        ]
    )
    rows = judged(gather(sweep), under_assumptions(sweep))
    assert [row.label for row in rows] == [MAIN, "batch size 64", "3 passes"]
    table = matrix(rows).set_index("assumption")
    assert table["C6"].tolist() == ["contradicted", "reproduced", "undecided"]
    assert table["C5"].tolist() == ["reproduced", "reproduced", "undecided"]
    assert table["depends"].tolist() == ["", "C6", "none"]
    assert sentences(rows) == [
        "C6 depends on 1 of 2 assumptions: contradicted in the main experiment, reproduced under batch size 64."
    ]
    why = reasons(rows)
    assert len(why) == 3 * 7
    assert (
        "no finished trial of sam" in why[(why["assumption"] == "3 passes") & (why["claim"] == "C6")]["reason"].item()
    )
    assert assumptions.sentences([]) == []


def test_a_main_experiment_of_other_data_still_withholds_all_verdicts():
    sweep = framed(
        [
            *trials(**{"data/name": "mnist5k"}),
            *trials(declining=SAM_ON_PAIRS, **{"data/name": "mnist5k", "training/batch_size": 64}),
        ]
    )
    rows = judged(gather(sweep), under_assumptions(sweep))
    assert rows[1].dependent == ("C6",)
    assert set(reasons(rows)["verdict"]) == {"undecided"}
    assert not math.isnan(rows[1].findings[5].effects[0].interval.mean)


def test_the_report_has_a_row_for_each_and_no_picture_mixes_them(directory, uri, blank_figures):
    """SGD's and SAM's first points on pairs: the preset, symmetric pixels, initialisation."""
    choices = {"scenarios": ["class_pairs"], "methods": ["sgd", "sam"], "trials": 6, "seeds": 2}
    folder = tuned(directory, "open", space="assumptions", tasks=4, **choices)
    play(folder)
    sent(folder)
    page = report.make(*report.load_all("open", uri))
    place, _ = report.write(page, directory / "report")
    shown = Tables((place / report.PAGE).read_text()).tables
    rows = {row["assumption"]["text"]: row for row in shown["assumptions"]}
    assert list(rows) == [MAIN, "symmetric pixels", "Kaiming's initialisation"]
    runs = {label: set(row["runs"]["runs"]) for label, row in rows.items()}
    assert [len(some) for some in runs.values()] == [4, 4, 4]
    assert len(set.union(*runs.values())) == 12
    for picture in page.pictures:
        if picture.name.startswith(("paper", "compute", "diagnostics")):
            assert set(picture.run_ids) <= runs[MAIN], picture.name
    assert {run for row in shown["paper_settings"] for run in row["run"]["runs"]} == runs[MAIN]
    assert not [picture.name for picture in page.pictures if picture.name.startswith("heat_maps")]
    words = "".join(str(paragraph) for section in page.sections for paragraph in section.paragraphs)
    assert "On this sweep's own data and tasks, which are not the paper's: No claim depends" in words
    assert "*These are no verdicts on the paper*" in words
    kept = load.sweep("open", uri, archive.QUANTITIES)
    archive.save(kept, directory / "kept")
    under = pd.read_csv(directory / "kept" / archive.ASSUMPTIONS)
    assert len(under) == 3 * 7
    assert (
        archive.verdicts_under_assumptions(archive.read(directory / "kept"))["here"].tolist() == under["here"].tolist()
    )
