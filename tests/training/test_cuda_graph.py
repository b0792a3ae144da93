"""Recording and replay, tested on a CPU by a traced graph of tensor operations.

A traced graph has the blind spots of a CUDA graph: it does not see Python code or values, only the tensors of its recording.
"""

from dataclasses import replace

import pytest
import tiny
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from study import interventions, parts
from study.models import cnn
from study.pixels import scale_of
from study.training.cuda_graph import Captured, Recording
from study.training.steps import Steps, in_runs
from study.training.trainer import train


def traced(function, arguments) -> Recording:
    """Records a call as a graph of tensor operations, after a call with side effects like CUDA's warm-up."""
    function(*arguments)
    graph = make_fx(lambda *words: function(*words))(*arguments)  # noqa: PLW0108  # a method counts its self otherwise
    from_host = [node for node in graph.graph.nodes if "lift_fresh" in str(node.target)]  # as in `tensor[-1] = 0`
    assert not from_host, "a CUDA graph cannot record a copy of a number from the host"
    results = tuple(result.clone() for result in function(*arguments))

    def replay() -> None:
        for target, value in zip(results, graph(*arguments), strict=True):
            target.copy_(value)

    return Recording(arguments, results, replay)


def test_a_captured_function_gives_what_the_function_gives_and_changes_what_it_changes():
    total = torch.zeros(2)

    def accumulate(x):
        total.add_(x)
        return (total * 2,)

    captured = Captured(accumulate, lambda: [total], traced)
    (first,) = captured(torch.tensor([1.0, 2.0]))
    (second,) = captured(torch.tensor([10.0, 20.0]))
    assert first.tolist() == [2.0, 4.0], "a result stays as it is when the next comes"
    assert second.tolist() == [22.0, 44.0]
    assert total.tolist() == [11.0, 22.0], "the calls before the recording left nothing behind"


def test_each_shape_has_a_recording_of_its_own():
    recorded = []

    def counting(function, arguments):
        recorded.append(tuple(argument.shape for argument in arguments))
        return traced(function, arguments)

    captured = Captured(lambda x: (x + 1,), list, counting)
    for size in (3, 3, 2, 3, 2):
        (result,) = captured(torch.arange(size))
        assert result.tolist() == list(range(1, size + 1))
    assert recorded == [((3,),), ((2,),)]


def recorded_results(experiment, monkeypatch) -> tuple[list, list]:
    """The results with steps that are recorded as on a GPU, and the shapes of the minibatches of each recording."""
    shapes = []

    class Recorded(Steps):
        def __init__(self, *words) -> None:
            super().__init__(*words)
            self._leaves_out = False  # as on a GPU
            self._recorded = Captured(self._take_all, self._tensors, self.record)

        def record(self, function, arguments) -> Recording:
            shapes.append(tuple(arguments[0].shape))
            return traced(function, arguments)

    monkeypatch.setattr("study.training.trainer.Steps", Recorded)
    return list(train(experiment)), shapes


def test_choices_of_one_shape_come_in_few_lengths():
    whole, last = [torch.full((2, 5), i) for i in range(70)], [torch.full((2, 3), 70)]
    runs = list(in_runs([*whole, *last, *whole[:5]]))
    assert [tuple(run.shape) for run in runs] == [
        (32, 2, 5), (32, 2, 5), (4, 2, 5), (2, 2, 5), (1, 2, 3), (4, 2, 5), (1, 2, 5)
    ]  # fmt: skip
    assert [int(step[0, 0]) for run in runs for step in run] == [*range(71), *range(5)]


@pytest.mark.parametrize("optimizer", tiny.OPTIMIZERS)
@pytest.mark.parametrize("tasks", ["permuted_pixels", "class_pairs"])
@pytest.mark.parametrize("plain", [False, True])
def test_steps_that_were_recorded_once_train_as_steps_that_are_taken_anew(optimizer, tasks, plain, monkeypatch):
    """A step depends on no value, and the tensors it changes stay in place, over tasks and passes."""
    interventions = {"l2_init": {"strength": 0.01}} if plain else {}
    experiment = tiny.experiment(optimizer, tasks=tasks, interventions=interventions, batch_size=7, passes=2)
    expected = tiny.results(experiment)
    results, recordings = recorded_results(experiment, monkeypatch)
    assert len(recordings) == len(set(recordings)) > 1, "one for each shape"
    assert {shape[2] for shape in recordings} == {7, experiment.tasks.task(0).train.shape[1] % 7}
    for ours, theirs in zip(results, expected, strict=True):
        for measure in tiny.MEASURES:
            torch.testing.assert_close(getattr(ours, measure), getattr(theirs, measure), rtol=0, atol=1e-6)
        others = tiny.state_tensors(theirs.state)
        for name, value in tiny.state_tensors(ours.state).items():
            torch.testing.assert_close(value, others[name], rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("name", parts.names("interventions"))
def test_an_intervention_can_be_recorded_and_reads_no_value_on_a_gpu(name, monkeypatch):
    experiment = tiny.experiment("sgd", {"lr": 0.1, "momentum": 0.9}, interventions={name: {}}, batch_size=9)
    expected = tiny.results(experiment)
    monkeypatch.setattr(interventions, "readable", lambda tensor: False)
    results, recordings = recorded_results(experiment, monkeypatch)
    assert len(recordings) == len(set(recordings)) > 0
    for ours, theirs in zip(results, expected, strict=True):
        others = tiny.state_tensors(theirs.state)
        for key, value in tiny.state_tensors(ours.state).items():
            torch.testing.assert_close(value, others[key], rtol=0, atol=1e-5, msg=lambda m, n=key: f"{n}: {m}")


@pytest.mark.parametrize("optimizer", ["sam", "gnp exact"])
def test_steps_with_convolutions_can_be_recorded_as_a_gpu_computes_them(optimizer, monkeypatch):
    experiment = tiny.experiment(optimizer, batch_size=7, **tiny.CNN)
    expected = tiny.results(experiment)
    monkeypatch.setattr(cnn, "at_once", lambda inputs: True)
    results, recordings = recorded_results(experiment, monkeypatch)
    assert len(recordings) == len(set(recordings)) > 1
    for ours, theirs in zip(results, expected, strict=True):
        for name, value in ours.state.params.items():
            torch.testing.assert_close(value, theirs.state.params[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", [{"images": {"shape": (2, 3, 3)}}, tiny.CNN])
def test_recorded_steps_scale_pixels_that_move_from_task_to_task(model, monkeypatch):
    images = tiny.dataset(**model["images"])
    standardized = replace(images, scale=scale_of("standardized", images.train_images, 2))
    experiment = tiny.experiment("sam", batch_size=7, **model | {"images": standardized})
    expected = tiny.results(experiment)
    monkeypatch.setattr(cnn, "at_once", lambda inputs: True)
    results, _ = recorded_results(experiment, monkeypatch)
    for ours, theirs in zip(results, expected, strict=True):
        for name, value in ours.state.params.items():
            torch.testing.assert_close(value, theirs.state.params[name], rtol=0, atol=1e-5)
