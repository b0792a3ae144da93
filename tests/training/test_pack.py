"""Trials trained together against the same trials alone."""

from dataclasses import dataclass, fields, replace

import pytest
import tiny
import torch
from torch import Tensor

from study import parts
from study.config import TrialConfig
from study.errors import StudyError
from study.experiment import build, build_stack, stacks
from study.lanes import stackable, stacked
from study.training import pack as packs
from study.training.pack import Pack, of_lanes, stack_of
from study.training.trainer import TaskResult, train

DATASET = tiny.dataset()
ROUNDED = {"rtol": 0, "atol": 2e-6}
"""In float32 torch may sum in another order for few lanes than for many."""

RULES = {
    "sgd": [{"lr": 0.1}, {"lr": 0.01}, {"lr": 0.3}],
    "sgd with momentum": [{"lr": 0.05, "momentum": 0.9}, {"lr": 0.1, "momentum": 0.5}],
    "sgd with weight decay": [{"weight_decay": 0.01}, {"weight_decay": 0.1}],
    "sam": [{"lr": 0.1, "rho": 0.1}, {"lr": 0.05, "rho": 0.5}, {"lr": 0.1, "rho": 0.01}],
    "gnp": [{"lambda": 0.1, "r": 0.05}, {"lambda": 0.3, "r": 0.1}],
    "gnp exact": [{"lambda": 0.1, "r": 0}, {"lambda": 0.5, "r": 0}],
    "sam on adamw": [{"base": "adamw", "lr": 0.01, "beta1": beta1} for beta1 in (0.5, 0.9)],
    "asam within tasks": [
        {"eta": eta, "schedule": "linear", "schedule_over": "steps", "schedule_length": length}
        for eta, length in ((0.01, 0), (0.1, 3))
    ],
    "friendly_sam": [{"sigma": 1.0}, {"sigma": 0.5, "ema": 0.6}],
    "random_sam over tasks": [
        {"rho": rho, "schedule": "list", "schedule_factors": factors}
        for rho, factors in ((0.1, [0, 1, 2]), (0.5, [1, 0, -1]))
    ],
}
"""Settings of the trials of a pack; the first word of a key is the optimizer."""

PULLS = ((0.1, 2), (0.01, 1), (0.3, 3))

INTERVENTIONS = {
    "none": [{}, {}, {}],
    "l2_init": [{"l2_init": {"strength": strength}} for strength in (0.01, 0.1, 1.0)],
    "shrink_and_perturb": [{"shrink_and_perturb": {"shrink": shrink}} for shrink in (0.9, 0.5, 1.0)],
    "full_reset": [{"full_reset": {}}] * 3,
    "l2": [{"l2": {"strength": strength}} for strength in (0.01, 0.1, 1.0)],
    "redo": [{"redo": {"threshold": 0.5, "every": every}} for every in (2, 3, 5)],
    "continual_backprop": [{"continual_backprop": {"rate": rate, "maturity": 2}} for rate in (0.1, 0.3, 0.05)],
    "snr": [{"snr": {"first": first, "shortest": 1, "longest": 9}} for first in (2, 3, 4)],
    "weight_clipping": [{"weight_clipping": {"kappa": kappa}} for kappa in (0.9, 0.5, 2.0)],
    "weight_projection": [{"weight_projection": {"every": every}} for every in (1, 2, 3)],
    "spectral_regularization": [{"spectral_regularization": {"strength": s, "exponent": k}} for s, k in PULLS],
    "shrink_and_perturb_per_step": [{"shrink_and_perturb_per_step": {"noise": noise}} for noise in (0.01, 0.1, 1e-3)],
    "fire": [{"fire": {}}] * 3,
    "both": [{"l2_init": {"strength": s}, "shrink_and_perturb": {"noise": s}} for s in (0.01, 0.1, 1.0)],
}


DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU here")),
]


def config(optimizer="sgd", given=None, interventions=None, seeds=(0, 1), device="cpu", **sections) -> TrialConfig:
    """A complete configuration for the tiny data set."""
    plain = {
        "tasks": {"name": "permuted_pixels", "count": 3, "validation_fraction": 0.25},
        "model": {"name": "mlp", "widths": [7, 5]},
        "optimizer": {"name": optimizer.split()[0], "lr": 0.1, **(given or {})},
        "interventions": interventions or {},
        "training": {"batch_size": 5, "passes": 2, "device": device},
        "diagnostics": {"images": 20, "curvature_every": 2, "forgetting_every": 1, "onset_every": 2},
        "seeds": list(seeds),
        **sections,
    }
    return parts.complete(TrialConfig.from_plain(plain))


def results_of(configs: dict[str, TrialConfig], starts=None) -> dict[str, list[TaskResult]]:
    """All results of each trial of a pack; none may fail."""
    results: dict[str, list[TaskResult]] = {key: [] for key in configs}
    for outcomes in Pack(configs, DATASET, starts).train():
        for key, outcome in outcomes.items():
            assert isinstance(outcome, TaskResult), outcome
            results[key].append(outcome)
    return results


def tensors_of(value, name="") -> dict[str, Tensor]:
    """All tensors in a result or a state, by place."""
    if isinstance(value, Tensor):
        return {name: value}
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, tuple):
        items = enumerate(value)
    elif hasattr(value, "__dataclass_fields__"):
        items = ((field.name, getattr(value, field.name)) for field in fields(value))
    else:
        return {}
    return {place: tensor for key, inner in items for place, tensor in tensors_of(inner, f"{name}/{key}").items()}


def assert_equal(ours: list[TaskResult], theirs: list[TaskResult], **tolerance) -> None:
    """Every measure, diagnostic and weight of every task."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.task, one.name) == (other.task, other.name)
        assert one.state.next_task == other.state.next_task
        assert one.state.gradient_evaluations == other.state.gradient_evaluations
        mine, others = tensors_of(one), tensors_of(other)
        assert mine.keys() == others.keys()
        for place, value in mine.items():
            loose = (
                {"rtol": 2e-3, "atol": 1e-4} if place.startswith("/diagnostics/") else tolerance
            )  # iterations to 0.1 %
            torch.testing.assert_close(
                value,
                others[place],
                equal_nan=True,
                **loose,
                msg=lambda m, where=f"task {one.task} {place}": f"{where}: {m}",
            )


WITH_EVERY_RULE = ("none", "l2_init", "shrink_and_perturb", "both")
PAIRS = [
    (rule, acting) for rule in RULES for acting in INTERVENTIONS if acting in WITH_EVERY_RULE or "momentum" in rule
]


def test_every_intervention_is_tried_in_a_pack():
    assert set(parts.names("interventions")) <= INTERVENTIONS.keys()


@pytest.mark.parametrize(("rule", "acting"), PAIRS)
@pytest.mark.parametrize("device", DEVICES)
def test_each_trial_of_a_pack_equals_the_same_trial_alone(rule, acting, device):
    configs = {
        f"t{place}": config(rule, given, interventions, (5, 0, 77)[: place + 1], device)
        for place, (given, interventions) in enumerate(zip(RULES[rule], INTERVENTIONS[acting], strict=False))
    }
    assert stacks(configs) == [list(configs)]  # one stack, or the test would show nothing
    together = results_of(configs)
    for key, each in configs.items():
        alone = list(train(build(each, DATASET)))
        assert "/diagnostics/hessian/largest_eigenvalue" in tensors_of(alone[-1])
        assert_equal(together[key], alone, **(ROUNDED if device == "cpu" else {"rtol": 0, "atol": 1e-4}))


@pytest.mark.parametrize("tasks", ["permuted_pixels", "class_pairs"])
@pytest.mark.parametrize("held_out", [0.0, 0.25])
def test_each_trial_of_a_pack_equals_the_same_trial_alone_on_all_tasks(tasks, held_out):
    sections = {"tasks": {"name": tasks, "count": 3, "validation_fraction": held_out}}
    configs = {f"t{place}": config("sam", given, **sections) for place, given in enumerate(RULES["sam"])}
    together = results_of(configs)
    for key, each in configs.items():
        assert_equal(together[key], list(train(build(each, DATASET))), **ROUNDED)


def test_a_pack_of_one_is_the_trial_to_the_last_bit():
    each = config("sam", {"rho": 0.1}, {"l2_init": {}})
    assert_equal(results_of({"t": each})["t"], list(train(build(each, DATASET))), rtol=0, atol=0)


def test_a_trial_that_diverges_harms_no_other_and_the_seconds_add_up():
    configs = {"calm": config("sgd", {"lr": 0.1}), "wild": config("sgd", {"lr": 1e9}, seeds=(0, 1, 2))}
    together = results_of(configs)
    assert together["wild"][-1].state.diverged.any()
    assert not together["calm"][-1].state.diverged.any()
    for key, each in configs.items():
        assert_equal(together[key], list(train(build(each, DATASET))), **ROUNDED)
    calm, wild = together["calm"][0], together["wild"][0]
    assert wild.training_seconds == pytest.approx(calm.training_seconds * 3 / 2)


def test_a_state_of_a_trial_has_only_its_own_memory():
    """A checkpoint would otherwise have the weights of the whole pack."""
    configs = {f"t{place}": config("sgd", given) for place, given in enumerate(RULES["sgd with momentum"])}
    for results in results_of(configs).values():
        for value in tensors_of(results[0].state).values():
            assert value.untyped_storage().nbytes() == value.numel() * value.element_size()


def test_trials_go_on_from_wherever_they_are():
    configs = {f"t{place}": config("sam", given) for place, given in enumerate(RULES["sam"])}
    alone = {key: list(train(build(each, DATASET))) for key, each in configs.items()}
    starts = {"t0": alone["t0"][1].state, "t1": alone["t1"][0].state}
    order = [sorted(outcomes) for outcomes in Pack(configs, DATASET, starts).train()]
    assert order == [["t2"], ["t1", "t2"], ["t0", "t1", "t2"]]
    for key, results in results_of(configs, starts).items():
        assert_equal(results, alone[key][3 - len(results) :], **ROUNDED)


def test_trials_that_compute_in_other_ways_are_not_stacked():
    plain, momentous = config("sgd"), config("sgd", {"momentum": 0.9})
    exact, blended = config("gnp", {"r": 0}), config("gnp", {"r": 0.05})
    wider = config("sgd", model={"name": "mlp", "widths": [8]})
    acted = config("sgd", interventions={"l2_init": {}})
    configs = dict(zip("abcdef", (plain, momentous, exact, blended, wider, acted), strict=True))
    assert stacks(configs) == [[key] for key in "abcdef"]
    assert stacks({**configs, "g": config("sgd", {"lr": 3.0}, seeds=(9,))})[0] == ["a", "g"]
    together = results_of(configs)
    for key, each in configs.items():
        assert_equal(together[key], list(train(build(each, DATASET))), rtol=0, atol=0)


def test_an_error_of_cuda_ends_the_process(monkeypatch):
    def broken(configs, dataset):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(packs, "build_stack", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        list(Pack({"a": config(), "b": config()}, DATASET).train())


def test_a_pack_that_the_memory_cannot_hold_is_trained_in_parts(monkeypatch):
    """On a CPU the memory is checked before anything is allocated."""

    def checked(configs, dataset):
        if len(configs) > 1:
            raise StudyError("A trial of this size needs at least 9 GiB of memory.")
        return build_stack(configs, dataset)

    monkeypatch.setattr(packs, "build_stack", checked)
    configs = {"a": config("sgd"), "b": config("sgd", {"lr": 0.2})}
    together = results_of(configs)
    for key, each in configs.items():
        assert_equal(together[key], list(train(build(each, DATASET))), rtol=0, atol=0)


@dataclass(frozen=True)
class Part:
    """A part with a setting of each lane, one of all, and seeds."""

    strength: Tensor
    mode: str
    seeds: tuple[int, ...]


def test_parts_are_stacked_lane_after_lane():
    one, other = Part(torch.tensor([1.0]), "x", (4,)), Part(torch.tensor([2.0, 3.0]), "x", (4, 5))
    assert stackable([one, other])
    joint = stacked([one, other])
    assert joint.strength.tolist() == [1, 2, 3]
    assert (joint.mode, joint.seeds) == ("x", (4, 4, 5))


@pytest.mark.parametrize(
    "other",
    [Part(torch.tensor([2.0]), "y", (1,)), Part(2.0, "x", (1,)), object(), Part],
    ids=["another mode", "no tensor", "another type", "a class"],
)
def test_parts_that_differ_in_more_than_their_lanes_are_not_stacked(other):
    assert not stackable([Part(torch.tensor([1.0]), "x", (0,)), other])
    assert not stackable([other, Part(torch.tensor([1.0]), "x", (0,))])


def test_stacking_states_and_taking_them_apart_are_inverse():
    results = [
        list(train(build(config("sgd with momentum", given), DATASET)))[1] for given in RULES["sgd with momentum"]
    ]
    joint = replace(results[0], state=stack_of([result.state for result in results]))
    joint = replace(
        joint,
        **{
            name: torch.cat([getattr(result, name) for result in results])
            for name in ("test_accuracy", "validation_accuracy", "online_accuracy", "online_loss")
        },
        diagnostics={
            name: torch.cat([result.diagnostics[name] for result in results]) for name in results[0].diagnostics
        },
    )
    for place, result in enumerate(results):
        assert_equal([of_lanes(joint, slice(2 * place, 2 * place + 2))], [result], rtol=0, atol=0)


def test_trials_with_convolutions_train_together_as_alone():
    cnn = {"name": "cnn", "channels": [4], "kernels": [2], "pools": [2], "widths": [5]}
    configs = {str(i): config("sam", given, model=cnn) for i, given in enumerate(RULES["sam"])}
    assert stacks(configs) == [["0", "1", "2"]]
    together = results_of(configs)
    for key, one in configs.items():
        assert_equal(together[key], list(train(build(one, DATASET))), **ROUNDED)
