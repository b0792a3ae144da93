"""Curvature against dense float64 Hessians of tiny networks, and against exact solutions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import mlp
from torch.nn.functional import cross_entropy

from study import curvature
from study.curvature import Landscape

SEEDS = (0, 1, 2)


@pytest.fixture(scope="module")
def small():
    """Three lanes of a tiny network, a sample of each, and the landscape, in float64."""
    model = mlp(6, 3, [5, 4])
    params = {name: 2 * value.double() for name, value in model.initial(SEEDS).items()}
    draw = torch.Generator().manual_seed(7)
    inputs = torch.rand(len(SEEDS), 11, 6, generator=draw, dtype=torch.float64)
    labels = torch.randint(0, 3, (len(SEEDS), 11), generator=draw)
    return params, inputs, labels, Landscape(model, params, inputs, labels)


def dense(params, inputs, labels, lane):
    """Loss, gradient and Hessian of one lane, by torch.func, with an independent network."""
    names = list(params)
    shapes = [params[name][lane].shape for name in names]

    def loss(weights):
        parts = [
            part.view(shape) for part, shape in zip(weights.split([s.numel() for s in shapes]), shapes, strict=True)
        ]
        signal = inputs[lane]
        for i in range(0, len(parts), 2):
            signal = torch.relu(signal) if i else signal
            signal = signal @ parts[i].T + parts[i + 1]
        return cross_entropy(signal, labels[lane])

    weights = torch.cat([params[name][lane].flatten() for name in names])
    return loss(weights), torch.func.grad(loss)(weights), torch.func.hessian(loss)(weights), loss, weights


def test_loss_gradient_and_hessian_products_are_those_of_the_dense_matrices(small):
    params, inputs, labels, landscape = small
    vector = torch.randn(landscape.gradient.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    product = landscape.hessian_product(vector)
    for lane in range(len(SEEDS)):
        loss, gradient, hessian, _, _ = dense(params, inputs, labels, lane)
        assert landscape.loss[lane].item() == pytest.approx(loss.item(), rel=1e-12)
        torch.testing.assert_close(landscape.gradient[lane], gradient, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(product[lane], hessian @ vector[lane], rtol=1e-9, atol=1e-12)


def test_the_largest_eigenvalue_is_that_of_the_dense_hessian(small):
    params, inputs, labels, landscape = small
    start = torch.randn(landscape.gradient.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    result = curvature.largest_eigenvalue(landscape.hessian_product, start)
    for lane in range(len(SEEDS)):
        hessian = dense(params, inputs, labels, lane)[2]
        assert result[lane].item() == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=0.01)


def test_the_trace_is_that_of_the_dense_hessian_within_its_error(small):
    params, inputs, labels, landscape = small
    draw = torch.Generator().manual_seed(3)
    probes = [
        2.0 * torch.randint(0, 2, landscape.gradient.shape, generator=draw, dtype=torch.float64) - 1 for _ in range(400)
    ]
    result, error = curvature.hutchinson_trace(landscape.hessian_product, probes)
    for lane in range(len(SEEDS)):
        hessian = dense(params, inputs, labels, lane)[2]
        off_diagonal = hessian - hessian.diag().diag()
        assert error[lane].item() == pytest.approx(math.sqrt(2 * off_diagonal.square().sum() / 400), rel=0.2)
        assert abs(result[lane] - hessian.trace()) < 4 * error[lane]


def test_sam_sharpness_is_the_rise_of_the_loss_along_the_gradient(small):
    params, inputs, labels, landscape = small
    result = curvature.sam_sharpness(landscape, 0.3)
    for lane in range(len(SEEDS)):
        loss, gradient, _, function, weights = dense(params, inputs, labels, lane)
        rise = function(weights + 0.3 * gradient / gradient.norm()) - loss
        assert result[lane].item() == pytest.approx(rise.item(), rel=1e-9)
        assert result[lane] > 0


@pytest.mark.parametrize(
    ("scales", "near"), [((8.0, 0.5, 0.25), 0.0), ((0.125, 0.5, 16.0), 0.0), ((5.0, 0.3, 1 / 1.5), 1e-5)]
)
def test_adaptive_sharpness_does_not_change_when_layers_are_rescaled(scales, near):
    """To the last bit with powers of two, which single precision multiplies by without rounding."""
    model = mlp(6, 3, [5, 4])
    params = model.initial(SEEDS)
    rescaled, grown = dict(params), 1.0
    for layer, scale in enumerate(scales):
        grown *= scale
        rescaled[f"{layer}/weight"] = params[f"{layer}/weight"] * scale
        rescaled[f"{layer}/bias"] = params[f"{layer}/bias"] * grown
    draw = torch.Generator().manual_seed(7)
    sample = torch.rand(len(SEEDS), 11, 6, generator=draw), torch.randint(0, 3, (len(SEEDS), 11), generator=draw)
    found = [curvature.adaptive_sharpness(Landscape(model, each, *sample), 0.5) for each in (params, rescaled)]
    raw = [curvature.sam_sharpness(Landscape(model, each, *sample), 0.05) for each in (params, rescaled)]
    torch.testing.assert_close(found[1], found[0], rtol=near, atol=0)
    assert (found[0] > 0).all()
    assert ((raw[1] / raw[0]).log().abs() > 0.01).all(), "what is not adaptive does change"


def test_minibatches_agree_wholly_by_halves_not_at_all_or_have_nothing_to_agree_on():
    """Lanes whose two gradients are equal, orthogonal, opposite and 0."""
    gradients = torch.tensor([[[3.0, 4], [3, 0], [1, 0], [0, 0]], [[3, 4], [0, 3], [-1, 0], [0, 0]]])
    found = curvature.gradient_reliability(list(gradients))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.5, 0.0, math.nan], dtype=torch.float64), equal_nan=True)


def test_a_linear_classifier_of_one_image_has_the_eigenvalue_of_its_softmax():
    """With uniform outputs p = 1/k the Hessian is (diag p - p p^T) kron (x x^T), bias included: |x|^2 + 1 over k."""
    model = mlp(4, 2, [])
    params = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in model.initial((0,)).items()}
    image = torch.tensor([[[0.5, 0.0, 1.0, 0.25]]], dtype=torch.float64)
    landscape = Landscape(model, params, image, torch.tensor([[1]]))
    length = image.square().sum().item() + 1
    start = torch.randn(1, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert curvature.largest_eigenvalue(landscape.hessian_product, start).item() == pytest.approx(length / 2, rel=1e-6)
    signs = torch.ones(2, 1, 10, dtype=torch.float64)
    signs[1, 0, ::2] = -1
    trace, _ = curvature.hutchinson_trace(torch.ones_like, list(signs))
    assert trace.item() == pytest.approx((signs.sum(dim=(1, 2))).mean().item())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=1, max_size=40), st.floats(1e-6, 1e3), st.integers(0, 2**31))
def test_what_is_found_is_an_eigenvalue_whatever_the_signs(values, scale, seed):
    values = scale * np.array(values)
    draw = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(draw.normal(size=(len(values), len(values))))
    matrix = torch.from_numpy(basis @ np.diag(values) @ basis.T).unsqueeze(0)
    start = torch.from_numpy(draw.normal(size=(1, len(values))))
    result = curvature.largest_eigenvalue(lambda v: torch.einsum("lij,lj->li", matrix, v), start).item()
    small = curvature.NEGLIGIBLE * np.abs(values).max()
    assert result <= values.max() + 1e-9 * scale
    assert abs(result - values).min() <= curvature.LARGEST_RESIDUAL * abs(result) + small


@pytest.mark.parametrize("second", [9.5, 9.0, 8.0, 0.0, -9.0, -20.0])
def test_it_is_the_largest_one_from_all_but_a_few_starts(second):
    """A start nearly orthogonal to the leading eigenvector ends at the next eigenvalue."""
    spectrum = torch.linspace(-1, 1, 1000)
    spectrum[:2] = torch.tensor([10.0, second])
    start = torch.randn(1500, 1000, generator=torch.Generator().manual_seed(11))
    result = curvature.largest_eigenvalue(lambda v: v * spectrum, start)
    assert (result > 9.99).double().mean() >= 0.99
    assert ((result - 10).abs() < 1e-3).double().mean() >= 0.99


@pytest.mark.parametrize(
    ("spectrum", "largest"),
    [
        (torch.cat([torch.linspace(-0.9, 0.9, 200), torch.zeros(4800)]), 0.9),
        (torch.cat([torch.linspace(-2.0, 0.5, 200), torch.zeros(4800)]), 0.5),
        (torch.cat([torch.linspace(-0.5, 0.5, 4998), torch.tensor([8.0, 8.5])]), 8.5),
        (torch.cat([torch.linspace(-1.0, -0.1, 200), torch.zeros(4800)]), 0.0),
    ],
    ids=["as many above as below", "more below", "two close together", "none above"],
)
def test_spectra_like_those_of_networks_are_solved_in_few_products_in_single_precision(spectrum, largest):
    """Here plain power iteration takes hundreds of products, stops between two close eigenvalues, or never ends."""
    calls = []

    def product(vector):
        calls.append(1)
        return vector * spectrum

    start = torch.randn(4, 5000, generator=torch.Generator().manual_seed(5))
    result = curvature.largest_eigenvalue(product, start)
    assert result.tolist() == pytest.approx([largest] * 4, rel=1e-3, abs=2e-3)
    assert len(calls) <= 120


def test_an_iteration_that_comes_to_no_end_has_no_value(monkeypatch):
    monkeypatch.setattr(curvature, "LONGEST_ITERATION", 3)
    values = torch.tensor([torch.linspace(0, 1, 50).tolist(), [1.0] * 50])
    result = curvature.largest_eigenvalue(lambda v: v * values, torch.ones(2, 50))
    assert math.isnan(result[0])
    assert result[1].item() == pytest.approx(1)


def test_a_curvature_too_large_for_single_precision_has_no_value():
    values = torch.tensor([[1e25, 1e24, 0.0], [3.0, 1.0, 0.0]])
    result = curvature.largest_eigenvalue(lambda v: v * values, torch.ones(2, 3))
    assert math.isnan(result[0])
    assert result[1].item() == pytest.approx(3, rel=1e-3)


def test_a_product_that_is_not_finite_has_no_value_and_ends_at_once():
    calls = []

    def product(vector):
        calls.append(1)
        return vector * torch.tensor([[torch.nan], [2.0]])

    result = curvature.largest_eigenvalue(product, torch.ones(2, 3))
    assert math.isnan(result[0])
    assert result[1].item() == pytest.approx(2)
    assert len(calls) <= 3


def test_a_lane_alone_has_the_eigenvalue_that_it_has_in_company():
    """To the last bit, although other lanes take more or fewer steps."""
    draw = torch.Generator().manual_seed(1)
    values = torch.randn(5, 20_000, generator=draw) * torch.tensor([[1.0], [2.0], [0.1], [1.0], [1.0]])
    values[1, 0], values[3, :2] = 30.0, torch.tensor([9.0, 9.1])
    start = torch.randn(5, 20_000, generator=draw)
    together = curvature.largest_eigenvalue(lambda v: values * v, start)
    for lane in range(5):
        alone = curvature.largest_eigenvalue(lambda v, lane=lane: values[[lane]] * v, start[[lane]])
        assert alone.item() == together[lane].item()
        assert alone.item() == pytest.approx(values[lane].max().item(), rel=0.02)
