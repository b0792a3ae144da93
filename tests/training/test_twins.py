"""Every way to compute a result against a second, independent one."""

from dataclasses import replace

import hypothesis.strategies as st
import plain_rules
import pytest
import pytorch_optimizer
import tiny
import torch
from hypothesis import given, settings
from torch import Tensor
from twins import (
    EQUAL_BUT_FOR_A_NORM_IN_FLOAT32,
    EQUAL_BUT_FOR_ROUNDING,
    assert_twins,
    double_backprop,
    pictures,
    with_closure,
)

from study.contracts import Beginning, Evaluation, Experiment
from study.gradients import DenseGradient, MinibatchGradient
from study.lanes import generator
from study.training import checkpoint
from study.training.trainer import initial_state, train

SEEDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3, unique=True)
WIDTHS = st.lists(st.integers(1, 9), max_size=3)
RATES = st.floats(1e-3, 0.3)
RADII = st.floats(0.01, 0.5)
PENALTIES = st.floats(1e-3, 0.5)
BLENDS = st.floats(0.05, 4)
MOMENTA = st.sampled_from([0.0, 0.5, 0.9])
DECAYS = st.sampled_from([0.0, 0.01, 0.1])


@st.composite
def shapes(draw, smallest_batch: int = 1) -> dict:
    """Arguments of `tiny.experiment` that do not concern the optimizer."""
    classes = draw(st.integers(2, 5))
    return {
        "seeds": tuple(draw(SEEDS)),
        "widths": tuple(draw(WIDTHS)),
        "images": tiny.dataset(classes, train_per_class=draw(st.integers(4, 9)), seed=draw(st.integers(0, 99))),
        "batch_size": draw(st.integers(smallest_batch, 20)),
        "passes": draw(st.integers(1, 2)),
        "tasks": draw(st.sampled_from(["permuted_pixels", "class_pairs"])),
        "task_settings": {"count": 1 if classes == 2 else 2},
    }


# --- a lane alone and in company -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", tiny.OPTIMIZERS)
@pytest.mark.parametrize("tasks", ["permuted_pixels", "class_pairs"])
def test_a_lane_alone_equals_the_lane_in_company(optimizer, tasks):
    """Within 1e-6 in float32: torch may sum in another order for one lane than for many."""
    seeds = (5, 0, 77, 123456789)
    interventions = {"l2_init": {"strength": 0.01}, "shrink_and_perturb": {}}
    company = tiny.results(tiny.experiment(optimizer, seeds=seeds, tasks=tasks, interventions=interventions))
    for lane, seed in enumerate(seeds):
        alone = tiny.results(tiny.experiment(optimizer, seeds=(seed,), tasks=tasks, interventions=interventions))
        for ours, theirs in zip(alone, company, strict=True):
            for measure in tiny.MEASURES:
                torch.testing.assert_close(getattr(ours, measure)[0], getattr(theirs, measure)[lane], rtol=0, atol=1e-6)
            tensors = tiny.state_tensors(theirs.state)
            for name, value in tiny.state_tensors(ours.state).items():
                one, other = (
                    (value[:, 0], tensors[name][:, lane]) if name in tiny.BY_TASK else (value[0], tensors[name][lane])
                )
                torch.testing.assert_close(one, other, rtol=0, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("optimizer", tiny.OPTIMIZERS)
def test_the_order_of_the_lanes_changes_no_lane(optimizer):
    forward = tiny.results(tiny.experiment(optimizer, seeds=(3, 1, 2)))
    backward = tiny.results(tiny.experiment(optimizer, seeds=(2, 1, 3)))
    for ours, theirs in zip(forward, backward, strict=True):
        for name, value in ours.state.params.items():
            assert torch.equal(value, theirs.state.params[name].flip(0)), name


# --- the stack and a plain loop over seeds ---------------------------------------------------------------------------


@given(shapes(), RATES, MOMENTA, DECAYS)
@tiny.float64()
def test_sgd_on_the_stack_equals_a_loop_over_seeds_with_torch_sgd(shape, lr, momentum, weight_decay):
    chosen = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}

    def make_step(net):
        return with_closure(net, torch.optim.SGD(net.parameters(), **chosen), gradient_first=False)

    assert_twins(tiny.experiment("sgd", chosen, **shape), make_step)


@given(shapes(smallest_batch=4), RATES, RADII, MOMENTA, DECAYS)
@tiny.float64()
def test_sam_equals_pytorch_optimizers_sam(shape, lr, rho, momentum, weight_decay):
    chosen = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}

    def make_step(net):
        other = pytorch_optimizer.SAM(net.parameters(), torch.optim.SGD, rho=rho, **chosen)
        return with_closure(net, other, gradient_first=True)

    assert_twins(tiny.experiment("sam", {"rho": rho, **chosen}, **shape), make_step, EQUAL_BUT_FOR_A_NORM_IN_FLOAT32)


@given(shapes(smallest_batch=4), RATES, RADII, BLENDS, MOMENTA, DECAYS)
@tiny.float64()
def test_gnp_equals_pytorch_optimizers_wsam(shape, lr, r, blend, momentum, weight_decay):
    """WSAM blends with gamma / (1 - gamma) = a; coupled, so that momentum and decay act on the blend."""
    chosen = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}

    def make_step(net):
        gamma = blend / (1 + blend)
        other = pytorch_optimizer.WSAM(
            net, net.parameters(), torch.optim.SGD, rho=r, gamma=gamma, decouple=False, adaptive=False, **chosen
        )
        return with_closure(net, other, gradient_first=False)

    experiment = tiny.experiment("gnp", {"lambda": blend * r, "r": r, **chosen}, **shape)
    assert_twins(experiment, make_step, EQUAL_BUT_FOR_A_NORM_IN_FLOAT32)


@given(shapes(smallest_batch=4), RATES, RADII, BLENDS)
@tiny.float64()
def test_gnp_without_momentum_equals_decoupled_wsam(shape, lr, r, blend):
    def make_step(net):
        gamma = blend / (1 + blend)
        other = pytorch_optimizer.WSAM(net, net.parameters(), torch.optim.SGD, rho=r, gamma=gamma, decouple=True, lr=lr)
        return with_closure(net, other, gradient_first=False)

    experiment = tiny.experiment("gnp", {"lambda": blend * r, "r": r, "lr": lr}, **shape)
    assert_twins(experiment, make_step, EQUAL_BUT_FOR_A_NORM_IN_FLOAT32)


SHAPE = {"seeds": (3, 0), "widths": (6,), "batch_size": 7, "passes": 2, "task_settings": {"count": 3}}
"""Arguments of `tiny.experiment`: the last minibatch of a pass is smaller."""


@given(shapes(), RATES, st.floats(0, 0.99), st.floats(0, 0.999), DECAYS)
@settings(max_examples=8)
@tiny.float64()
def test_adamw_on_the_stack_equals_a_loop_over_seeds_with_torch_adamw(shape, lr, beta1, beta2, weight_decay):
    chosen = {"lr": lr, "weight_decay": weight_decay}

    def make_step(net):
        return with_closure(
            net, torch.optim.AdamW(net.parameters(), betas=(beta1, beta2), **chosen), gradient_first=False
        )

    # an error of 1e-17 in a gradient near 0 is one of 1e-9 in a step, which divides by its size plus 1e-8
    tolerance = {"rtol": 1e-6, "atol": 1e-7}
    assert_twins(tiny.experiment("adamw", {"beta1": beta1, "beta2": beta2, **chosen}, **shape), make_step, tolerance)


def test_adamw_in_float32_is_close_to_torch_adamw_in_its_last_digits():
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(3, 40, 5, generator=draw)
    optimizer = tiny.rule("adamw", 3, lr=0.01, weight_decay=0.1)
    params, others = {"w": start.clone()}, [lane.clone().requires_grad_() for lane in start]
    memory = optimizer.initial_memory(params)
    torchs = [torch.optim.AdamW([lane], lr=0.01, weight_decay=0.1) for lane in others]
    for _ in range(50):
        gradient = torch.randn(3, 40, 5, generator=draw)
        optimizer.adamw.step(params, memory, DenseGradient({"w": gradient}), optimizer.lr, optimizer.weight_decay)
        for lane, other in enumerate(others):
            other.grad = gradient[lane]
            torchs[lane].step()
    torch.testing.assert_close(params["w"], torch.stack(others).detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@tiny.float64()
def test_sam_on_adamw_equals_pytorch_optimizers_sam_on_torch_adamw(weight_decay):
    chosen = {"lr": 0.01, "weight_decay": weight_decay}

    def make_step(net):
        other = pytorch_optimizer.SAM(net.parameters(), torch.optim.AdamW, rho=0.1, **chosen)
        return with_closure(net, other, gradient_first=True)

    experiment = tiny.experiment("sam", {"rho": 0.1, "base": "adamw", **chosen}, **SHAPE)
    assert_twins(experiment, make_step, EQUAL_BUT_FOR_A_NORM_IN_FLOAT32)


@tiny.float64()
def test_asam_on_biases_without_eta_equals_pytorch_optimizers_adaptive_sam():
    def make_step(net):
        other = pytorch_optimizer.SAM(net.parameters(), torch.optim.SGD, rho=0.5, adaptive=True, lr=0.1)
        return with_closure(net, other, gradient_first=True)

    experiment = tiny.experiment("asam", {"rho": 0.5, "eta": 0.0, "adapt_biases": True}, **SHAPE)
    assert_twins(experiment, make_step, EQUAL_BUT_FOR_A_NORM_IN_FLOAT32)


@pytest.mark.parametrize("given", [{}, {"sigma": 0.5, "ema": 0.3}])
@tiny.float64()
def test_friendly_sam_equals_that_of_pytorch_optimizer(given):
    def make_step(net):
        sigma, kept = given.get("sigma", 1.0), given.get("ema", 0.9)
        other = pytorch_optimizer.FriendlySAM(
            net.parameters(), torch.optim.SGD, rho=0.1, sigma=sigma, lmbda=kept, lr=0.1, momentum=0.9
        )
        return with_closure(net, other, gradient_first=True)

    experiment = tiny.experiment("friendly_sam", {"rho": 0.1, "momentum": 0.9, **given}, **SHAPE)
    assert_twins(experiment, make_step, EQUAL_BUT_FOR_A_NORM_IN_FLOAT32)


OVER_STEPS = {"schedule": "linear", "schedule_over": "steps", "schedule_from": 0.0, "schedule_to": 2.0}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("asam", {"rho": 0.5}),
        ("asam", {"rho": -0.5, "eta": 0.1, "adapt_biases": True, "base": "adamw", "lr": 0.01}),
        ("friendly_sam", {"rho": 0.1, "base": "adamw", "lr": 0.01, **OVER_STEPS}),
        ("random_sam", {"rho": 0.5, "momentum": 0.9, **OVER_STEPS}),
        ("random_sam", {"rho": 0.5, "base": "adamw", "lr": 0.01, "schedule": "cosine"}),
        ("gnp", {"lambda": 0.04, "r": 0.05}),  # blend 0.8
        ("gnp", {"lambda": 0.05, "r": 0.05, **OVER_STEPS}),
        ("sam", {"rho": -0.1, "schedule": "cosine"}),
    ],
)
@tiny.float64()
def test_a_rule_equals_the_same_by_hand_one_network_at_a_time(name, given):
    """Its gradient, its base and its schedule."""
    given = {"lr": 0.1, **given}
    assert_twins(tiny.experiment(name, given, **SHAPE), lambda net: plain_rules.step(net, name, given))


def test_signs_of_noise_are_as_many_of_each_kind_and_independent_from_step_to_step():
    rule = tiny.rule("random_sam", 2, rho=1.0)
    params = {"w": torch.zeros(2, 100, 100)}
    memory = rule.before_task(rule.initial_memory(params), Beginning(task=3, tasks=5, steps=9, seeds=(0, 1)))
    points = []

    def gradient_at(moved):
        points.append(moved["w"].clone())
        return Evaluation(DenseGradient(params), torch.zeros(2, 1, 2), list)

    for _ in range(3):
        rule.step(params, memory, gradient_at)
    there, back = points[1::3], points[2::3]
    torch.testing.assert_close(there, [-point for point in back])
    noise = torch.stack(there).flatten(2).flatten(0, 1) * 100  # signs of six draws
    assert (noise.abs() - 1 < 1e-5).all()
    correlations = noise @ noise.T / 10_000
    assert (correlations - torch.eye(6)).abs().max() < 0.05
    assert noise.mean(1).abs().max() < 0.05


@given(shapes(), RATES, PENALTIES, MOMENTA, DECAYS)
@tiny.float64()
def test_gnp_with_r_0_equals_double_backprop_one_lane_at_a_time(shape, lr, penalty, momentum, weight_decay):
    chosen = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    experiment = tiny.experiment("gnp", {"lambda": penalty, "r": 0.0, **chosen}, **shape)
    assert_twins(experiment, lambda net: double_backprop(net, penalty, chosen))


@given(shapes(smallest_batch=4), RATES, RADII, st.floats(0.001, 0.5))
@tiny.float64()
def test_both_gradients_of_sam_see_the_pull_of_l2_init(shape, lr, rho, strength):
    def make_step(net):
        began = [weight.detach().clone() for weight in net.parameters()]

        def pull() -> Tensor:
            return strength * sum(
                (weight - start).square().sum() for weight, start in zip(net.parameters(), began, strict=True)
            )

        other = pytorch_optimizer.SAM(net.parameters(), torch.optim.SGD, rho=rho, lr=lr)
        return with_closure(net, other, gradient_first=True, extra_loss=pull)

    experiment = tiny.experiment(
        "sam", {"rho": rho, "lr": lr}, interventions={"l2_init": {"strength": strength}}, **shape
    )
    assert_twins(experiment, make_step, EQUAL_BUT_FOR_A_NORM_IN_FLOAT32)


# --- limits of the equation ------------------------------------------------------------------------------------------


def minibatch(lanes: int, outputs: int, seed: int, widths: list[int]) -> tuple[MinibatchGradient, dict[str, Tensor]]:
    """A gradient function and parameters to evaluate it at."""
    draw = torch.Generator().manual_seed(seed)
    model = tiny.mlp(tiny.FEATURES, outputs, widths)
    inputs = torch.rand(lanes, 6, tiny.FEATURES, generator=draw)
    labels = torch.randint(0, outputs, (lanes, 6), generator=draw)
    return MinibatchGradient(model, inputs, labels), model.initial(tuple(range(seed, seed + lanes)))


@given(st.integers(0, 10**6), st.integers(2, 5), WIDTHS, PENALTIES)
@tiny.float64()
def test_gnp_tends_to_the_exact_penalty_as_r_tends_to_0(seed, outputs, widths, penalty):
    gradient_at, params = minibatch(2, outputs, seed, widths)
    exact, _, _ = tiny.step(tiny.rule("gnp", 2, **{"lambda": penalty, "r": 0.0}), params, {}, gradient_at)
    near, _, _ = tiny.step(tiny.rule("gnp", 2, **{"lambda": penalty, "r": 1e-6}), params, {}, gradient_at)
    plain, _, _ = tiny.step(tiny.rule("sgd", 2), params, {}, gradient_at)
    gap = max(float((exact[name] - near[name]).abs().max()) for name in params)
    effect = max(float((exact[name] - plain[name]).abs().max()) for name in params)
    assert gap < 1e-3 * effect + 1e-9


@given(shapes(), RATES, RADII, MOMENTA)
def test_gnp_with_lambda_equal_to_r_is_sam_bit_by_bit(shape, lr, rho, momentum):
    common = {"lr": lr, "momentum": momentum}
    sam = tiny.results(tiny.experiment("sam", {"rho": rho, **common}, **shape))
    gnp = tiny.results(tiny.experiment("gnp", {"lambda": rho, "r": rho, **common}, **shape))
    for ours, theirs in zip(sam, gnp, strict=True):
        others = tiny.state_tensors(theirs.state)
        for name, value in tiny.state_tensors(ours.state).items():
            assert torch.equal(value, others[name]), name


def test_sharpness_changes_the_weights_by_more_than_any_tolerance_here():
    """The terms that the twins above compare are not zero."""
    plain = tiny.results(tiny.experiment("sgd", {"lr": 0.1}))[-1].state.params
    for name in ("sam", "gnp", "gnp exact", "asam within tasks", "random_sam"):
        other = tiny.results(tiny.experiment(name, {"lr": 0.1, **tiny.OPTIMIZERS[name]}))[-1].state.params
        assert max(float((plain[key] - other[key]).abs().max()) for key in plain) > 1e-4


# --- cut and continued -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", tiny.OPTIMIZERS)
@pytest.mark.parametrize("tasks", ["permuted_pixels", "class_pairs"])
def test_interrupted_after_any_task_and_resumed_equals_straight_through_bit_by_bit(optimizer, tasks, tmp_path):
    def experiment() -> Experiment:
        return tiny.experiment(
            optimizer,
            tasks=tasks,
            task_settings={"count": 4, "images_per_task": 11},
            interventions={"l2_init": {"strength": 0.01}, "shrink_and_perturb": {"shrink": 0.8, "noise": 0.02}},
            passes=2,
        )

    straight = tiny.results(experiment())
    for cut in range(4):
        loop = train(experiment())
        for _ in range(cut):
            result = next(loop)
        state = result.state if cut else initial_state(experiment())
        checkpoint.save(tmp_path / "state.pt", state, "identity")
        resumed = tiny.results(experiment(), tiny.load_checkpoint(tmp_path / "state.pt", "identity"))
        assert [result.task for result in resumed] == list(range(cut, 4))
        for ours, theirs in zip(resumed, straight[cut:], strict=True):
            for measure in tiny.MEASURES:
                assert torch.equal(getattr(ours, measure), getattr(theirs, measure)), (cut, measure)
            assert ours.state.next_task == theirs.state.next_task
            assert ours.state.gradient_evaluations == theirs.state.gradient_evaluations
            tensors, others = tiny.state_tensors(ours.state), tiny.state_tensors(theirs.state)
            assert tensors.keys() == others.keys()
            for name, value in tensors.items():
                assert torch.equal(value, others[name]), (cut, name)


def test_a_trial_with_a_diverged_lane_resumes_bit_by_bit(tmp_path):
    def experiment() -> Experiment:
        whole = tiny.experiment("sgd", {"lr": 0.1, "momentum": 0.9}, task_settings={"count": 4})
        return replace(whole, rule=replace(whole.rule, lr=torch.tensor([0.1, 1e30, 0.1])))

    straight = tiny.results(experiment())
    assert straight[0].state.diverged.tolist() == [False, True, False]
    for cut in (1, 3):
        checkpoint.save(tmp_path / "state.pt", straight[cut - 1].state, "identity")
        resumed = tiny.results(experiment(), tiny.load_checkpoint(tmp_path / "state.pt", "identity"))
        for ours, theirs in zip(resumed, straight[cut:], strict=True):
            others = tiny.state_tensors(theirs.state)
            for name, value in tiny.state_tensors(ours.state).items():
                assert torch.equal(value, others[name]), (cut, name)


# --- permuted pixels -------------------------------------------------------------------------------------------------


def batches(experiment: Experiment, index: int) -> list[tuple[Tensor, Tensor]]:
    """The minibatches of a task."""
    return tiny.minibatches(experiment, index)


def test_the_feed_permutes_pixels_the_plain_way():
    experiment = tiny.experiment(batch_size=7, passes=2)
    for index in range(experiment.tasks.count):
        task = experiment.tasks.task(index)
        assert task.pixel_order is not None
        fed = batches(experiment, index)
        for lane, seed in enumerate(experiment.seeds):
            draw = generator(seed, "order", index)
            orders = [task.train[lane][torch.randperm(task.train.shape[1], generator=draw)] for _ in range(2)]
            inputs = torch.cat([pictures(experiment.dataset.train_images, order, task, lane) for order in orders])
            labels = torch.cat([experiment.dataset.train_labels[order] for order in orders])
            assert torch.equal(torch.cat([x[lane] for x, _ in fed]), inputs)
            assert torch.equal(torch.cat([y[lane] for _, y in fed]), labels)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 10**6))
@tiny.float64()
def test_permuting_pixels_is_permuting_the_rows_of_the_first_layer(features, units, seed):
    draw = torch.Generator().manual_seed(seed)
    x, w = torch.rand(4, features, generator=draw), torch.randn(features, units, generator=draw)
    p = torch.randperm(features, generator=draw)
    torch.testing.assert_close(x[:, p] @ w, x @ w[torch.argsort(p)], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimizer", tiny.OPTIMIZERS)
@pytest.mark.parametrize("tasks", ["permuted_pixels", "class_pairs"])
@pytest.mark.parametrize("interventions", [{}, {"shrink_and_perturb": {}}, {"l2_init": {"strength": 0.01}}])
@tiny.float64()
def test_the_fast_way_equals_the_plain_way(optimizer, tasks, interventions):
    """The model's own gradient with pixels in place, and autograd with pixels moved."""
    experiment = tiny.experiment(optimizer, tasks=tasks, interventions=interventions, passes=2)
    pairs = zip(
        tiny.results(tiny.in_float64(experiment)), tiny.results(tiny.in_float64(experiment, plain=True)), strict=True
    )
    for ours, theirs in pairs:
        for measure in tiny.MEASURES:
            torch.testing.assert_close(getattr(ours, measure), getattr(theirs, measure), **EQUAL_BUT_FOR_ROUNDING)
        expected = tiny.state_tensors(theirs.state)
        for name, value in tiny.state_tensors(ours.state).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
