"""Estimates: arithmetic on invented timings, and real measurements."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sweep_fixtures import plan_of

from search_spaces import Method, SearchSpace
from study import experiment, parts
from study.config import Diagnostics, TrialConfig
from study.contracts import Operated
from study.errors import StudyError
from study.sweep.execution import Execution
from study.sweep.search_plan import make_plan
from study.timing import estimate, speed
from study.timing.estimate import Range
from study.timing.speed import Timing

EXECUTION = Execution(data_dir="data", cpus_per_trial=2, gpus_per_trial=0.25)


def timing(config: TrialConfig) -> Timing:
    """Invented timings.

    A trial takes 12 s in batches of 16. SAM's steps take twice as long; a smaller batch makes more steps.
    """
    steps = 160 / config.training.batch_size
    return Timing(3, 160, steps, setup=1.0, step={"sgd": 0.2, "sam": 0.4}[config.optimizer.name], evaluation=1.0)


def searched(points=({"optimizer/lr": 0.01}, {"optimizer/lr": 0.1}), **drawn) -> SearchSpace:
    """A space of one method with points and distributions."""
    return SearchSpace(
        name="searched",
        description="",
        scenarios={"class_pairs": {"tasks/name": "class_pairs", "tasks/count": 3}},
        methods={"sgd": Method(points=points, distributions=drawn)},
        settings={"data/name": "mnist5k", "tasks/validation_fraction": 0.2},
        trials=5,
    )


def rows_of(space: SearchSpace):
    return estimate.estimate(make_plan(space, name="x"), EXECUTION, 1, timing).rows


def test_a_trial_is_its_tasks_and_a_sweep_its_trials():
    estimated = estimate.estimate(plan_of(trials=4), EXECUTION, 2, timing)
    assert [(row.method, row.trials, row.tasks) for row in estimated.rows] == [("sgd", 4, 3), ("sam", 4, 3)]
    sgd, sam = 3 * (1 + 10 * 0.2 + 1), 3 * (1 + 10 * 0.4 + 1)
    assert [row.trial.low for row in estimated.rows] == pytest.approx([sgd, sam])
    assert [row.total.high for row in estimated.rows] == pytest.approx([4 * sgd, 4 * sam])
    work = 4 * (sgd + sam)
    assert (estimated.work.low, estimated.work.high) == pytest.approx((work, work))
    assert estimated.duration.low == pytest.approx(work / 2)
    assert estimated.cpu_hours.low == pytest.approx(2 * work / 3600)
    assert estimated.gpu_hours.low == pytest.approx(0.25 * work / 3600)
    assert estimated.price(7.2).high == pytest.approx(work / 2 * 7.2 / 3600)


def test_no_sweep_is_shorter_than_its_longest_trial():
    estimated = estimate.estimate(plan_of(trials=1), EXECUTION, 64, timing)
    assert estimated.workers == 2
    assert estimated.duration.low == pytest.approx(18)


BATCHES = {"training/batch_size": CategoricalDistribution([8, 32])}
USUAL = tuple({"optimizer/lr": lr, "training/batch_size": 16} for lr in (0.01, 0.1))


def test_what_a_sampler_draws_makes_a_range_and_what_is_listed_does_not():
    drawn = {"training/batch_size": CategoricalDistribution([8, 16, 32])}
    (row,) = rows_of(searched(points=USUAL, **drawn))
    small, usual, large = 3 * (2 + 20 * 0.2), 3 * (2 + 10 * 0.2), 3 * (2 + 5 * 0.2)
    assert (row.trial.low, row.trial.high) == pytest.approx((large, small))
    assert (row.total.low, row.total.high) == pytest.approx((2 * usual + 3 * large, 2 * usual + 3 * small))
    assert row.passes == Range(1, 1)


def test_what_a_point_leaves_open_is_drawn_for_it_too():
    (row,) = rows_of(searched(**BATCHES, **{"training/passes": IntDistribution(20, 50)}))
    small, large = 3 * (2 + 20 * 0.2), 3 * (2 + 5 * 0.2)
    assert (row.total.low, row.total.high) == pytest.approx((5 * large, 5 * small))
    assert row.passes == Range(20, 50)


def test_a_budget_that_does_not_reach_the_draws_is_told_exactly():
    drawn = {"training/batch_size": CategoricalDistribution([8, 16, 32])}
    plan = make_plan(searched(points=USUAL, **drawn), name="x", trials=1)
    (row,) = estimate.estimate(plan, EXECUTION, 1, timing).rows
    assert row.total.low == row.total.high == pytest.approx(12)


def test_learning_rates_are_all_of_one_kind():
    plan = make_plan(searched(**{"optimizer/lr": FloatDistribution(1e-3, 1.0)}), name="x")
    assert len(estimate.kinds(plan)) == 1


@pytest.mark.parametrize(
    ("drawn", "kinds"),
    [
        ({"optimizer/momentum": FloatDistribution(0.0, 0.9)}, 2),  # none, and some
        ({"training/passes": IntDistribution(1, 4)}, 2),
        ({"model/widths": CategoricalDistribution([[10], [20], [30]])}, 3),
        ({"training/passes": IntDistribution(1, 4), "training/batch_size": IntDistribution(8, 16)}, 4),
    ],
)
def test_what_changes_the_work_makes_another_kind(drawn, kinds):
    assert len(estimate.kinds(make_plan(searched(**drawn), name="x"))) == kinds


def test_an_exact_penalty_is_another_kind_than_a_finite_difference():
    plan = plan_of(space="sharpness_grid", methods=["gnp"], trials=None)
    assert len(estimate.kinds(plan)) == 2


def test_the_extremes_of_several_settings_come_together():
    drawn = {"training/passes": IntDistribution(1, 4), "tasks/images_per_task": IntDistribution(8, 80)}
    plan = make_plan(searched(**drawn), name="x")
    corners = [config.flat() for config in estimate.corners(plan, plan.groups[0])]
    pairs = {(flat["training/passes"], flat["tasks/images_per_task"]) for flat in corners}
    assert pairs == {(1, 8), (1, 80), (4, 8), (4, 80)}


SMALL = {"data/name": "mnist5k", "model/widths": [5], "tasks/validation_fraction": 0.25, "seeds": [0, 1]}


def config_of(**more) -> TrialConfig:
    return parts.complete(TrialConfig.from_flat({**SMALL, **more}))


@pytest.mark.parametrize("tasks", ["permuted_pixels", "class_pairs"])
def test_a_real_measurement_is_positive_and_its_sizes_are_exact(tasks):
    config = config_of(
        **{
            "tasks/name": tasks,
            "tasks/count": 3,
            "training/batch_size": 7,
            "training/passes": 2,
            "optimizer/name": "sam",
        }
    )
    found = speed.timed(config, experiment.load_dataset(config, Path("nowhere")), 0.01)
    images = {"permuted_pixels": 3000, "class_pairs": 600}[tasks]
    assert (found.tasks, found.images, found.steps) == (3, images, 2 * -(-images // 7))
    assert min(found.setup, found.step, found.evaluation) > 0
    assert found.trial == pytest.approx(3 * (found.setup + found.steps * found.step + found.evaluation))


def test_a_sequence_of_one_task_can_be_timed():
    config = config_of(**{"tasks/count": 1, "tasks/images_per_task": 20})
    assert speed.timed(config, experiment.load_dataset(config, Path("nowhere")), 0.01).steps == 2


def test_evaluation_is_timed_on_all_images_by_the_trainer_itself():
    """Cut tasks keep all images for evaluation."""
    tasks = tiny.experiment().tasks
    cut = speed.FirstMinibatches(tasks, 5)
    for index in range(cut.count):
        whole, first = tasks.task(index), cut.task(index)
        assert first.train.tolist() == whole.train[:, :5].tolist()
        assert first.test.tolist() == whole.test.tolist()
        assert first.validation.tolist() == whole.validation.tolist()
    assert (cut.count, cut.output_count, cut.has_validation) == (2, tasks.output_count, True)


@pytest.mark.parametrize("processes", [1, 3])
def test_several_processes_time_every_configuration(processes):
    configs = [config_of(**{"tasks/count": 2, "optimizer/name": name}) for name in ("sgd", "sam")]
    dataset = experiment.load_dataset(configs[0], Path("nowhere"))
    found = speed.measured(configs, ["it", "it"], {"it": dataset}, trials_at_once=processes, threads=1, seconds=0.1)
    assert len(found) == 2
    assert all(timing.trial > 0 for timing in found)


def test_what_cannot_be_trained_here_is_refused_by_the_processes_too():
    config = config_of(**{"tasks/count": 2, "tasks/images_per_task": 3001})
    dataset = experiment.load_dataset(config, Path("nowhere"))
    with pytest.raises(StudyError, match="images_per_task=3001 is too many"):
        speed.measured([config], ["it"], {"it": dataset}, trials_at_once=1, threads=1, seconds=0.1)


class Slow:
    """An operation that takes its time, and that training can undo."""

    level = None

    def operate(self, subject):
        time.sleep(0.05)  # seconds that the estimate must count
        return Operated(subject.params, {name: torch.ones(3) for name in subject.params})


def test_an_operation_is_timed_on_few_images_and_counted_for_all(monkeypatch):
    seen = []

    class Looking(Slow):
        def operate(self, subject):
            seen.append(subject.inputs.shape[1])
            return super().operate(subject)

    images = 5 * speed.OPERATED_IMAGES
    lanes = speed.entered(tiny.experiment(images={"train_per_class": 50}, diagnostics=Diagnostics(images=images)))
    monkeypatch.setattr(speed.Lanes, "diagnostics_seconds", lambda self, _: self.experiment.diagnostics.images / images)
    probes = replace(tiny.probes_of(3, {}, boundaries=(0,), lr=(0.1,)), operations=(("looking", Looking()),))
    seconds = speed.probes_seconds(lanes, probes, 0.0, 1.0)
    assert seen == [speed.OPERATED_IMAGES]
    trained, measured = 3, 2  # seconds: of three copies, and of two networks at the onset
    assert trained + measured + 5 * 0.05 <= seconds < trained + measured + 3


def test_probes_are_timed_as_often_as_they_come():
    probes = tiny.probes_of(3, {}, boundaries=(0, 1), lr=(0.1, 0.2))
    probes = replace(probes, operations=(("slow", Slow()),))
    lanes = speed.entered(tiny.experiment())
    seconds = speed.probes_seconds(lanes, probes, 0.0, 1.0)
    trained = 2 * (
        2 + 2 + 2
    )  # boundaries; with each learning rate the untouched copy, the other one, and the other one undone
    assert trained + 2 * 0.05 <= seconds < trained + 3
