"""Rules in special cases: zero gradients, number of gradients, exact blends, settings by lane."""

import pytest
import tiny
import torch

from study.contracts import Evaluation
from study.errors import StudyError
from study.gradients import MinibatchGradient
from study.lanes import add, norm, stacked


class Counting:
    """A gradient function that records the parameters of its calls."""

    def __init__(self, gradient_at):
        self.gradient_at = gradient_at
        self.points = []
        self.products = 0

    def __call__(self, params) -> Evaluation:
        self.points.append({name: value.clone() for name, value in params.items()})
        return self.gradient_at(params)

    def displaced(self, params, evaluation, scale) -> Evaluation:
        return self(add(params, evaluation.gradient.tensors(), scale))

    def with_hessian_product(self, params):
        self.products += 1
        return self.gradient_at.with_hessian_product(params)


def minibatch(lanes: int = 2, widths: tuple[int, ...] = (6,), outputs: int = 3):
    """A counting gradient function on random data, and parameters."""
    draw = torch.Generator().manual_seed(1)
    model = tiny.mlp(tiny.FEATURES, outputs, list(widths))
    inputs = torch.rand(lanes, 8, tiny.FEATURES, generator=draw)
    labels = torch.randint(0, outputs, (lanes, 8), generator=draw)
    return Counting(MinibatchGradient(model, inputs, labels)), model.initial(tuple(range(lanes)))


def flat_spot():
    """Three lanes of a linear classifier; in the first and the last the gradient is 0.

    Their inputs are 0 and their labels balanced.
    """
    model = tiny.mlp(tiny.FEATURES, 2, [])
    params = {name: torch.zeros_like(value) for name, value in model.initial((0, 1, 2)).items()}
    inputs = torch.zeros(3, 4, tiny.FEATURES)
    inputs[1] = torch.rand(4, tiny.FEATURES, generator=torch.Generator().manual_seed(0))
    return Counting(MinibatchGradient(model, inputs, torch.tensor([[0, 1, 0, 1]] * 3))), params


@pytest.mark.parametrize("name", sorted(tiny.OPTIMIZERS.keys() - {"random_sam"}))  # its noise needs no gradient
def test_a_zero_gradient_makes_no_step_uphill_and_never_a_nan(name):
    gradient_at, params = flat_spot()
    optimizer = tiny.rule(name, 3, **tiny.OPTIMIZERS[name])
    moved, memory = params, optimizer.initial_memory(params)
    for _ in range(3):
        moved, memory, evaluation = tiny.step(optimizer, moved, memory, gradient_at)
    assert all(not evaluation.gradient.tensors()[key][lane].any() for key in params for lane in (0, 2))
    for tensors in (moved, memory):
        for value in tensors.values():
            assert value.isfinite().all()
            assert value.dim() == 1 or not value[[0, 2]].any()
    assert moved["0/weight"][1].any(), "the lane between them has a gradient and moves"
    for point in gradient_at.points:
        assert not any(point[key][lane].any() for key in point for lane in (0, 2)), "a gradient uphill of a flat spot"


@pytest.mark.parametrize("name", tiny.OPTIMIZERS)
def test_an_optimizer_asks_for_as_many_gradients_as_it_says(name):
    gradient_at, params = minibatch()
    optimizer = tiny.rule(name, 2, **tiny.OPTIMIZERS[name])
    tiny.step(optimizer, params, optimizer.initial_memory(params), gradient_at)
    if name == "gnp exact":
        assert (len(gradient_at.points), gradient_at.products) == (0, 1)
        assert optimizer.evaluations_per_step == 2
    else:
        assert (len(gradient_at.points), gradient_at.products) == (tiny.EVALUATIONS.get(name.split()[0], 2), 0)
        assert optimizer.evaluations_per_step == len(gradient_at.points)


@pytest.mark.parametrize("name", ["sam", "gnp"])
def test_the_second_gradient_is_asked_r_uphill_along_the_first(name):
    r = 0.3
    gradient_at, params = minibatch()
    optimizer = tiny.rule(name, 2, **({"rho": r} if name == "sam" else {"lambda": 0.1, "r": r}))
    _, _, evaluation = tiny.step(optimizer, params, {}, gradient_at)
    here, uphill = gradient_at.points
    assert all(torch.equal(here[key], params[key]) for key in params)
    way = {key: uphill[key] - params[key] for key in params}
    torch.testing.assert_close(norm(way), torch.full((2,), r), rtol=1e-5, atol=0)
    along = sum((way[key] * evaluation.gradient.tensors()[key]).flatten(1).sum(1) for key in params)
    torch.testing.assert_close(along, r * evaluation.gradient.norm(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", tiny.OPTIMIZERS)
def test_a_rule_whose_lanes_differ_in_their_settings_equals_one_rule_for_each(name):
    gradient_at, params = minibatch()
    given = {key: value for key, value in tiny.OPTIMIZERS[name].items() if value and not isinstance(value, str)}

    def rule(lanes: int, scale: float, lr: float):
        scaled = {key: value * scale for key, value in given.items()}
        return tiny.rule(name, lanes, **(tiny.OPTIMIZERS[name] | scaled | {"lr": lr}))

    slow, fast = (0.5, 0.01), (1.0, 0.2)
    mixed = stacked([rule(1, *slow), rule(1, *fast)])
    ours, theirs = [], []
    for rules, results in (((mixed,), ours), ((rule(2, *slow), rule(2, *fast)), theirs)):
        for optimizer in rules:
            moved, memory = params, optimizer.initial_memory(params)
            for _ in range(3):
                moved, memory, _ = tiny.step(optimizer, moved, memory, gradient_at)
            results.append(moved)
    for key in params:
        assert torch.equal(ours[0][key][0], theirs[0][key][0]), key
        assert torch.equal(ours[0][key][1], theirs[1][key][1]), key


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("sgd", {"lr": 0.0}),
        ("sgd", {"lr": -0.1}),
        ("sgd", {"momentum": 1.0}),
        ("sgd", {"weight_decay": -1e-9}),
        ("sgd", {"lr": float("inf")}),
        ("sam", {"rho": 0.0}),
        ("asam", {"rho": 0.0}),
        ("friendly_sam", {"rho": -0.1}),
        ("random_sam", {"rho": -0.1}),
        ("adamw", {"beta2": 1.0}),
        ("sam", {"base": "adam"}),
        ("sam", {"schedule": "exponential"}),
        ("gnp", {"lambda": 0.0}),
        ("gnp", {"r": -0.1}),
    ],
)
def test_a_setting_out_of_range_is_refused_by_its_name(name, given):
    with pytest.raises(StudyError, match=f"^{next(iter(given))}=.* is not possible: .*[.]$"):
        tiny.rule(name, 1, **given)


def test_a_reset_of_units_does_not_stop_the_noise_of_their_weights():
    frequent = {"redo": {"every": 1, "threshold": 1.0}}
    for result in tiny.results(tiny.experiment("random_sam", interventions=frequent)):
        noise = [value for name, value in result.state.memory.items() if name.startswith("noise:")]
        assert noise
        assert all((value % 2 == 1).all() for value in noise)
