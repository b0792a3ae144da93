"""Sweeps compared: which trials stand for a method, differences of differences, families, and the page."""

import numpy as np
import pandas as pd
import pytest
import report_fixtures
from analysis_fixtures import PAPER_SETTINGS, Trial, curve, framed
from scipy import stats
from sweep_fixtures import REPOSITORY

from analysis import archive, statistics, tuned
from analysis.comparison import contrasts, matching, page
from study.errors import StudyError

RESULTS = REPOSITORY / "analysis" / "results"
CONFIRMED, FASHION = RESULTS / "beyond_pairs-confirm", RESULTS / "beyond_pairs-fashion"


def trial(method, end, *, seeds=tuple(range(10)), lr=0.1, rank=1, scenario="pairs", noise=0.0, shift=None, **settings):
    """A trial that ends at an accuracy; `shift` is added to each seed."""
    test = curve(start=0.9, end=end, lanes=len(seeds), noise=noise, draw=np.random.default_rng(round(end * 1000)))
    values = test.to_numpy() + (0 if shift is None else np.asarray(shift))
    own = {**PAPER_SETTINGS, "tasks/count": 20, "optimizer/lr": lr, **settings}
    return Trial(scenario, method, values, own, rank=rank, seeds=seeds)


def compared(quantity="late_accuracy", baseline="sgd", **sweeps):
    matched = matching.match(sweeps, baseline)
    return matched, contrasts.frame(matched, quantity)


def sweep(*trials, phase="confirm", points=None):
    """A sweep of trials; `points` are the settings that its plan tries, by method."""
    made = framed(trials, name="made", phase=phase)
    for group in made.plan["groups"]:
        group["points"] = (points or {}).get(group["method"], [])
    return made


@pytest.fixture(scope="module")
def real():
    """The archived confirmations on MNIST and Fashion-MNIST, which share their seeds."""
    return matching.match({"mnist": archive.read(CONFIRMED), "fashion": archive.read(FASHION)}, "sgd")


def test_differences_within_a_sweep_are_those_of_the_question_about_tuned_methods(real):
    table = contrasts.frame(real, "late_accuracy").dropna(subset="difference")
    question = tuned.frame(tuned.against_baseline(list(real.sweeps.values())))
    for row in question.to_dict("records"):
        name = {"mnist": "mnist", "fashion_mnist": "fashion"}[row["data"]]
        (own,) = table[(table["sweep"] == name) & (table["method"] == row["first"])].to_dict("records")
        assert [own[key] for key in ("difference", "difference_low", "difference_high")] == [
            row[key] for key in ("difference", "difference_low", "difference_high")
        ]
        assert own["late_accuracy"] == pytest.approx(row["late_first"], abs=1e-15)  # MLflow's, to the last digit


@pytest.mark.parametrize("quantity", contrasts.QUANTITIES)
def test_a_change_is_the_difference_of_differences_seed_by_seed(real, quantity):
    table = contrasts.frame(real, quantity)
    reduced = {
        (name, method): getattr(
            statistics, {"accuracy": "mean_accuracy", "late_accuracy": "last_tenth"}.get(quantity, quantity)
        )(
            found.accuracy(
                found.finished[(found.finished["method"] == method) & (found.finished["selected_rank"] == 1)][
                    "run_id"
                ].iloc[0]
            )
        )
        for name, found in real.sweeps.items()
        for method in ("sgd", "sam", "gnp")
    }
    rows = table[table["change"].notna()].to_dict("records")
    assert [(row["method"], row["sweep"], row["change_pairs"]) for row in rows] == [
        ("sam", "fashion", 20),
        ("gnp", "fashion", 20),
    ]
    raw = []
    for row in rows:
        d = {name: reduced[name, row["method"]] - reduced[name, "sgd"] for name in real.sweeps}
        change = d["fashion"] - d["mnist"]
        half = stats.t.ppf(1 - 0.05 / 2 / 2, 19) * stats.sem(change)  # two changes, each at 97.5 %
        assert row["change"] == pytest.approx(change.mean(), abs=1e-12)
        assert row["change_high"] - row["change"] == pytest.approx(half)
        raw.append(row["change_p"])
    assert [row["change_p_holm"] for row in rows] == statistics.holm(raw).tolist()


def test_what_is_common_to_a_seed_cancels_only_where_seeds_are_shared():
    luck = np.random.default_rng(3).normal(0, 0.02, 10)  # of a seed, for SAM in both sweeps
    first = sweep(trial("sgd", 0.9), trial("sam", 0.91, shift=luck))
    same = sweep(trial("sgd", 0.9), trial("sam", 0.92, shift=luck))
    other = sweep(
        trial("sgd", 0.9, seeds=tuple(range(10, 20))), trial("sam", 0.92, shift=luck, seeds=tuple(range(10, 20)))
    )
    _, table = compared(first=first, same=same, other=other)
    rows = {row["sweep"]: row for row in table[table["change"].notna()].to_dict("records")}
    widths = {name: row["change_high"] - row["change_low"] for name, row in rows.items()}
    assert rows["same"]["change"] == pytest.approx(rows["other"]["change"])
    assert widths["same"] < 1e-6 < 0.01 < widths["other"]
    assert rows["same"]["change_pairs"] == 10
    assert pd.isna(rows["other"]["change_pairs"])
    assert page.paired_words(rows["other"]) == "unpaired, no seeds shared"


def test_sweeps_that_share_some_seeds_are_paired_over_those():
    first = sweep(trial("sgd", 0.9, noise=0.01), trial("sam", 0.92, noise=0.01))
    more = tuple(range(4, 20))
    second = sweep(trial("sgd", 0.89, noise=0.01, seeds=more), trial("sam", 0.93, noise=0.01, seeds=more))
    _, table = compared(first=first, second=second)
    (row,) = table[table["change"].notna()].to_dict("records")
    assert (row["change_pairs"], row["lanes"]) == (6, 16)


@pytest.mark.parametrize("sizes", [(2, 2), (5, 9), (20, 3)])
def test_independent_means_are_compared_as_by_welch(sizes):
    draw = np.random.default_rng(0)
    a, b = draw.normal(0.3, 0.1, sizes[0]), draw.normal(0.2, 0.4, sizes[1])
    interval, p = statistics.compare_unpaired(a, b, 0.9)
    oracle = stats.ttest_ind(a, b, equal_var=False)
    assert p == pytest.approx(oracle.pvalue)
    assert (interval.low, interval.high) == pytest.approx(tuple(oracle.confidence_interval(0.9)))
    assert interval.lanes == min(sizes)


def test_independent_means_without_spread_or_with_one_lane_are_handled():
    assert np.isnan(statistics.compare_unpaired([0.5], [0.1, 0.2])[1])
    alike, p = statistics.compare_unpaired([0.1 + 0.2, 0.1 + 0.2], [0.3, 0.3])
    assert (alike.mean, alike.low, alike.high, p) == (0, 0, 0, 1)
    apart, p = statistics.compare_unpaired([0.4, 0.4], [0.3, 0.3])
    assert apart.low == apart.high == pytest.approx(0.1)
    assert p == 0


@pytest.mark.parametrize(
    ("end", "lanes", "said"),
    [(0.90, 10, "alike"), (0.95, 10, "larger"), (0.85, 10, "smaller"), (0.91, 10, "open"), (0.95, 5, "open")],
)
def test_a_change_is_called_by_the_margin_and_never_with_few_seeds(end, lanes, said):
    seeds = tuple(range(lanes))
    luck = np.random.default_rng(0).normal(0, 0.002, lanes)
    first = sweep(trial("sgd", 0.9, seeds=seeds), trial("sam", 0.9, seeds=seeds))
    second = sweep(trial("sgd", 0.9, seeds=seeds), trial("sam", end, seeds=seeds, shift=luck - luck.mean()))
    _, table = compared(first=first, second=second)
    assert table["answer"].dropna().tolist() == [said]


def test_winners_stand_for_methods_whatever_their_settings():
    first = sweep(trial("sgd", 0.9), trial("sam", 0.92, lr=0.1), trial("sam", 0.99, rank=None))
    second = sweep(trial("sgd", 0.8), trial("sam", 0.82, lr=0.5), trial("gnp", 0.9))
    matched, table = compared(first=first, second=second)
    assert matched.is_selected
    assert table["name"].tolist() == ["sgd", "sgd", "sam", "sam"]
    assert table["late_accuracy"].tolist() == pytest.approx([0.9, 0.8, 0.92, 0.82])
    assert matched.notes == ("Left out, because only `second` has it: gnp of pairs.",)


def grid(batch_size, rates, *, sgd=0.9, seeds=tuple(range(10))):
    """A grid that selects nothing: SGD and SAM at some learning rates."""
    tried = {"training/batch_size": batch_size}
    trials = [
        trial(method, end + lr / 10, lr=lr, rank=None, seeds=seeds, **tried)
        for lr in rates
        for method, end in (("sgd", sgd), ("sam", 0.91))
    ]
    points = {method: [{"optimizer/lr": lr} for lr in rates] for method in ("sgd", "sam")}
    return sweep(*trials, phase="grid", points=points)


def test_where_nothing_was_selected_equal_settings_are_compared_at_equal_rates():
    matched, table = compared(first=grid(16, (0.1, 0.2, 0.4)), second=grid(64, (0.1, 0.2, 0.3), sgd=0.8))
    assert not matched.is_selected
    assert [place.method for place in matched.places] == ["sgd", "sam", "sgd", "sam"]
    differences = table[table["method"] == "sam"].groupby("sweep")["difference"].apply(list)
    assert differences["first"] == pytest.approx([0.01, 0.01])  # not the difference of two rates
    assert differences["second"] == pytest.approx([0.11, 0.11])
    assert matched.notes == (
        "Left out, because only `first` has it: sgd 2 of pairs, sam 2 of pairs.",
        "Left out, because only `second` has it: sgd 2 of pairs, sam 2 of pairs.",
    )
    assert matching.differing(matched).to_dict("records") == [
        {"what": "`training/batch_size`", "first": "16", "second": "64"}
    ]


def test_only_what_differs_is_listed(real):
    assert matching.differing(real).to_dict("records") == [
        {"what": "`data/name`", "mnist": "mnist", "fashion": "fashion_mnist"}
    ]
    assert {"seeds", "phase", "objective", "device"} < set(matching._CIRCUMSTANCES)
    whole = matching.match({"kept": archive.read(CONFIRMED), "search": archive.read(RESULTS / "beyond_pairs")}, "sgd")
    listed = matching.differing(whole).set_index("what")
    assert listed.loc["seeds"].tolist() == ["1000 to 1019", "0 to 2"]
    assert listed.loc["trials of a method"].tolist() == ["no search", "40"]
    assert listed.loc["sampler"].tolist() == ["no search", "tpe"]
    assert listed.loc["scheduler"].tolist() == ["no search", "none"]
    assert listed.loc["seed of the search"].tolist() == ["no search", "0"]
    assert "`optimizer/lr`" not in listed.index  # varied in both
    assert any("chose its best trials by these seeds" in note for note in whole.notes)


def test_single_scenarios_are_matched_whatever_their_names():
    first, second = (
        sweep(trial("sgd", 0.9), trial("sam", 0.9)),
        sweep(trial("sgd", 0.9, scenario="other"), trial("sam", 0.9, scenario="other")),
    )
    matched, table = compared(first=first, second=second)
    assert set(table["scenario"]) == {"pairs"}
    assert matching.differing(matched).to_dict("records") == [
        {"what": "scenarios", "first": "pairs", "second": "other"}
    ]


@pytest.mark.parametrize(
    ("second", "baseline", "said"),
    [
        (sweep(), "sgd", "'second' has no finished trial"),
        (
            sweep(trial("adamw", 0.9)),
            "sgd",
            "no method has finished in the same scenario of two sweeps; first has sgd of pairs and 1",
        ),
        (sweep(trial("sam", 0.9)), "sgd", "do not share the baseline 'sgd'"),
        (sweep(trial("sam", 0.9)), "smm", "did you mean 'sam'? known: sam"),
        (grid(16, (0.3,)), "sgd", "no setting of a method has finished in the same scenario of two sweeps"),
    ],
)
def test_sweeps_with_nothing_comparable_are_refused_in_a_sentence(second, baseline, said):
    first = sweep(
        trial("sgd", 0.9), trial("sam", 0.9), points={"sgd": [{"optimizer/lr": 0.1}], "sam": [{"optimizer/lr": 0.1}]}
    )
    with pytest.raises(StudyError) as refusal:
        matching.match({"first": first, "second": second}, baseline)
    assert said in str(refusal.value)
    assert len(str(refusal.value)) <= 300


def test_a_method_without_its_baseline_in_a_sweep_is_named():
    third = sweep(trial("sam", 0.9))
    matched, table = compared(
        first=sweep(trial("sgd", 0.9), trial("sam", 0.9)),
        second=sweep(trial("sgd", 0.9), trial("sam", 0.9)),
        third=third,
    )
    assert "There is no sgd to compare these with: sam of pairs (`third`)." in matched.notes
    assert table[table["sweep"] == "third"]["difference"].isna().all()


def test_the_page_the_table_and_the_archives_have_the_same_numbers(real, tmp_path, blank_figures):
    table = contrasts.frame(real, "accuracy")
    made = page.make(real, "accuracy", table)
    made.write(tmp_path / "page")
    shown = report_fixtures.Tables((tmp_path / "page" / "report.html").read_text(encoding="utf-8"))
    kept = pd.read_csv(tmp_path / "page" / "tables" / "comparison.csv", dtype=str)
    for row, own in zip(shown.rows("comparison"), kept.to_dict("records"), strict=True):
        found = real.sweeps[own["sweep"]].runs.set_index("run_id").loc[own["run_id"]]
        in_full = [float(own[f"accuracy{end}"]) for end in ("", "_low", "_high")]
        assert row["mean test accuracy"]["values"] == in_full
        assert in_full[0] == found["summary/accuracy_test"]
        assert own["run_id"] in row["runs: own, sgd"]["runs"]
        change = row["minus sgd, change from mnist"]
        assert change["values"] == [
            float(own[key]) for key in ("change", "change_low", "change_high") if isinstance(own[key], str)
        ]
        assert change["text"] == "–" or own["sweep"] == "fashion"
    assert not [address for address in shown.addresses if not address.startswith(("#", "data:"))]
    (summary, *_) = made.sections
    assert len(summary.paragraphs[0]) == 2
    assert "paired over 20 seeds: alike, within 0.01." in summary.paragraphs[0][0]
