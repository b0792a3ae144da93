"""Probes: copies are trained as networks are, and leave the networks alone."""

import gc
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch

from analysis import probes as tables
from study import schema
from study.config import Diagnostics, TrialConfig
from study.errors import StudyError
from study.experiment import build
from study.operations import _rescaling
from study.parts import complete, labels
from study.sweep.task_line import TaskLine
from study.tracking.run_content import probes_csv, task_metrics
from study.training import task_log
from study.training.pack import of_lanes
from study.training.probes import steps_until

QUIET = Diagnostics(units_every=0, curvature_every=0, forgetting_every=0, images=20)
OPERATIONS = {"layer_rescaling": {"levels": [0.0, 1.0]}, "unit_permutation": {}, "fresh_weights": {}}
ONLINE, LOSS = schema.PROBE_ONLINE_ACCURACY, schema.PROBE_ONLINE_LOSS


def probed(lr=(0.3,), operations=OPERATIONS, **words):
    probes = {"operations": operations, "lr": lr, "boundaries": (1,)}
    return tiny.experiment("sgd", {"lr": 0.3}, passes=2, diagnostics=QUIET, probes=probes, **words)


@pytest.fixture(scope="module")
def results():
    return tiny.results(probed())


def copies(result, lr=0.3):
    """Online accuracies and losses by the name of the copies."""
    return {
        schema.arm_name(each.operation, each.level, copy.undone): copy.values
        for each in result.probes
        for copy in each.trained
        if copy.lr == lr
    }


def test_probes_change_nothing_but_the_time(results):
    alone = tiny.results(replace(probed(), probes=None))
    assert [len(result.probes) > 0 for result in results] == [False, True, False]
    for with_probes, without in zip(results, alone, strict=True):
        tensors = tiny.state_tensors(without.state)
        assert all(torch.equal(value, tensors[name]) for name, value in tiny.state_tensors(with_probes.state).items())


def test_a_copy_that_nothing_has_changed_learns_what_the_network_learns(results):
    unchanged = copies(results[1])["none"]
    assert torch.equal(unchanged[ONLINE], results[1].online_accuracy)
    assert torch.equal(unchanged[LOSS], results[1].online_loss)
    assert torch.equal(unchanged[schema.PROBE_TEST_ACCURACY], results[1].test_accuracy)
    network = results[1].probes[0].network
    assert not network[schema.FUNCTION_CHANGE].any()
    assert not network[schema.DISPLACEMENT].any()


def test_permuted_units_and_undone_rescaling_change_nothing_and_rescaling_does(results):
    found = copies(results[1])
    assert set(found) == {
        "none",
        "layer_rescaling 0",
        "layer_rescaling 0 undone",
        "layer_rescaling 1",
        "layer_rescaling 1 undone",
        "unit_permutation",
        "fresh_weights",
    }
    for name in ("unit_permutation", "layer_rescaling 0 undone", "layer_rescaling 1 undone"):
        torch.testing.assert_close(found[name][LOSS], found["none"][LOSS], rtol=1e-4, atol=1e-6)
        assert torch.equal(found[name][ONLINE], found["none"][ONLINE])
    for name in ("layer_rescaling 1", "fresh_weights"):
        assert not torch.allclose(found[name][LOSS], found["none"][LOSS], rtol=1e-3)


def test_copies_are_measured_before_their_first_step(results):
    flattest, sharpest = (each.network for each in results[1].probes if each.operation == "layer_rescaling")
    name = schema.onset_name(schema.HESSIAN_EIGENVALUE)
    assert (flattest[name] < sharpest[name]).all()
    adaptive = schema.onset_name(schema.ADAPTIVE_SHARPNESS)
    torch.testing.assert_close(flattest[adaptive], sharpest[adaptive], rtol=1e-2, atol=1e-7)


def test_every_learning_rate_has_its_copies():
    found = tiny.results(probed(lr=(0.1, 0.3), operations={}))[1]
    slow, fast = copies(found, 0.1)["none"], copies(found, 0.3)["none"]
    assert torch.equal(fast[ONLINE], found.online_accuracy)
    assert (slow[LOSS] != fast[LOSS]).all()


def test_copies_have_neither_the_networks_rule_nor_its_interventions():
    plain = tiny.results(probed(operations={}))[0].state
    other = tiny.experiment(
        "sam",
        {"rho": 0.5, "lr": 0.01},
        passes=2,
        diagnostics=QUIET,
        probes={"operations": {}, "lr": (0.3,)},
        interventions={"l2": {"strength": 0.5}},
    )
    started = replace(tiny.results(other)[0].state, params=plain.params)
    second = tiny.results(other, started)[0]
    expected = tiny.results(probed(operations={}))[1].online_loss
    torch.testing.assert_close(copies(second)["none"][LOSS], expected)


def test_a_run_that_is_resumed_at_the_boundary_has_the_same_probes(results):
    resumed = tiny.results(probed(), results[0].state)[0]
    assert task_log.probes(resumed) == task_log.probes(results[1])


def test_a_lane_does_not_depend_on_those_beside_it(results):
    alone = tiny.results(probed(seeds=(1,)))[1]
    found = task_log.probes(of_lanes(results[1], slice(1, 2)))
    for own, beside in zip(task_log.probes(alone), found, strict=True):
        assert [copy["lanes"][ONLINE] for copy in own["trained"]] == [
            copy["lanes"][ONLINE] for copy in beside["trained"]
        ]


def test_a_copy_that_diverges_counts_as_chance():
    found = copies(tiny.results(probed(lr=(1e20,), operations={}))[1], 1e20)["none"]
    outputs = 4
    assert found[ONLINE].tolist() == [1 / outputs] * 3
    assert found[LOSS].tolist() == pytest.approx([math.log(outputs)] * 3)


def test_nothing_is_known_of_copies_of_a_network_that_has_diverged():
    experiment = tiny.experiment(
        "sgd", {"lr": 1e20}, diagnostics=QUIET, probes={"operations": {"fresh_weights": {}}, "lr": (0.3,)}
    )
    second = tiny.results(experiment)[1]
    assert second.state.diverged.all()
    values = [values for each in task_log.probes(second) for values in each["network"].values()]
    values += [own for each in task_log.probes(second) for copy in each["trained"] for own in copy["lanes"].values()]
    assert values
    assert all(value is None for own in values for value in own)


def test_steps_until_an_accuracy_are_counted_in_blocks():
    blocks = torch.tensor([[0.5, 0.95, 0.1], [0.9, 0.2, 0.3], [0.1, 0.1, 0.95], [0.1, 0.1, 0.2]], dtype=torch.float64)
    assert steps_until(SimpleNamespace(blocks=blocks, steps=100), 0.9).tolist() == [64, 32, 96]
    assert steps_until(SimpleNamespace(blocks=blocks, steps=90), 0.9).tolist() == [64, 32, 90]
    assert steps_until(SimpleNamespace(blocks=blocks[:, 1:] / 2, steps=100), 0.9).tolist() == [100, 100]


def lines(results):
    return [TaskLine({"kind": "task", "at": 1.0, **task_log.task_line(result, 3)}) for result in results]


def test_the_table_and_the_metrics_have_the_values_of_the_record(results):
    found = lines(results)
    history = SimpleNamespace(tasks=found, seeds=(0, 1, 2))
    frame = tables.read(probes_csv(history), {"trial": "t", "scenario": "s", "method": "m"}, "run")
    assert len(frame) == 7 * 3
    assert list(frame.columns[:12]) == [*tables.LANE_COLUMNS, *tables.COPY_COLUMNS]
    for each in found[1]["probes"]:
        for copy in each["trained"]:
            arm = schema.arm_name(each["operation"], each["level"], copy["undone"])
            rows = frame[(frame["arm"] == arm) & (frame["task"] == 1)]
            assert rows[ONLINE].tolist() == copy["lanes"][ONLINE]
            assert rows[schema.DISPLACEMENT].tolist() == each["network"][schema.DISPLACEMENT]
            assert set(rows["undone"]) == {copy["undone"]}
    metrics = {metric.key: metric.value for metric in task_metrics(found[1])}
    undone = next(copy for copy in found[1]["probes"][1]["trained"] if copy["undone"])["lanes"][ONLINE]
    assert metrics["probe/accuracy_online/layer_rescaling_0_undone/lr_0.3"] == sum(undone) / 3
    assert tables.has_any(metrics)
    assert not tables.has_any({metric.key: 0.0 for metric in task_metrics(found[0])})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"nonsense": [1.0, 1.0, 1.0]}}, "'nonsense' in 'probes' is not a quantity"),
        ({"network": {schema.DISPLACEMENT: [1.0]}}, "has 1 lanes, not 3"),
    ],
)
def test_a_record_with_other_probes_is_refused(results, change, words):
    line = {"kind": "task", "at": 1.0, **task_log.task_line(results[1], 3)}
    line["probes"] = [line["probes"][0] | change]
    with pytest.raises(ValueError, match=words):
        TaskLine(line)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"probes/boundaries": [2, 9]}, "probes/boundaries has 9, but the last of 3 tasks is task 2"),
        ({"probes/boundaries": [1, 1]}, "values must all be different"),
        ({"probes/lr": [0.0], "probes/boundaries": [1]}, "greater than 0"),
        ({"operations/fresh_weights": {}}, "operations/fresh_weights has no effect without probes/boundaries"),
        ({"probes/lr": [0.5]}, "probes/lr has no effect without probes/boundaries"),
        ({"operations/rescaling": {}, "probes/boundaries": [1]}, "unknown operation 'rescaling'"),
        (
            {"operations/layer_rescaling": {}, "probes/boundaries": [1], "model/activation": "gelu"},
            "operations/layer_rescaling: layers can be rescaled only in a network",
        ),
        (
            {"operations/norm_rescaling": {}, "probes/boundaries": [1], "model/layer_norm": "plain"},
            "operations/norm_rescaling: layers can be rescaled only",
        ),
        (
            {"operations/random_displacement": {}, "probes/boundaries": [1], "model/widths": [5]},
            "operations/random_displacement: layers can be rescaled only",
        ),
        (
            {"operations/idle_units": {}, "probes/boundaries": [1], "model/widths": []},
            "operations/idle_units: it changes",
        ),
        ({"operations/layer_rescaling/levels": [2.0], "probes/boundaries": [1]}, "less than or equal to 1"),
    ],
)
def test_probes_that_make_no_sense_are_refused(settings, words):
    flat = {"tasks/count": 3, "training/device": "cpu", **settings}
    with pytest.raises(StudyError, match=words):
        build(complete(TrialConfig.from_flat(flat)), tiny.dataset(shape=(1, 28, 28)))


def test_the_learning_rates_of_copies_are_not_taken_for_that_of_the_networks():
    found = labels(TrialConfig.from_flat({"probes/boundaries": [1]}))
    assert (found["probes/lr"].short, found["optimizer/lr"].short) == ("probe_lr", "lr")
    assert "probes/lr" not in labels(TrialConfig())


def test_what_is_computed_of_networks_is_computed_once_and_ends_with_them(monkeypatch):
    gc.collect()
    before = len(_rescaling._KEPT)  # of other tests, which keep theirs
    begun = _rescaling.Rescalings.__init__
    made = []
    monkeypatch.setattr(
        _rescaling.Rescalings, "__init__", lambda own, subject: (made.append(1), begun(own, subject))[1]
    )
    tiny.results(probed())
    gc.collect()
    assert made == [1]  # once for all operations
    assert len(_rescaling._KEPT) == before


def test_a_configuration_without_probes_says_nothing_of_them():
    config = TrialConfig()
    assert not {"probes", "operations"} & config.plain().keys()
    probing = TrialConfig.from_flat({"probes/boundaries": [1], "operations/fresh_weights": {}})
    assert TrialConfig.from_plain(probing.plain()) == probing
    assert probing.stack_shape != config.stack_shape
