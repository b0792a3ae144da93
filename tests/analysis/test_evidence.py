"""Which trials are the paper's settings, what they are compared with, and how far their experiment is the paper's."""

import math

import pandas as pd
import pytest
from analysis_fixtures import PAPER_SETTINGS, SETTINGS, curve, framed, paper_trial

from analysis.paper import evidence
from analysis.paper.evidence import PAIRS, PIXELS, Setting, gather
from search_spaces.paper_grid import SPACE

COUNTS = {PIXELS: 100, PAIRS: 45}
SGD = Setting(PIXELS, "sgd", 0.01)


def lanes(tasks, count=2):
    return curve(tasks, lanes=count).to_numpy()


def papers(**changes):
    """All twelve settings, as the paper ran them but for changes."""
    return [paper_trial(setting, lanes(COUNTS[setting.tasks]), **changes) for setting in SETTINGS]


def one(setting=SGD, tasks=100, **changes):
    return paper_trial(setting, lanes(tasks), **changes)


def test_the_papers_grid_is_the_papers_experiment():
    found = gather(framed(papers()))
    assert set(found.accuracy) == set(found.run_ids) == set(SETTINGS)
    assert found.stated == found.assumed == found.passed_over == ()
    assert found.diverged == {}
    assert {setting.tasks for setting in SETTINGS} == set(SPACE.scenarios)


def test_each_setting_has_the_accuracies_of_its_own_run():
    trials = [paper_trial(setting, lanes(20) * (1 + number) / 20) for number, setting in enumerate(SETTINGS)]
    sweep = framed(trials)
    found = gather(sweep)
    for trial, setting in zip(trials, SETTINGS, strict=True):
        pd.testing.assert_frame_equal(found.accuracy[setting], sweep.accuracy(found.run_ids[setting]))
        assert (found.accuracy[setting].to_numpy() == trial.test).all()


def test_a_setting_reads_like_a_sentence():
    assert str(SGD) == "sgd lr=0.01 on permuted_pixels"
    assert str(Setting(PAIRS, "gnp", 0.001)) == "gnp lr=0.001 on class_pairs"


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer/lr": 0.02},
        {"optimizer/momentum": 0.9},
        {"optimizer/weight_decay": 0.01},
        {"interventions/l2_init/strength": 0.001},
        {"tasks/name": "rotated_pixels"},
        {"optimizer/name": "adam"},
        {"outcome": "failed"},
        {"outcome": "running"},
        {"outcome": "incomplete"},
    ],
)
def test_what_is_not_the_papers_is_no_evidence(changes):
    sweep = framed([one(**changes), one(Setting(PIXELS, "sam", 0.001))])
    assert list(gather(sweep).accuracy) == [Setting(PIXELS, "sam", 0.001)]


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("sam", {"optimizer/lr": 0.0100001}),
        ("gnp", {"optimizer/lambda": 0.08}),
        ("sam", {"optimizer/rho": math.nan}),
        ("sam", {"optimizer/rho": [0.05, 0.1]}),
        ("gnp", {"optimizer/schedule": "linear"}),
        ("sam", {"optimizer/schedule": "linear"}),
        ("sam", {"optimizer/rho": -0.05}),
        ("sam", {"optimizer/base": "adamw"}),
    ],
)
def test_what_departs_from_a_stated_value_or_another_rule_is_not_the_papers(method, changes):
    assert gather(framed([one(Setting(PIXELS, method, 0.01), **changes)])).accuracy == {}


def test_further_settings_that_are_off_leave_the_papers_methods_as_they_are():
    further = {"optimizer/base": "sgd", "optimizer/schedule": "constant", "optimizer/beta1": 0.9}
    found = gather(framed([one(Setting(PIXELS, "sam", 0.01), **further)]))
    assert list(found.accuracy) == [Setting(PIXELS, "sam", 0.01)]
    assert found.assumed == ()


@pytest.mark.parametrize(
    ("method", "changes", "told"),
    [
        ("sam", {"optimizer/rho": 0.1}, "`optimizer/rho` is 0.1 instead of 0.05"),
        ("gnp", {"optimizer/r": 0.125}, "`optimizer/r` is 0.125 instead of 0.05"),
        ("gnp", {"optimizer/r": 0}, "`optimizer/r` is 0 instead of 0.05"),
    ],
)
def test_rho_and_r_are_left_open_by_the_paper_so_other_values_are_named(method, changes, told):
    setting = Setting(PIXELS, method, 0.01)
    found = gather(framed([one(), one(setting, **changes)]))
    assert set(found.accuracy) == {SGD, setting}
    assert (found.stated, found.assumed) == ((), (told,))


def test_a_sweep_without_any_trial_or_without_the_settings_columns_has_no_evidence():
    assert gather(framed([])).accuracy == {}
    sweep = framed([one()])
    bare = sweep.runs.drop(columns=[name for name in sweep.runs if name.startswith("optimizer/")])
    assert [evidence.paper_setting(run) for run in bare.to_dict("records")] == [None]


def test_columns_that_only_other_methods_have_are_no_hindrance():
    strange = paper_trial(
        Setting(PIXELS, "sgd", 0.001), lanes(100), **{"optimizer/name": "adam", "optimizer/beta": 0.9}
    )
    strange.settings.pop("optimizer/momentum")
    acting = one(**{"interventions/l2_init/strength": 0.1, "optimizer/lr": 0.001})
    found = gather(framed([strange, acting, one()]))
    assert list(found.accuracy) == [SGD]
    assert found.stated == found.assumed == ()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data/name": "mnist5k"}, "mnist5k instead of mnist"),
        ({"model/widths": [100]}, "fully connected layers: 2 instead of three"),
        ({"tasks/change": 0.1}, "permutations that change at a share of 0.1 of the pixels instead of new ones"),
        ({"model/widths": []}, "fully connected layers: 1 instead of three"),
        ({"model/name": "cnn"}, "the model cnn instead of three fully connected layers"),
        ({"model/activation": "tanh"}, "units that are tanh instead of ReLU"),
        ({"model/layer_norm": "plain"}, "layer norm (plain), of which the paper has no word"),
        ({"model/layer_norm": "learnt"}, "layer norm (learnt), of which the paper has no word"),
        ({"model/name": "cnn", "model/widths": math.nan}, "the model cnn instead of three fully connected layers"),
    ],
)
def test_departures_from_what_the_paper_states_are_named(changes, told):
    found = gather(framed(papers(**changes)))
    assert found.stated == (told,)
    assert found.assumed == ()
    assert len(found.accuracy) == 12


def test_another_number_of_tasks_is_a_departure_of_either_scenario():
    assert gather(framed([one(tasks=45)])).stated == ("45 tasks of permuted_pixels instead of 100",)
    pairs = Setting(PAIRS, "sgd", 0.01)
    assert gather(framed([one(pairs, 45)])).stated == ()
    assert gather(framed([one(pairs, 44)])).stated == ("44 tasks of class_pairs instead of 45",)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model/widths": [100, 50]}, "`model/widths` is [100, 50] instead of [100, 100]"),
        ({"training/batch_size": 32}, "`training/batch_size` is 32 instead of 16"),
        ({"training/passes": 2}, "`training/passes` is 2 instead of 1"),
        ({"tasks/validation_fraction": 1 / 6}, "`tasks/validation_fraction` is 0.1667 instead of 0"),
        ({"tasks/images_per_task": 500}, "`tasks/images_per_task` is 500 instead of not set"),
        ({"training/pixels": "symmetric"}, "`training/pixels` is symmetric instead of unit"),
        ({"model/initialisation": "kaiming"}, "`model/initialisation` is kaiming instead of torch"),
    ],
)
def test_departures_from_the_assumptions_are_named_apart(changes, told):
    found = gather(framed(papers(**changes)))
    assert found.assumed == (told,)
    assert found.stated == ()


def test_the_device_is_no_departure_and_hinders_no_comparison():
    trials = papers()[:3] + papers(**{"training/device": "cpu"})[3:]
    found = gather(framed(trials))
    assert len(found.accuracy) == 12
    assert found.stated == found.assumed == found.passed_over == ()


def test_settings_of_unlike_experiments_are_never_put_together():
    short = [
        paper_trial(setting, lanes(50), scenario="short", **{"tasks/count": 50})
        for setting in SETTINGS
        if setting.tasks == PIXELS
    ]
    whole = [paper_trial(SGD, lanes(100), scenario="long", **{"tasks/count": 100})]
    for trials in ([*short, *whole], [*whole, *short]):
        found = gather(framed(trials))
        assert list(found.accuracy) == [SGD]
        assert found.accuracy[SGD].shape[0] == 100
        assert found.stated == ()
        assert len(found.passed_over) == 6
        assert "short-sgd-000: an experiment that cannot be compared with long-sgd-000" in found.passed_over


def test_of_equally_far_experiments_the_fuller_one_is_taken_then_the_nearer_one_then_the_first():
    def trials(batch, *methods):
        return [
            one(Setting(PIXELS, method, 0.01), scenario=f"b{batch}", **{"training/batch_size": batch})
            for method in methods
        ]

    def batch_of(*several):
        return gather(framed([trial for group in several for trial in group])).assumed

    told = "`training/batch_size` is {} instead of 16".format
    assert batch_of(trials(16, "sgd"), trials(32, "sgd", "sam")) == (told(32),)
    assert batch_of(trials(32, "sgd", "sam"), trials(16, "sgd", "gnp")) == ()
    assert batch_of(trials(64, "sgd"), trials(32, "sgd")) == (told(64),)


def test_of_two_trials_of_one_setting_the_first_is_taken_and_the_other_told():
    found = gather(framed([one(), one()]))
    assert found.run_ids == {SGD: "run-made-permuted_pixels-sgd-0"}
    assert found.passed_over == ("permuted_pixels-sgd-001: permuted_pixels-sgd-000 has the same settings",)


def test_the_scenarios_name_does_not_matter():
    assert list(gather(framed([one(scenario="pixels")])).accuracy) == [SGD]


def test_diverged_lanes_are_told():
    found = gather(framed([one(diverged=2), one(Setting(PIXELS, "sam", 0.01))]))
    assert found.diverged == {SGD: 2}


def test_the_fixtures_settings_are_those_of_the_papers_grid():
    for name, value in SPACE.settings.items():
        assert PAPER_SETTINGS[name] == value
