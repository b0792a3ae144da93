"""The training loop: diverging lanes, counts, and the use of every image."""

import math
from dataclasses import dataclass, replace

import pytest
import tiny
import torch
from torch import Tensor

from study.contracts import Boundary, Experiment, Intervention, Learner, Model, Rule
from study.lanes import Tensors
from study.training import metrics
from study.training.metrics import evaluate
from study.training.minibatches import Feed
from study.training.trainer import initial_state, train

CHANCE = {"permuted_pixels": 1 / 4, "class_pairs": 1 / 2}
BOTH = {"l2_init": {"strength": 0.01}, "shrink_and_perturb": {}}


def with_lr(experiment: Experiment, *lrs: float) -> Experiment:
    """The same experiment with a learning rate for each lane."""
    return replace(experiment, rule=replace(experiment.rule, lr=torch.tensor(lrs)))


def others(values: Tensor) -> Tensor:
    """The first and the last of three lanes."""
    return values[..., [0, 2]] if values.dim() == 1 else values[[0, 2]]


# --- divergence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", tiny.OPTIMIZERS)
@pytest.mark.parametrize("tasks", CHANCE)
def test_a_diverging_lane_is_frozen_counted_at_chance_flagged_and_harms_no_other(optimizer, tasks):
    experiment = tiny.experiment(optimizer, tasks=tasks, interventions=BOTH)
    sound, began = tiny.results(with_lr(experiment, 0.1, 0.1, 0.1)), initial_state(experiment)
    for result, healthy in zip(tiny.results(with_lr(experiment, 0.1, 1e30, 0.1)), sound, strict=True):
        assert result.state.diverged.tolist() == [False, True, False]
        for measure in ("test_accuracy", "validation_accuracy", "online_accuracy"):
            assert getattr(result, measure)[1] == CHANCE[tasks]
            assert torch.equal(others(getattr(result, measure)), others(getattr(healthy, measure)))
        assert result.online_loss[1] == -math.log(CHANCE[tasks])
        assert torch.equal(others(result.online_loss), others(healthy.online_loss))
        for accuracies in (result.state.test, result.state.validation):
            assert (accuracies[:, 1] == CHANCE[tasks]).all()
        tensors, reference, start = map(tiny.state_tensors, (result.state, healthy.state, began))
        for name in tensors.keys() - {"diverged", *tiny.BY_TASK}:
            assert torch.equal(tensors[name][1], start[name][1]), name
            assert torch.equal(others(tensors[name]), others(reference[name])), name


def test_when_all_lanes_diverge_the_objective_is_chance_and_never_a_nan():
    experiment = tiny.experiment("sgd", {"lr": 1e30})
    results = tiny.results(experiment)
    assert len(results) == experiment.tasks.count, "the sequence goes on"
    for result in results:
        assert result.state.diverged.all()
        for measure in tiny.MEASURES:
            assert getattr(result, measure).isfinite().all()
        assert all(value.isfinite().all() for value in tiny.state_tensors(result.state).values())
    assert float(results[-1].state.validation.mean()) == CHANCE["permuted_pixels"]


@dataclass(frozen=True)
class PoisonedRule:
    """A rule that returns a non-finite weight in one lane at one step."""

    rule: Rule
    lane: int
    at_step: int
    poison: float
    steps: list[int]

    def __getattr__(self, name: str):
        return getattr(self.rule, name)

    def step(self, params: Tensors, memory: Tensors, gradient_at) -> tuple:
        params, memory, evaluation = self.rule.step(params, memory, gradient_at)
        self.steps.append(len(self.steps))
        if len(self.steps) == self.at_step + 1:
            params = {name: value.clone() for name, value in params.items()}
            params["0/bias"][self.lane, 0] = self.poison
        return params, memory, evaluation


class CountingBoundaries(Intervention):
    """Counts boundaries in its state, which shows whether a lane is frozen."""

    def initial_state(self, params: Tensors, model: Model) -> Tensors:
        return {"crossed": torch.zeros(len(params["0/bias"]))}

    def before_task(self, learner: Learner, boundary: Boundary) -> Learner:
        return replace(learner, state={"crossed": learner.state["crossed"] + 1})


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("when", ["in the middle", "at the last step"])
def test_a_lane_that_diverges_later_goes_back_to_where_that_task_began_and_stays(poison, when):
    experiment = tiny.experiment(
        "sgd", {"lr": 0.1, "momentum": 0.9}, task_settings={"count": 4}, interventions=BOTH, batch_size=6
    )
    experiment = replace(experiment, interventions=(*experiment.interventions, CountingBoundaries()))
    steps = math.ceil(experiment.tasks.task(0).train.shape[1] / experiment.batch_size)
    at_step = 2 * steps + (steps - 1 if when == "at the last step" else 1)
    sound = tiny.results(experiment)
    poisoned = tiny.results(replace(experiment, rule=PoisonedRule(experiment.rule, 1, at_step, poison, [])))
    assert [result.state.diverged[1].item() for result in poisoned] == [False, False, True, True]
    frozen = tiny.state_tensors(sound[1].state)
    for index, result in enumerate(poisoned):
        reference = tiny.state_tensors(sound[index].state)
        for name, value in tiny.state_tensors(result.state).items():
            if name in ("diverged", *tiny.BY_TASK):
                continue
            assert torch.equal(value[1], frozen[name][1] if index >= 2 else reference[name][1]), (index, name)
            assert torch.equal(others(value), others(reference[name])), (index, name)
    assert poisoned[-1].state.validation[2:, 1].tolist() == [CHANCE["permuted_pixels"]] * 2
    assert torch.equal(poisoned[-1].state.validation[:2, 1], sound[-1].state.validation[:2, 1])


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_lane_with_a_non_finite_loss_has_diverged_even_if_its_weights_are_finite(poison):
    """Logits of 3e38 and -3e38 have an infinite loss and a finite gradient."""
    experiment = tiny.experiment(task_settings={"count": 1})

    class InfiniteLoss(PoisonedRule):
        def step(self, params: Tensors, memory: Tensors, gradient_at) -> tuple:
            params, memory, evaluation = self.rule.step(params, memory, gradient_at)
            evaluation.logits[self.lane, 0] = self.poison
            return params, memory, evaluation

    (result,) = tiny.results(replace(experiment, rule=InfiniteLoss(experiment.rule, 1, 0, poison, [])))
    assert result.state.diverged.tolist() == [False, True, False]
    assert torch.equal(result.state.params["0/weight"][1], initial_state(experiment).params["0/weight"][1])
    assert result.online_loss[1] == math.log(4)


def test_logits_that_overflow_after_the_last_step_count_as_chance_and_not_as_wrong():
    """One step per task: the loss before it and the weights after it are finite, but the logits are not."""
    experiment = tiny.experiment("sgd", {"lr": 1e25}, batch_size=1000)
    first, second, _ = tiny.results(experiment)
    assert all(value.isfinite().all() for value in first.state.params.values())
    for accuracy in (first.test_accuracy, first.validation_accuracy, first.state.test[0], first.state.validation[0]):
        assert accuracy.tolist() == [CHANCE["permuted_pixels"]] * 3
    assert second.state.diverged.all(), "the next task meets the non-finite loss"


def test_evaluate_gives_nan_for_the_lane_with_a_non_finite_logit_only():
    experiment = tiny.experiment()
    params = initial_state(experiment).params
    params["2/bias"][1, 0] = torch.inf
    accuracy = evaluate(experiment.model, params, Feed(experiment.dataset, experiment.tasks.task(0), "cpu").test())
    assert accuracy.isnan().tolist() == [False, True, False]


# --- counting --------------------------------------------------------------------------------------------------------


def logits_of_a_plain_network(params: Tensors, lane: int, x: Tensor) -> Tensor:
    last = len(params) // 2 - 1
    for i in range(last + 1):
        x = x @ params[f"{i}/weight"][lane].T + params[f"{i}/bias"][lane]
        x = x if i == last else x.clamp(min=0)
    return x


@pytest.mark.parametrize("tasks", CHANCE)
@pytest.mark.parametrize("passes", [1, 3])
def test_online_measures_equal_a_recount_image_by_image_before_each_update(tasks, passes):
    experiment = tiny.experiment("sgd", tasks=tasks, passes=passes, batch_size=4, task_settings={"count": 1})
    batches = tiny.minibatches(experiment, 0, size=4, passes=passes)
    visited: list[Tensors] = []

    class Watching:
        evaluations_per_step = 1
        rests_where_flat = False

        def initial_memory(self, params: Tensors) -> Tensors:
            return experiment.rule.initial_memory(params)

        def step(self, params: Tensors, memory: Tensors, gradient_at) -> tuple:
            visited.append({name: value.clone() for name, value in params.items()})
            return experiment.rule.step(params, memory, gradient_at)

    (result,) = tiny.results(replace(tiny.plainly(experiment), rule=Watching()))
    assert len(visited) == len(batches)
    for lane in range(3):
        hits, loss, images = 0, 0.0, 0
        for params, (inputs, labels) in zip(visited, batches, strict=True):
            for x, y in zip(inputs[lane], labels[lane], strict=True):
                logits = logits_of_a_plain_network(params, lane, x)
                hits += int(logits.argmax()) == int(y)
                loss += float(logits.logsumexp(0) - logits[y])
                images += 1
        assert images == experiment.tasks.task(0).train.shape[1] * passes
        assert float(result.online_accuracy[lane]) == pytest.approx(hits / images, abs=1e-12)
        assert float(result.online_loss[lane]) == pytest.approx(loss / images, rel=1e-5)


def test_accuracies_are_those_of_the_weights_after_the_task_on_the_tasks_own_images():
    experiment = tiny.experiment("sgd", passes=3)
    for result in train(experiment):
        task = experiment.tasks.task(result.task)
        for lane in range(3):
            for images, labels, chosen, accuracy in (
                (experiment.dataset.test_images, experiment.dataset.test_labels, task.test, result.test_accuracy),
                (
                    experiment.dataset.train_images,
                    experiment.dataset.train_labels,
                    task.validation[lane],
                    result.validation_accuracy,
                ),
            ):
                x = images[chosen][:, task.pixel_order[lane]].float() * (1 / 255)
                guess = logits_of_a_plain_network(result.state.params, lane, x).argmax(1)
                assert float(accuracy[lane]) == pytest.approx(float((guess == labels[chosen]).double().mean()))


@pytest.mark.parametrize("pieces", [1, 5, 24, 1000])
def test_an_evaluation_in_pieces_equals_one_in_a_whole(pieces, monkeypatch):
    experiment = tiny.experiment()
    feed, params = Feed(experiment.dataset, experiment.tasks.task(0), "cpu"), initial_state(experiment).params
    (inputs, labels), *rest = list(feed.test())
    assert not rest
    whole = metrics.correct(experiment.model.forward(params, inputs)[0], labels) / labels.shape[1]
    monkeypatch.setattr("study.training.minibatches.EVALUATION_BATCH", pieces)
    assert len(list(feed.test())) == math.ceil(24 / pieces)
    torch.testing.assert_close(evaluate(experiment.model, params, feed.test()), whole.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1, 5, 7, 36, 1000])
def test_every_image_is_used_once_in_each_pass_and_the_last_minibatch_may_be_smaller(size):
    experiment = tiny.experiment(passes=2, batch_size=size)
    task = experiment.tasks.task(0)
    images = task.train.shape[1]
    assert images == 36
    batches = tiny.minibatches(experiment, 0, size=size, passes=2)
    one_pass = [size] * (images // size) + ([images % size] if images % size else [])
    assert [inputs.shape[1] for inputs, _ in batches] == one_pass * 2
    passes = [torch.cat([x for x, _ in part], 1) for part in (batches[: len(one_pass)], batches[len(one_pass) :])]
    for lane in range(3):
        pictures = experiment.dataset.train_images[task.train[lane]][:, task.pixel_order[lane]].float() * (1 / 255)
        expected = sorted(pictures.tolist())
        for inputs in passes:
            assert sorted(inputs[lane].tolist()) == expected
        assert not torch.equal(passes[0][lane], passes[1][lane]), "each pass has an order of its own"


def test_the_order_of_the_images_differs_between_seeds_and_tasks():
    images = replace(tiny.dataset(), train_images=torch.arange(48, dtype=torch.uint8).unsqueeze(1).expand(48, 9))
    experiment = tiny.experiment(images=images, task_settings={"validation_fraction": 0.0})
    orders = set()
    for index in range(3):
        ((inputs, _),) = tiny.minibatches(experiment, index, size=48)
        orders |= {tuple(lane) for lane in inputs[:, :, 0].tolist()}
    assert len(orders) == 9


def test_a_small_last_minibatch_changes_the_weights():
    """36 images in minibatches of 35: the second step has one image and still counts."""
    experiment = tiny.experiment("sgd", batch_size=35, task_settings={"count": 1})
    visited: list[Tensors] = []

    class Watching:
        evaluations_per_step = 1
        rests_where_flat = False

        def initial_memory(self, params: Tensors) -> Tensors:
            return {}

        def step(self, params: Tensors, memory: Tensors, gradient_at) -> tuple:
            visited.append({name: value.clone() for name, value in params.items()})
            return experiment.rule.step(params, memory, gradient_at)

    (result,) = tiny.results(replace(experiment, rule=Watching()))
    assert len(visited) == 2
    assert not torch.equal(visited[1]["0/weight"], result.state.params["0/weight"])


@pytest.mark.parametrize("optimizer", tiny.OPTIMIZERS)
def test_gradient_evaluations_are_counted_over_tasks_passes_and_minibatches(optimizer):
    experiment = tiny.experiment(optimizer, batch_size=7, passes=2)
    per_task = tiny.EVALUATIONS.get(optimizer.split()[0], 2) * 2 * math.ceil(36 / 7)
    counted = [result.state.gradient_evaluations for result in train(experiment)]
    assert counted == [per_task, 2 * per_task, 3 * per_task]


# --- the sequence ----------------------------------------------------------------------------------------------------


def test_each_result_names_its_task_and_carries_the_state_after_it():
    results = tiny.results(tiny.experiment(tasks="class_pairs"))
    assert [result.task for result in results] == [0, 1, 2]
    assert [result.name for result in results] == ["0-1", "0-2", "0-3"]
    assert [result.state.next_task for result in results] == [1, 2, 3]
    for index, result in enumerate(results):
        assert torch.equal(result.state.validation[index], result.validation_accuracy)
        assert torch.equal(result.state.test[index], result.test_accuracy)
        assert len(result.state.validation) == index + 1
        assert result.training_seconds > 0
        assert result.evaluation_seconds > 0


def test_a_finished_trial_has_nothing_left_to_train():
    experiment = tiny.experiment()
    assert tiny.results(experiment, tiny.results(experiment)[-1].state) == []


def test_without_held_out_images_there_is_no_validation_accuracy():
    experiment = tiny.experiment(task_settings={"validation_fraction": 0.0})
    for result in train(experiment):
        assert result.validation_accuracy is None
        assert result.state.validation.shape == (0, 3)
        assert len(result.state.test) == result.task + 1
        assert result.test_accuracy.isfinite().all()


def test_training_learns_and_the_next_task_starts_from_the_weights_of_the_last():
    images = tiny.dataset(train_per_class=40)
    experiment = tiny.experiment("sgd", {"lr": 0.2}, images=images, widths=(16,), passes=10, task_settings={"count": 2})
    first, second = tiny.results(experiment)
    assert (first.test_accuracy > 0.9).all()
    alone = tiny.results(experiment, replace(initial_state(experiment), next_task=1))
    assert not torch.equal(alone[0].state.params["0/weight"], second.state.params["0/weight"])


def test_shrink_and_perturb_acts_before_every_task_but_the_first():
    """With shrink 0 and no noise a task starts at zero weights, from which a ReLU network learns biases only."""
    experiment = tiny.experiment(interventions={"shrink_and_perturb": {"shrink": 0.0, "noise": 0.0}})
    first, *rest = tiny.results(experiment)
    assert first.state.params["0/weight"].any()
    for result in rest:
        assert not result.state.params["0/weight"].any()
        assert result.state.params["2/bias"].any()


def test_the_noise_of_shrink_and_perturb_has_the_standard_deviation_it_says():
    module, settings = tiny.part("interventions", "shrink_and_perturb", {"shrink": 0.5, "noise": 0.1})
    acting = module.build(settings, (0, 1), "cpu")
    params = {"0/weight": torch.ones(2, 100, 100)}
    model = tiny.mlp(100, 100, [])
    changed, again = (tiny.crossed(acting, model, params, {}, {}, task).params for task in (1, 2))
    for lane in changed["0/weight"]:
        assert float(lane.mean()) == pytest.approx(0.5, abs=0.005)
        assert float(lane.std()) == pytest.approx(0.1, abs=0.003)
    assert not torch.equal(changed["0/weight"], again["0/weight"]), "each boundary has its own noise"
