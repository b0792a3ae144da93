"""Metrics against plain numpy."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from study import schema
from study.training import metrics

NUMBERS = st.integers(0, 2**32 - 1)


@given(NUMBERS, st.integers(1, 4), st.integers(1, 9), st.integers(2, 5))
def test_an_image_is_correct_when_its_largest_logit_is_its_labels(seed, lanes, images, outputs):
    draw = np.random.default_rng(seed)
    logits, labels = draw.normal(size=(lanes, images, outputs)), draw.integers(0, outputs, (lanes, images))
    expected = [
        sum(row.tolist().index(max(row)) == label for row, label in zip(*lane, strict=True))
        for lane in zip(logits, labels, strict=True)
    ]
    assert metrics.correct(torch.from_numpy(logits), torch.from_numpy(labels)).tolist() == expected


def test_labels_without_a_lane_axis_are_those_of_every_lane():
    logits = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]])
    assert metrics.correct(logits, torch.tensor([1, 0])).tolist() == [2, 1]


def test_a_row_with_a_nan_counts_as_wrong_wherever_argmax_finds_it():
    logits = torch.tensor([[[math.nan, 1.0], [1.0, math.nan], [1.0, 0.0]]])
    for labels in ([0, 0, 0], [1, 1, 0]):
        assert metrics.correct(logits, torch.tensor([labels])).tolist() == [1]


def test_a_uniform_guess_has_the_accuracy_and_the_loss_of_chance():
    for outputs in (2, 10):
        logits = torch.zeros(outputs, outputs)
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(outputs))
        assert metrics.chance_loss(outputs) == pytest.approx(float(loss), rel=1e-6)
        assert metrics.chance_accuracy(outputs) == 1 / outputs


def test_a_tenth_of_the_tasks_is_rounded_up():
    assert [schema.tenth(tasks) for tasks in (1, 9, 10, 11, 45, 100)] == [1, 1, 1, 2, 5, 10]


@given(NUMBERS, st.integers(1, 120), st.integers(1, 4))
def test_decline_is_the_first_tenth_minus_the_last(seed, tasks, lanes):
    values = np.random.default_rng(seed).random((tasks, lanes))
    tenth = -(-tasks // 10)
    first, last = values[:tenth].mean(0), values[tasks - tenth :].mean(0)
    tensor = torch.from_numpy(values)
    np.testing.assert_allclose(metrics.first_tenth(tensor).numpy(), first, rtol=1e-12)
    np.testing.assert_allclose(metrics.last_tenth(tensor).numpy(), last, rtol=1e-12)
    np.testing.assert_allclose(metrics.decline(tensor).numpy(), first - last, rtol=1e-12, atol=1e-15)


def test_the_early_tasks_of_a_decline_after_warm_up():
    assert [list(range(tasks))[schema.after_warmup(tasks)] for tasks in (1, 10, 11, 45)] == [
        [0],
        [0],
        [1, 2],
        [2, 3, 4, 5, 6],
    ]
    assert list(range(100))[schema.after_warmup(100)] == list(range(5, 15))
    for tasks in range(1, 301):
        assert len(range(tasks)[schema.after_warmup(tasks)]) == schema.tenth(tasks)


def test_a_slow_first_task_hides_a_loss_from_the_decline_but_not_from_that_after_warm_up():
    values = torch.cat([torch.full((5, 1), 0.5), torch.linspace(0.9, 0.7, 95).unsqueeze(1)])
    assert metrics.decline(values).item() < 0
    assert metrics.decline_after_warmup(values).item() > 0.15
    assert float(metrics.decline_after_warmup(values)) == pytest.approx(values[5:15].mean() - values[90:].mean())


def test_values_that_fall_have_a_decline_above_0():
    assert metrics.decline(torch.linspace(1, 0, 20).unsqueeze(1)).item() > 0


@given(NUMBERS, st.integers(1, 3), st.integers(1, 8), st.integers(1, 6), st.floats(0, 1))
def test_dead_and_dormant_units_are_counted_as_their_definitions_say(seed, lanes, images, units, threshold):
    draw = np.random.default_rng(seed)
    hidden = np.maximum(draw.normal(-1, 1, (lanes, images, units)), 0)
    tensor = torch.from_numpy(hidden)
    for lane in range(lanes):
        scores = [abs(hidden[lane, :, unit]).sum() / images for unit in range(units)]
        mean = sum(scores) / units
        dead = sum(not (hidden[lane, :, unit] > 0).any() for unit in range(units)) / units
        dormant = sum(mean == 0 or score / mean <= threshold for score in scores) / units
        assert metrics.dead_units(tensor)[lane].item() == pytest.approx(dead)
        assert metrics.dormant_units(tensor, threshold)[lane].item() == pytest.approx(dormant)


@given(NUMBERS, st.integers(1, 3), st.integers(1, 12), st.integers(1, 6))
def test_ranks_are_those_of_the_singular_values(seed, lanes, images, units):
    features = np.random.default_rng(seed).normal(size=(lanes, images, units))
    values = metrics.singular_values(torch.from_numpy(features))
    for lane in range(lanes):
        expected = np.zeros(units)
        singular = np.linalg.svd(features[lane], compute_uv=False)
        expected[: len(singular)] = singular
        np.testing.assert_allclose(values[lane].numpy(), expected, atol=1e-6 * expected[0])
        shares = singular / singular.sum()
        effective = math.exp(-sum(share * math.log(share) for share in shares if share > 0))
        assert metrics.effective_rank(values)[lane].item() == pytest.approx(effective, rel=1e-4)
        stable = np.linalg.norm(features[lane]) ** 2 / np.linalg.norm(features[lane], 2) ** 2
        assert metrics.stable_rank(values)[lane].item() == pytest.approx(stable, rel=1e-9)
        srank = next(k for k in range(1, units + 1) if expected[:k].sum() >= 0.9 * expected.sum())
        assert metrics.srank(values, 0.9)[lane].item() == srank


def test_the_ranks_of_an_orthogonal_matrix_of_a_product_and_of_zeros():
    eye, product = torch.eye(7, 5), torch.outer(torch.arange(1.0, 8), torch.arange(1.0, 6))
    values = metrics.singular_values(torch.stack([eye, product, torch.zeros(7, 5)]))
    for rank in (metrics.effective_rank(values), metrics.stable_rank(values), metrics.srank(values, 0.99)):
        assert rank.tolist() == pytest.approx([5, 1, 0], abs=1e-5)


def test_every_logged_name_is_declared_once_with_a_unit_and_one_sentence():
    groups = [value for value in vars(schema).values() if isinstance(value, tuple)]
    found = [quantity for group in groups for quantity in group if isinstance(quantity, schema.Quantity)]
    declared = {id(quantity): quantity for quantity in found}.values()  # a group may be the union of others
    assert len(schema.QUANTITIES) == len(declared) > 0
    for quantity in declared:
        assert schema.QUANTITIES[quantity.name] is quantity
        assert quantity.unit, quantity.name
        assert quantity.definition[0].isupper(), quantity.name
        assert quantity.definition.endswith("."), quantity.name


def test_a_lanes_value_is_named_after_the_quantity_and_the_lane():
    assert schema.lane_name("accuracy/test", 3) == "accuracy/test/lane_3"
