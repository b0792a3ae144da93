"""The convolutional network against torch.nn's convolutions, one seed after the other."""

import pytest
import tiny
import torch
from torch.nn.functional import cross_entropy
from twins import assert_twins, network, plain_step

from study import parts
from study.config import Diagnostics
from study.contracts import Selective
from study.errors import StudyError
from study.gradients import MinibatchGradient
from study.models import cnn
from study.training import checkpoint
from study.training.trainer import train

SHAPE = (3, 32, 32)


UNMEASURED = Diagnostics(units_every=0, curvature_every=0, forgetting_every=0)


def built(shape=SHAPE, outputs=10, **given):
    module, settings = tiny.part("models", "cnn", given)
    return module.build(settings, shape, outputs)


@pytest.mark.parametrize("optimizer", tiny.OPTIMIZERS)
@pytest.mark.parametrize("tasks", ["permuted_pixels", "class_pairs"])
@tiny.float64()
def test_convolutions_on_the_stack_equal_a_loop_over_seeds_with_other_optimizers(optimizer, tasks):
    make_step, tolerance = plain_step(optimizer, 0.1)
    assert_twins(tiny.experiment(optimizer, tasks=tasks, task_settings={"count": 2}, **tiny.CNN), make_step, tolerance)


@pytest.mark.parametrize("optimizer", ["sgd", "sam", "gnp", "gnp exact"])
def test_a_lane_with_convolutions_alone_equals_the_lane_in_company(optimizer):
    """Also under an intervention that acts within steps, by autograd."""
    for interventions in ({}, {"l2_init": {"strength": 0.01}}):
        common = {"interventions": interventions, "diagnostics": UNMEASURED, **tiny.CNN}
        company = tiny.results(tiny.experiment(optimizer, seeds=(5, 0, 77), **common))
        for lane, seed in enumerate((5, 0, 77)):
            alone = tiny.results(tiny.experiment(optimizer, seeds=(seed,), **common))
            for ours, theirs in zip(alone, company, strict=True):
                for measure in tiny.MEASURES:
                    torch.testing.assert_close(
                        getattr(ours, measure)[0], getattr(theirs, measure)[lane], rtol=0, atol=1e-6
                    )
                for name, value in ours.state.params.items():
                    torch.testing.assert_close(value[0], theirs.state.params[name][lane], rtol=0, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd with momentum and weight decay", "sam", "gnp exact"])
def test_a_network_with_convolutions_resumes_bit_by_bit(optimizer, tmp_path):
    def experiment():
        return tiny.experiment(optimizer, interventions={"shrink_and_perturb": {}}, **tiny.CNN)

    straight = tiny.results(experiment())
    for cut in (1, 2):
        checkpoint.save(tmp_path / "state.pt", straight[cut - 1].state, "identity")
        resumed = list(train(experiment(), tiny.load_checkpoint(tmp_path / "state.pt", "identity")))
        for ours, theirs in zip(resumed, straight[cut:], strict=True):
            for name, value in ours.diagnostics.items():
                assert torch.equal(value.nan_to_num(-1), theirs.diagnostics[name].nan_to_num(-1)), (cut, name)
            others = tiny.state_tensors(theirs.state)
            for name, value in tiny.state_tensors(ours.state).items():
                assert torch.equal(value, others[name]), (cut, name)


@tiny.float64()
def test_all_lanes_at_once_as_on_a_gpu_give_the_maps_gradients_and_hessian_products_of_lane_by_lane(monkeypatch):
    model = built((2, 11, 9), 4, channels=[3, 4], kernels=[3, 2], pools=[2, 1], widths=[6])
    params = model.initial((3, 1))
    inputs = torch.rand(2, 5, 198, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0, 1, 2, 3, 0], [3, 3, 1, 0, 2]])
    found = []
    for at_once in (False, True):
        monkeypatch.setattr(cnn, "at_once", lambda _, chosen=at_once: chosen)
        logits, hidden = model.forward(params, inputs)
        gradient_at = model.gradient_function(inputs, labels)
        assert (type(gradient_at) is MinibatchGradient) is at_once
        evaluation, product = gradient_at.with_hessian_product(params)
        tensors = gradient_at(params).gradient.tensors()
        found.append([logits, *hidden, evaluation.logits, *tensors.values(), *product.tensors().values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_activation_of_a_feature_map_is_the_mean_of_what_the_next_layer_reads():
    model = built()
    params, inputs = model.initial((0, 1)), torch.rand(2, 4, 3 * 32 * 32, generator=torch.Generator().manual_seed(0))
    _, hidden = model.forward(params, inputs)
    assert [tuple(layer.shape) for layer in hidden] == [(2, 4, 16), (2, 4, 16), (2, 4, 100), (2, 4, 100)]
    for lane in range(2):
        net = network(params, lane, model)
        with torch.no_grad():
            first = net[:4](inputs[lane])  # unflatten, convolution, ReLU, pooling
            second = net[4:7](first)
        torch.testing.assert_close(hidden[0][lane], first.mean((2, 3)))
        torch.testing.assert_close(hidden[1][lane], second.mean((2, 3)))


def test_the_default_network_is_that_of_l2_init():
    model = built()
    assert model.sizes == (400, 100, 100, 10)
    assert [(stage.channels, stage.kernel, stage.pool) for stage in model.stages] == [(16, 5, 2), (16, 5, 2)]
    assert model.parameter_count == 16 * 76 + 16 * 401 + 100 * 401 + 100 * 101 + 10 * 101
    assert not isinstance(model, Selective), "pixels are moved"


def test_it_starts_as_torchs_layers_do():
    """Uniform within 1/sqrt(fan_in) of zero, weights and biases."""
    params = built(channels=[64, 32], widths=[300]).initial((0, 1))
    for i, fan_in in enumerate((75, 64 * 25, 32 * 25, 300)):
        bound = fan_in**-0.5
        for key in (f"{i}/weight", f"{i}/bias"):
            assert float(params[key].abs().max()) <= bound
        weight = params[f"{i}/weight"]
        assert float(weight.abs().max()) > 0.99 * bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.03)


@pytest.mark.parametrize(
    ("shape", "given", "words"),
    [
        ((1, 28, 28), {"kernels": [29, 5]}, "model/kernels/0=29"),
        ((1, 40, 28), {"kernels": [29, 5]}, "model/kernels/0=29"),
        ((1, 8, 8), {}, "model/kernels/1=5"),
        ((1, 12, 12), {"kernels": [5, 5], "pools": [1, 5]}, "model/pools/1=5"),
    ],
)
def test_a_kernel_or_a_square_larger_than_its_picture_is_refused(shape, given, words):
    with pytest.raises(StudyError) as refusal:
        built(shape, **given)
    message = str(refusal.value)
    assert message.startswith(words)
    assert "choose at most" in message
    assert len(message) <= 300


@pytest.mark.parametrize("given", [{"kernels": [5]}, {"pools": [2, 2, 2]}, {"channels": [8]}])
def test_layers_without_a_kernel_or_pool_are_refused(given):
    with pytest.raises(StudyError, match=r"^model: (kernels|pools) must have as many numbers as channels"):
        parts.settings("models", "cnn", given, "model/")


def test_it_learns_and_its_diagnostics_are_finite():
    wide = tiny.CNN | {"model_settings": {"channels": [16], "kernels": [3], "pools": [2], "widths": [16]}}
    experiment = tiny.experiment("sam", {"lr": 0.1}, tasks="class_pairs", passes=20, task_settings={"count": 1}, **wide)
    (result,) = tiny.results(experiment)
    assert (result.test_accuracy > 0.8).all()
    assert all(value.isfinite().all() for value in result.diagnostics.values())
    assert {"units/dead/layer_0", "units/dormant/layer_1", "weights/norm/layer_1"} <= set(result.diagnostics)


def test_cross_entropy_of_the_stack_is_that_of_torch():
    """The gradient's logits are those of the forward pass."""
    model = built((1, 12, 12), 3, kernels=[3, 3], channels=[2, 2])
    params, inputs = model.initial((4,)), torch.rand(1, 6, 144, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([[0, 1, 2, 0, 1, 2]])
    evaluation = model.gradient_function(inputs, labels)(params)
    net = network(params, 0, model)
    torch.testing.assert_close(evaluation.logits[0], net(inputs[0]).detach())
    cross_entropy(net(inputs[0]), labels[0]).backward()
    torch.testing.assert_close(evaluation.gradient.tensors()["0/weight"][0], net[1].weight.grad.permute(0, 2, 3, 1))
