"""`study bench` compares ways of training that compute the same."""

import itertools
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from itertools import islice

import pytest
import tiny
import torch
from sweep_fixtures import study
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from twins import network, weights

from search_spaces.paper_grid import SPACE
from study import parts
from study.cli.bench import advice, advice_on_packs
from study.config import Diagnostics, TrialConfig
from study.sweep.execution import LANES_PER_GPU
from study.timing import bench, diagnostics_cost, packs, plain_torch, speed, stacked_jax, stacked_torch
from study.timing.bench import GRADIENTS, METHODS, Setting, Speed
from study.timing.side_by_side import Division

SHORT = ("bench", "--seconds", 0.001, "--batch-size", 16, "--widths", "8", "--lanes", 2)
GIB = 2**30


PAPER = {"sgd": {}, "sam": {"rho": 0.05}, "gnp": {"lambda": 0.1, "r": 0.05}}
"""The paper's sharpness settings."""


@pytest.mark.parametrize("method", METHODS)
def test_the_usual_way_and_the_lanes_compute_the_same(method):
    experiment = tiny.experiment(method, {"lr": 0.1, **PAPER[method]}, task_settings={"count": 1}, passes=2)
    (result,) = tiny.results(experiment)
    for lane in range(3):
        net = network(experiment.model.initial(experiment.seeds), lane)
        minibatches = [(inputs[lane], labels[lane]) for inputs, labels in tiny.minibatches(experiment, 0)]
        hits = plain_torch.trained(net, METHODS[method], 0.1, minibatches, "cpu")
        assert int(hits) == round(float(result.online_accuracy[lane]) * 36 * 2)
        for name, value in weights(net).items():
            torch.testing.assert_close(result.state.params[name][lane], value, rtol=1e-4, atol=1e-6)


def stacked_start(method):
    """A minibatch of three lanes, the weights before a step on it and after it, and the network written the usual way."""
    experiment = tiny.experiment(method, {"lr": 0.1, **PAPER[method]}, task_settings={"count": 1}, batch_size=36)
    (result,) = tiny.results(experiment)
    ((inputs, labels),) = tiny.minibatches(experiment, 0)
    nets = [network(experiment.model.initial(experiment.seeds), lane) for lane in range(3)]
    return inputs, labels, nets, result.state.params


@pytest.mark.parametrize("method", METHODS)
def test_a_step_by_vmap_computes_the_same(method):
    inputs, labels, nets, after = stacked_start(method)
    params = {
        name: torch.stack([dict(net.named_parameters())[name] for net in nets]).detach()
        for name, _ in nets[0].named_parameters()
    }
    stepped, _ = stacked_torch.step_of(nets[0], METHODS[method], 0.1)(params, inputs, labels)
    for (_, value), expected in zip(stepped.items(), after.values(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_in_jax_computes_the_same(method):
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    inputs, labels, nets, after = stacked_start(method)
    params = stacked_jax.layers(nets)
    step = jax.vmap(stacked_jax.step_of(len(params), METHODS[method], 0.1))
    stepped, _ = step([(w.numpy(), b.numpy()) for w, b in params], inputs.numpy(), labels.numpy())
    for value, expected in zip(jax.tree.leaves(stepped), after.values(), strict=True):
        torch.testing.assert_close(torch.tensor(value.tolist()), expected, rtol=1e-4, atol=1e-6)


def test_the_cost_of_every_intervention_is_measured_against_a_plain_step(tmp_path):
    printed = json.loads(study("bench", "--interventions", "--seconds", "0.001", "--json", cwd=tmp_path).stdout)
    costs = {(cost["intervention"], cost["method"]): cost for cost in printed["interventions"]}
    assert set(costs) == set(itertools.product([None, *parts.names("interventions")], ["sgd", "sam"]))
    for (_, method), cost in costs.items():
        assert cost["ratio"] == pytest.approx(cost["seconds"] / costs[None, method]["seconds"], rel=1e-9)
    assert costs["l2_init", "sgd"]["in_steps"]
    assert not costs["shrink_and_perturb", "sgd"]["in_steps"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", METHODS)
def test_the_defaults_of_each_method_are_the_papers_values(method):
    """Lanes are timed with them."""
    config = parts.complete(TrialConfig.from_plain({"optimizer": {"name": method}}))
    assert PAPER[method].items() <= config.optimizer.settings.items()


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 2, 4)])
def test_both_usual_feeds_show_all_pictures_once_a_pass_permuted_and_scaled(shape):
    images = tiny.dataset(train_per_class=8, shape=shape)
    order = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(1))
    feeds = (
        plain_torch.loader(images, 5, order),
        plain_torch.in_memory(images, 5, order, torch.Generator().manual_seed(2)),
    )
    expected = sorted((images.train_images[:, order] / 255).tolist())
    for feed in feeds:
        for _ in range(2):
            pictures, labels = (torch.cat(list(part)) for part in zip(*islice(feed, 7), strict=True))
            assert len(pictures) == len(images.train_images)
            torch.testing.assert_close(torch.tensor(sorted(pictures.tolist())), torch.tensor(expected))
            assert labels.bincount().tolist() == [8] * 4


@pytest.mark.parametrize(
    ("model", "shape", "widths"),
    [
        ("mlp", (1, 28, 28), (100, 100)),
        ("mlp", (1, 3, 3), ()),
        ("mlp", (3, 2, 4), (7,)),
        ("cnn", (1, 28, 28), (100, 100)),
        ("cnn", (3, 32, 35), (7,)),
    ],
)
def test_the_operations_of_an_image_are_those_that_torch_counts(model, shape, widths):
    images = tiny.dataset(train_per_class=1, test_per_class=1, shape=shape)
    net = bench._network(model, images, widths)
    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(net(torch.rand(1, math.prod(shape))), torch.tensor([0])).backward()
    operations = bench.layer_operations(model, images, widths)
    assert bench.per_image(operations, 1) == counter.get_total_flops()
    assert bench.per_image(operations, 2) == 2 * counter.get_total_flops()


def test_the_network_written_the_usual_way_is_the_default_cnn():
    images = tiny.dataset(train_per_class=1, test_per_class=1, shape=(3, 32, 32))
    module, settings = tiny.part("models", "cnn")
    model = module.build(settings, images.shape, images.class_count)
    params = model.initial((0,))
    usual, own = bench._network("cnn", images, settings.widths), network(params, 0, model)
    assert [str(layer) for layer in usual] == [str(layer) for layer in own]


def test_convolutions_are_timed_against_the_usual_way_and_vmap():
    images = tiny.dataset(train_per_class=10, test_per_class=1, shape=(1, 16, 16))
    (speeds,) = bench.measured(images, [Setting((8,), 5)], [2], "cpu", 0.001, 1e9, "cnn")
    ways = {("DataLoader", 1), ("in memory", 1), ("vmap", 2), ("lanes", 2)}
    assert {(speed.way, speed.lanes) for speed in speeds} == ways
    assert {speed.method for speed in speeds} == set(METHODS)
    assert all(speed.images_per_second > 0 for speed in speeds)


def test_the_rate_of_products_is_operations_by_time(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(bench.time, "perf_counter", lambda: float(next(clock)))
    assert bench.product_rate("cpu", 0.5) == 2 * 1024**3


def test_the_json_has_every_way_and_its_ratios_follow_from_its_rates(tmp_path):
    done = study(*SHORT, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    rates = {(row["way"], row["lanes"], row["method"]): row for row in printed["speeds"]}
    ways = [("DataLoader", 1), ("in memory", 1), ("vmap", 2), ("lanes", 2)]
    ways += [("jax", 2)] if stacked_jax.is_installed() else []
    assert set(rates) == {(*way, method) for way in ways for method in METHODS}
    for (_, _, method), row in rates.items():
        assert row["setting"] == {"widths": [8], "batch_size": 16}
        assert row["images_per_second"] > 0
        assert row["ratio"] == row["images_per_second"] / rates["DataLoader", 1, method]["images_per_second"]
        work = bench.per_image([2 * 784 * 8, 2 * 8 * 10], GRADIENTS[method])
        share = row["images_per_second"] * work / printed["machine"]["product_rate"]
        assert row["share"] == pytest.approx(share, rel=1e-9)
    assert printed["diagnostics"] == [], "the paper's network was not timed"
    for division in printed["side_by_side"]:
        assert division["total"] == sum(division["images_per_second"])
        assert len(division["images_per_second"]) == division["trials"]
    assert printed["peak_bytes"] > 10**8
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


def test_the_tables_name_every_way_and_say_what_to_set(tmp_path):
    done = study(*SHORT, "--lanes", 3, "--widths", "100,100", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for words in ("784-8-10, batch 16", "one seed, DataLoader", "one seed, tensors in memory", "2 lanes", "3 lanes"):
        assert words in done.stdout
    assert "3 seeds, vmap" in done.stdout
    assert "3 seeds, JAX" in done.stdout if stacked_jax.is_installed() else "JAX is not installed" in done.stdout
    assert "GFLOP/s" in done.stdout
    assert "Diagnostics of 3 lanes" in done.stdout
    for row in (*diagnostics_cost.PAPER, "both sequences"):
        images = " +1,000" if row == "permuted_pixels" else ""
        shares = re.search(rf"^{row}{images} .*?((?: +[\d.]+%){{3}})$", done.stdout, re.MULTILINE)
        assert shares, row
        assert all(float(share.rstrip("%")) > 0 for share in shares[1].split())
    assert "--cpus-per-trial" in done.stdout
    assert "MiB" in done.stdout


def test_a_sequence_computes_the_diagnostics_that_its_settings_ask_for(monkeypatch):
    seconds = {"units_every": 1.0, "curvature_every": 100.0, "forgetting_every": 10_000.0, "onset_every": 1e6}
    asked = diagnostics_cost.PAPER["class_pairs"]
    asked = replace(asked, diagnostics=asked.diagnostics.model_copy(update={"onset_every": 20}))
    monkeypatch.setitem(diagnostics_cost.PAPER, "class_pairs", asked)
    monkeypatch.setattr(diagnostics_cost, "_measured", lambda *_: (seconds, 1000))
    overhead = diagnostics_cost.overhead(None, "class_pairs", 10, "cpu", {"sgd": 60_000.0, "sam": 30_000.0})
    forgetting = sum(task + 1 for task in (0, 10, 20, 30, 40, 44))
    assert overhead.seconds == 45 * 1 + 10 * 100 + forgetting * 10_000 + 4 * 1e6
    kinds = overhead.units_seconds, overhead.curvature_seconds, overhead.earlier_seconds, overhead.onset_seconds
    assert kinds == tuple(seconds.values())
    assert overhead.training == {"sgd": 45 * 12_000 * 10 / 60_000, "sam": 45 * 12_000 * 10 / 30_000}


@pytest.mark.parametrize(
    ("kind", "index", "seconds"),
    [
        ("units_every", 1, 1.0),
        ("curvature_every", 1, 1.0),
        ("onset_every", 1, 1.0),
        ("forgetting_every", 1, 0.5),
        ("forgetting_every", 0, 1.0),
    ],
)
def test_one_kind_of_diagnostics_is_timed_at_a_time_and_forgetting_by_the_task(monkeypatch, kind, index, seconds):
    """After task i, i + 1 tasks are evaluated.

    The first one is evaluated twice.
    """
    clock, computed = iter(range(1000)), []

    class NetworkDiagnostics:
        def __init__(self, experiment, _):
            self.asked = experiment.diagnostics

        def before(self, task, *_):
            computed.append(task)

        def after(self, task, *_):
            computed.append((task, [name for name in speed.DIAGNOSTICS if getattr(self.asked, name)]))

    lanes = speed.Lanes(tiny.experiment())
    lanes.enter(index)
    monkeypatch.setattr(speed, "NetworkDiagnostics", NetworkDiagnostics)
    monkeypatch.setattr(speed.time, "perf_counter", lambda: float(next(clock)))
    assert lanes.diagnostics_seconds(kind, repeats=2) == seconds
    assert computed == [index, (index, [kind])] * 2


def test_what_the_overhead_is_measured_against_is_the_papers_grid():
    for name, sequence in diagnostics_cost.PAPER.items():
        settings = SPACE.scenarios[name]
        assert sequence.tasks == settings["tasks/count"]
        told = {
            key.removeprefix("diagnostics/"): value for key, value in settings.items() if key.startswith("diagnostics/")
        }
        assert sequence.diagnostics == Diagnostics(**told)


@pytest.mark.parametrize(
    "words",
    [
        ("--widths", "100,x"),
        ("--widths", "0"),
        ("--data", "mnits"),
        ("--device", "tpu"),
        ("--batch-size", "0"),
        ("--model", "rnn"),
        ("--interventions", "--packs"),
        ("--interventions", "--model", "cnn"),
        ("--compile", "--model", "cnn"),
    ],
)
def test_what_cannot_be_timed_is_refused(words, refused):
    assert words[0].lstrip("-") in refused("bench", *words)


def speeds(rates: dict[int, float]) -> list[Speed]:
    return [Speed(Setting((100, 100), 16), "lanes", lanes, "sgd", rate, 1.0, 0.1) for lanes, rate in rates.items()]


def test_the_advice_takes_the_fewest_seeds_and_threads_that_are_nearly_the_best():
    divisions = [Division(1, 1, (100.0,)), Division(1, 2, (180.0,)), Division(2, 1, (95.0, 93.0))]
    seeds, trials = advice(speeds({1: 50.0, 10: 95.0, 60: 100.0}), divisions, "cpu")
    assert "10 or more, 95%" in seeds
    assert "2, 1 thread each (--cpus-per-trial 1)" in trials
    _, shared = advice(speeds({1: 99.0, 10: 95.0}), [Division(1, 1, (100.0,)), Division(2, 1, (80.0, 80.0))], "cuda")
    assert "2 (--gpus-per-trial 0.5)" in shared


H200 = {
    ("sgd", 10): 105,
    ("sgd", 20): 105,
    ("sgd", 60): 138,
    ("sgd", 120): 209,
    ("sam", 10): 255,
    ("sam", 20): 252,
    ("sam", 60): 303,
    ("sam", 120): 383,
    ("gnp", 10): 275,
    ("gnp", 20): 272,
    ("gnp", 60): 332,
    ("gnp", 120): 413,
}
"""Microseconds of a step by method and lanes, see `study/docs/gpus.md`."""


def h200_costs():
    """The costs of packs of ten-lane trials on an H200."""
    return packs.costs({(name, lanes // 10): seconds / 1e6 for (name, lanes), seconds in H200.items()})


def test_the_default_of_packs_is_what_the_bench_advises_where_it_was_measured():
    assert 10 * packs.worthwhile(h200_costs()) == LANES_PER_GPU
    assert packs.worthwhile(packs.costs({("sgd", 1): 1.0, ("sgd", 5): 2.0})) == 1
    assert packs.worthwhile(packs.costs({("sgd", 1): 1.0, ("sgd", 5): 1.3, ("sgd", 10): 1.2})) == 10


def test_a_pack_that_costs_one_method_too_much_is_too_large():
    costs = packs.costs({("sgd", 1): 1.0, ("sgd", 5): 1.0, ("sam", 1): 1.0, ("sam", 5): 2.0})
    assert packs.worthwhile(costs) == 1


def test_the_gain_of_a_pack_is_over_its_trials_one_by_one():
    one, six = packs.costs({("sgd", 1): 2.0, ("sgd", 6): 3.0})
    assert (one.ratio, one.gain, six.ratio, six.gain) == (1.0, 1.0, 1.5, 4.0)


def test_packs_are_measured_and_their_size_is_advised(tmp_path):
    done = study("bench", "--packs", "--seconds", "0.001", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for trials in packs.TRIALS:
        (row,) = re.findall(rf"^{trials} \({3 * trials} lanes\) +(.*)$", done.stdout, re.MULTILINE)
        assert len(re.findall(r"[\d,]+ us +x\d+\.\d\d +\d+\.\d times as fast", row)) == 3
    assert re.search(r"packs of \d+ trials of 3 seeds train at least \d+\.\d times as fast", done.stdout)
    printed = json.loads(study("bench", "--packs", "--seconds", "0.001", "--json", cwd=tmp_path).stdout)
    assert [(cost["method"], cost["lanes"]) for cost in printed["packs"]] == [
        (name, 3 * trials) for name in ("sgd", "sam", "gnp") for trials in packs.TRIALS
    ]
    assert all(cost["seconds"] > 0 for cost in printed["packs"])
    assert printed["advice"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_advice_on_packs_names_the_option_and_the_default(device):
    said = advice_on_packs(h200_costs(), device)
    assert "--pack 6" in said if device == "cuda" else "--pack 12" in said
    assert f"{LANES_PER_GPU} lanes" in said if device == "cuda" else "--pack auto takes 1" in said


@pytest.mark.slow
def test_60_lanes_on_all_of_mnist_stay_below_2_gib(data_dir):
    """The whole process with torch and SAM, which takes most."""
    train = (
        "import resource, sys; from pathlib import Path; from study import experiment; from study.timing import speed;"
        "from study.config import TrialConfig; config = TrialConfig.from_plain({'data': {'name': 'mnist'}});"
        "dataset = experiment.load_dataset(config, Path(sys.argv[1]));"
        "speed.lanes_of(dataset, 'sam', 60, (100, 100), 16, 'cpu').seconds(100);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    )
    done = subprocess.run([sys.executable, "-c", train, str(data_dir)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * GIB
