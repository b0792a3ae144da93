"""Diagnostics: when they run, what they measure, and that training does not change."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import tiny
import torch
from torch.nn.functional import cross_entropy

from study import schema
from study.config import Diagnostics, TrialConfig
from study.contracts import Experiment
from study.errors import StudyError
from study.lanes import generator
from study.training import checkpoint, diagnostics, task_log
from study.training.diagnostics import NetworkDiagnostics
from study.training.metrics import evaluate
from study.training.minibatches import Feed
from study.training.steps import Steps
from study.training.trainer import TaskResult, initial_state

ALWAYS = Diagnostics(curvature_every=1, forgetting_every=1, onset_every=1)
NOTHING = Diagnostics(units_every=0, curvature_every=0, forgetting_every=0, onset_every=0)
SEQUENCES = ("permuted_pixels", "class_pairs")
HESSIAN = {schema.HESSIAN_EIGENVALUE, schema.HESSIAN_TRACE, schema.HESSIAN_TRACE_ERROR}
CURVATURE = {*HESSIAN, schema.SAM_SHARPNESS, schema.GRADIENT_NORM}
RANKS = {schema.EFFECTIVE_RANK, schema.STABLE_RANK, schema.SRANK}
RELIABILITY = schema.onset_name(schema.GRADIENT_RELIABILITY)
ONLY_ONSET = {schema.ADAPTIVE_SHARPNESS, schema.GRADIENT_RELIABILITY}
FORGETTING = {schema.FIRST_TASK_ACCURACY, schema.EARLIER_TASKS_ACCURACY}


def quantities(result: TaskResult) -> set[str]:
    """The names of the measured quantities, without layers."""
    return {name.split("/layer_")[0] for name in result.diagnostics}


def sample(experiment: Experiment, index: int, size: int):
    """Inputs and labels of each lane in a task's sample, with pixels moved, by an independent computation."""
    task = experiment.tasks.task(index)
    for lane, seed in enumerate(experiment.seeds):
        order = torch.randperm(task.train.shape[1], generator=generator(seed, "sample"))[:size]
        chosen = task.train[lane, order]
        pixels = experiment.dataset.train_images[chosen]
        if task.pixel_order is not None:
            pixels = pixels[:, task.pixel_order[lane]]
        yield pixels.float() / 255, task.outputs[experiment.dataset.train_labels[chosen]]


def loss_of(weights, shapes, inputs, labels):
    """The mean cross-entropy of a fully connected network, implemented independently."""
    signal, start = inputs, 0
    for i, (weight, bias) in enumerate(zip(shapes[::2], shapes[1::2], strict=True)):
        middle, end = start + math.prod(weight), start + math.prod(weight) + math.prod(bias)
        signal = (torch.relu(signal) if i else signal) @ weights[start:middle].view(weight).T + weights[middle:end]
        start = end
    return cross_entropy(signal, labels)


@pytest.mark.parametrize("optimizer", ["sgd", "sam", "sgd with momentum and weight decay"])
@pytest.mark.parametrize("tasks", SEQUENCES)
def test_curvature_and_sharpness_are_those_of_the_plain_network_on_the_plain_sample(optimizer, tasks):
    """Independent of how training orders weights and pixels, and which pixels it leaves out."""
    experiment = tiny.experiment(
        optimizer, tasks=tasks, widths=(6, 5), diagnostics=Diagnostics(curvature_every=1, images=15, probes=300)
    )
    for result in tiny.results(experiment):
        for lane, (inputs, labels) in enumerate(sample(experiment, result.task, 15)):
            params = [value[lane].double() for value in result.state.params.values()]
            shapes = [value.shape for value in params]
            weights = torch.cat([value.flatten() for value in params])
            given = shapes, inputs.double(), labels
            gradient, hessian = torch.func.grad(loss_of)(weights, *given), torch.func.hessian(loss_of)(weights, *given)
            rise = loss_of(weights + 0.05 * gradient / gradient.norm(), *given) - loss_of(weights, *given)
            values = {name: result.diagnostics[name][lane].item() for name in CURVATURE}
            assert values[schema.GRADIENT_NORM] == pytest.approx(gradient.norm().item(), rel=1e-4)
            assert values[schema.SAM_SHARPNESS] == pytest.approx(rise.item(), rel=1e-3, abs=1e-6)
            assert values[schema.HESSIAN_EIGENVALUE] == pytest.approx(
                torch.linalg.eigvalsh(hessian)[-1].item(), rel=0.02
            )
            assert abs(values[schema.HESSIAN_TRACE] - hessian.trace()) < 5 * values[schema.HESSIAN_TRACE_ERROR]


@pytest.mark.parametrize("tasks", SEQUENCES)
def test_units_and_ranks_are_those_of_the_activations_on_the_sample(tasks):
    experiment = tiny.experiment(tasks=tasks, diagnostics=Diagnostics(images=15))
    for result in tiny.results(experiment):
        for lane, (inputs, _) in enumerate(sample(experiment, result.task, 15)):
            params = {name: value[[lane]] for name, value in result.state.params.items()}
            _, hidden = experiment.model.forward(params, inputs.unsqueeze(0))
            for i, layer in enumerate(hidden):
                dead = (layer[0] > 0).sum(dim=0) == 0
                assert result.diagnostics[f"units/dead/layer_{i}"][lane].item() == dead.double().mean().item()
            squares = torch.linalg.svdvals(hidden[-1][0].double()).square()
            stable = (squares.sum() / squares.max()).item() if squares.max() > 0 else 0
            assert result.diagnostics[schema.STABLE_RANK][lane].item() == pytest.approx(stable, rel=1e-5)


@pytest.mark.parametrize("tasks", SEQUENCES)
def test_onset_curvature_is_that_of_the_plain_network_before_its_first_step_on_the_new_sample(tasks):
    """Against dense float64 Hessians; the reliability against a plain loop over the sample's minibatches."""
    settings = Diagnostics(units_every=0, curvature_every=0, forgetting_every=0, onset_every=1, images=18, probes=300)
    experiment = tiny.experiment(tasks=tasks, widths=(6, 5), diagnostics=settings)
    before = experiment.model.initial(experiment.seeds)
    for result in tiny.results(experiment):
        for lane, (inputs, labels) in enumerate(sample(experiment, result.task, 18)):
            params = [value[lane].double() for value in before.values()]
            shapes = [value.shape for value in params]
            weights = torch.cat([value.flatten() for value in params])
            given = shapes, inputs.double(), labels
            loss = loss_of(weights, *given)
            gradient, hessian = torch.func.grad(loss_of)(weights, *given), torch.func.hessian(loss_of)(weights, *given)
            step = weights.square() * gradient / (weights.abs() * gradient).norm()
            batches = [
                (shapes, inputs[i : i + 5].double(), labels[i : i + 5]) for i in (0, 5, 10)
            ]  # three are left over
            gradients = [torch.func.grad(loss_of)(weights, *batch) for batch in batches]
            squares = sum(float(each.square().sum()) for each in gradients) / 3
            expected = {
                schema.GRADIENT_NORM: gradient.norm().item(),
                schema.SAM_SHARPNESS: (loss_of(weights + 0.05 * gradient / gradient.norm(), *given) - loss).item(),
                schema.ADAPTIVE_SHARPNESS: (loss_of(weights + 0.5 * step, *given) - loss).item(),
                schema.GRADIENT_RELIABILITY: float((sum(gradients) / 3).square().sum()) / squares,
                schema.HESSIAN_EIGENVALUE: torch.linalg.eigvalsh(hessian)[-1].item(),
            }
            found = {name: result.diagnostics[schema.onset_name(name)][lane].item() for name in CURVATURE | ONLY_ONSET}
            for name, value in expected.items():
                near = 0.02 if name == schema.HESSIAN_EIGENVALUE else 1e-3
                assert found[name] == pytest.approx(value, rel=near, abs=1e-6), name
            assert abs(found[schema.HESSIAN_TRACE] - hessian.trace()) < 5 * found[schema.HESSIAN_TRACE_ERROR]
        before = result.state.params


@pytest.mark.parametrize("tasks", SEQUENCES)
def test_the_same_network_has_the_same_values_at_an_onset_as_after_a_task_due_or_not(tasks):
    experiment = tiny.experiment("sam", tasks=tasks, diagnostics=Diagnostics(curvature_every=1, forgetting_every=0))
    for result in tiny.results(experiment):
        steps = Steps(experiment, result.state.weights)
        feed = steps.feed(experiment.tasks.task(result.task))
        found = NetworkDiagnostics(experiment, steps).onset(result.task, feed, result.state.params)
        assert {name.split("/layer_")[0] for name in found} == {quantity.name for quantity in schema.ONSET}
        shared = {name.removeprefix("onset/") for name in found} & result.diagnostics.keys()
        assert len(found) - len(shared) == len(ONLY_ONSET)
        assert all(torch.equal(found[f"onset/{name}"], result.diagnostics[name]) for name in shared)


def test_an_onset_comes_after_the_interventions_of_the_boundary():
    halved = {"shrink_and_perturb": {"shrink": 0.5, "noise": 0.0}}
    first, second, *_ = tiny.results(tiny.experiment(interventions=halved, diagnostics=ALWAYS))
    name = "weights/norm/layer_0"
    torch.testing.assert_close(second.diagnostics[f"onset/{name}"], 0.5 * first.diagnostics[name])


def test_an_onset_counts_as_diagnostics_and_not_as_training(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("study.training.trainer.time.perf_counter", lambda: now[0])

    class Slow(NetworkDiagnostics):
        def before(self, *given):
            now[0] += 1.0
            return super().before(*given)

    monkeypatch.setattr("study.training.trainer.NetworkDiagnostics", Slow)
    for result in tiny.results(tiny.experiment(diagnostics=ALWAYS)):
        assert (result.training_seconds, result.evaluation_seconds, result.diagnostics_seconds) == (0, 0, 1)


def test_a_sample_of_fewer_than_two_minibatches_says_nothing_of_their_agreement():
    for images, is_known in ((10, True), (9, False)):
        experiment = tiny.experiment(diagnostics=ALWAYS.model_copy(update={"images": images}))
        for result in tiny.results(experiment):
            assert result.diagnostics[RELIABILITY].isfinite().all() == is_known
            assert result.diagnostics["onset/gradient/norm"].isfinite().all()


def test_weights_are_measured_layer_by_layer_against_those_that_training_began_with():
    experiment = tiny.experiment()
    result = tiny.results(experiment)[-1]
    began, now = experiment.model.initial(experiment.seeds), result.state.params
    for layer, i in {"0": 0, "1": 1, "output": 2}.items():
        for lane in range(3):
            after = torch.cat([now[f"{i}/{part}"][lane].flatten() for part in ("weight", "bias")])
            before = torch.cat([began[f"{i}/{part}"][lane].flatten() for part in ("weight", "bias")])
            assert result.diagnostics[f"weights/norm/layer_{layer}"][lane].item() == pytest.approx(after.norm().item())
            distance = result.diagnostics[f"weights/distance/layer_{layer}"][lane].item()
            assert distance == pytest.approx((after - before).norm().item(), rel=1e-5)


@pytest.mark.parametrize("plainly", [False, True])
@pytest.mark.parametrize("tasks", SEQUENCES)
def test_forgetting_is_the_accuracy_of_now_on_the_earlier_tasks(tasks, plainly):
    experiment = tiny.experiment(tasks=tasks, diagnostics=ALWAYS)
    experiment = tiny.plainly(experiment) if plainly else experiment
    for result in tiny.results(experiment):
        now = torch.stack(
            [
                evaluate(
                    experiment.model,
                    result.state.params,
                    Feed(experiment.dataset, experiment.tasks.task(i), "cpu").test(),
                )
                for i in range(result.task + 1)
            ]
        )
        assert torch.equal(result.diagnostics[schema.FIRST_TASK_ACCURACY], now[0])
        if result.task == 0:
            assert schema.EARLIER_TASKS_ACCURACY not in result.diagnostics
        else:
            assert torch.equal(result.diagnostics[schema.EARLIER_TASKS_ACCURACY], now[:-1].mean(dim=0))


def test_a_large_test_set_is_asked_in_images_that_are_evenly_spaced():
    experiment = tiny.experiment(diagnostics=Diagnostics(forgetting_every=1, images=5))
    task = experiment.tasks.task(0)
    (result, *_) = tiny.results(experiment)
    some = replace(task, test=task.test[[0, 4, 9, 14, 19]])
    expected = evaluate(experiment.model, result.state.params, Feed(experiment.dataset, some, "cpu").test())
    assert torch.equal(result.diagnostics[schema.FIRST_TASK_ACCURACY], expected)


def test_each_look_is_due_after_the_first_task_every_so_many_and_after_the_last():
    settings = Diagnostics(units_every=2, curvature_every=3, forgetting_every=4, onset_every=5)
    experiment = tiny.experiment(task_settings={"count": 6}, diagnostics=settings)
    measured = [quantities(result) for result in tiny.results(experiment)]
    assert [schema.STABLE_RANK in names for names in measured] == [True, False, True, False, True, True]
    assert [schema.SAM_SHARPNESS in names for names in measured] == [True, False, False, True, False, True]
    assert [schema.FIRST_TASK_ACCURACY in names for names in measured] == [True, False, False, False, True, True]
    assert [RELIABILITY in names for names in measured] == [True, False, False, False, False, True]


def test_together_they_are_all_diagnostics_of_the_schema():
    assert quantities(tiny.results(tiny.experiment(diagnostics=ALWAYS))[-1]) == {
        quantity.name for quantity in schema.ALL_DIAGNOSTICS
    }


@pytest.mark.parametrize("name", [quantity.name for quantity in schema.ALL_DIAGNOSTICS])
def test_each_can_be_left_out(name):
    settings = ALWAYS.model_copy(update={"leave_out": (name,)})
    experiment = tiny.experiment(task_settings={"count": 2}, diagnostics=settings)
    everything = {quantity.name for quantity in schema.ALL_DIAGNOSTICS}
    assert quantities(tiny.results(experiment)[-1]) == everything - {name}


def test_what_cannot_be_left_out_is_refused_with_the_nearest_name():
    with pytest.raises(StudyError, match=r"'hessian/tracee' is not a diagnostic; did you mean 'hessian/trace'\?"):
        TrialConfig.from_plain({"diagnostics": {"leave_out": ["hessian/tracee"]}})


@pytest.mark.parametrize("optimizer", ["sgd", "sam", "gnp", "sgd with momentum and weight decay"])
@pytest.mark.parametrize("tasks", SEQUENCES)
def test_looking_changes_nothing(optimizer, tasks):
    with_diagnostics, without = (
        tiny.results(tiny.experiment(optimizer, tasks=tasks, diagnostics=settings)) for settings in (ALWAYS, NOTHING)
    )
    for ours, theirs in zip(with_diagnostics, without, strict=True):
        assert ours.diagnostics
        assert not theirs.diagnostics
        for measure in tiny.MEASURES:
            assert torch.equal(getattr(ours, measure), getattr(theirs, measure))
        after = tiny.state_tensors(theirs.state)
        assert all(torch.equal(value, after[name]) for name, value in tiny.state_tensors(ours.state).items())


@pytest.mark.parametrize("tasks", SEQUENCES)
def test_interrupted_and_resumed_they_are_those_of_a_trial_straight_through(tasks, tmp_path):
    experiment = tiny.experiment("sam", tasks=tasks, task_settings={"count": 4}, diagnostics=ALWAYS)
    straight = tiny.results(experiment)
    checkpoint.save(tmp_path / "state.pt", straight[1].state, "identity")
    for ours, theirs in zip(
        tiny.results(experiment, tiny.load_checkpoint(tmp_path / "state.pt", "identity")), straight[2:], strict=True
    ):
        assert ours.diagnostics.keys() == theirs.diagnostics.keys()
        assert all(torch.equal(value, theirs.diagnostics[name]) for name, value in ours.diagnostics.items())


@pytest.mark.parametrize("at_once", [1, 2, 20])
def test_a_lane_alone_is_diagnosed_as_in_company(at_once, monkeypatch):
    monkeypatch.setitem(diagnostics.LANES_AT_ONCE, "cpu", at_once)
    company = tiny.results(tiny.experiment("sam", seeds=(0, 1, 2), diagnostics=ALWAYS))
    alone = tiny.results(tiny.experiment("sam", seeds=(1,), diagnostics=ALWAYS))
    for ours, theirs in zip(alone, company, strict=True):
        for name, value in ours.diagnostics.items():
            torch.testing.assert_close(value[0], theirs.diagnostics[name][1], rtol=1e-5, atol=1e-7)


def test_what_is_drawn_while_a_gpu_trains_is_what_is_drawn_afterwards(monkeypatch):
    class Ahead(NetworkDiagnostics):
        def __init__(self, *words) -> None:
            super().__init__(*words)
            self._drawing = ThreadPoolExecutor(1)

        def _signs_ahead(self, index):
            drawn.append(index)
            return super()._signs_ahead(index)

    drawn = []
    experiment = tiny.experiment("sam", diagnostics=ALWAYS)
    afterwards = tiny.results(experiment)
    monkeypatch.setattr("study.training.trainer.NetworkDiagnostics", Ahead)
    for ours, theirs in zip(tiny.results(experiment), afterwards, strict=True):
        assert all(torch.equal(value, theirs.diagnostics[name]) for name, value in ours.diagnostics.items())
    assert drawn == [0, 1, 2]


def test_a_lane_that_has_diverged_has_no_diagnostics_and_its_record_is_json():
    experiment = tiny.experiment(diagnostics=ALWAYS)
    experiment = replace(experiment, rule=replace(experiment.rule, lr=torch.tensor([0.1, 1e30, 0.1])))
    first, *_, result = tiny.results(experiment)
    assert first.diagnostics[RELIABILITY].isfinite().all(), "it diverged after the first step"
    assert result.state.diverged.tolist() == [False, True, False]
    line = task_log.task_line(result, experiment.tasks.count)
    assert json.loads(json.dumps(line, allow_nan=False)) == line
    assert len(line["diagnostics"]) > 10
    for values in line["diagnostics"].values():
        assert values[1] is None
        assert None not in (values[0], values[2])


def test_weights_so_large_that_activations_overflow_have_no_diagnostics():
    experiment = tiny.experiment(diagnostics=ALWAYS, task_settings={"count": 1})

    class Overflowing(tiny.PlainModel):
        def forward(self, params, inputs):
            logits, hidden = self.model.forward(params, inputs)
            return logits, [layer * torch.tensor([1.0, torch.inf, 1.0]).view(-1, 1, 1) for layer in hidden]

    (result,) = tiny.results(replace(experiment, model=Overflowing(experiment.model)))
    for name in (schema.STABLE_RANK, schema.onset_name(schema.STABLE_RANK)):
        ranks = result.diagnostics[name]
        assert ranks[[0, 2]].isfinite().all()
        assert ranks[1].isnan()


def test_a_network_that_overflows_at_an_onset_has_no_values_and_takes_none_from_the_others():
    experiment = tiny.experiment(diagnostics=ALWAYS)
    steps = Steps(experiment, initial_state(experiment).weights)
    feed, params = steps.feed(experiment.tasks.task(0)), experiment.model.initial(experiment.seeds)
    diagnosis = NetworkDiagnostics(experiment, steps)
    alone = diagnosis.onset(0, feed, params)
    for value in params.values():
        value[1] *= 1e30
    for name, values in diagnosis.onset(0, feed, params).items():
        torch.testing.assert_close(values[[0, 2]], alone[name][[0, 2]], rtol=1e-5, atol=1e-7)
        assert values[1].isnan() or "weights/norm" in name, name


def test_a_network_without_hidden_layers_has_no_units_to_look_at():
    result = tiny.results(tiny.experiment(widths=(), diagnostics=ALWAYS))[-1]
    hidden = {schema.DEAD_UNITS, schema.DORMANT_UNITS, *RANKS}
    hidden |= {schema.onset_name(name) for name in hidden}
    assert quantities(result) == {quantity.name for quantity in schema.ALL_DIAGNOSTICS} - hidden
    assert result.diagnostics[schema.HESSIAN_EIGENVALUE].isfinite().all()
