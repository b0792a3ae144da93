"""The measured quantities against plain numpy."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from study import metrics, schema

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


def test_values_that_fall_have_a_decline_above_0():
    assert metrics.decline(torch.linspace(1, 0, 20).unsqueeze(1)).item() > 0


def test_every_logged_name_is_declared_once_with_a_unit_and_one_sentence():
    groups = [value for value in vars(schema).values() if isinstance(value, tuple)]
    declared = [quantity for group in groups for quantity in group if isinstance(quantity, schema.Quantity)]
    assert len(schema.QUANTITIES) == len(declared) > 0
    for quantity in declared:
        assert schema.QUANTITIES[quantity.name] is quantity
        assert quantity.unit, quantity.name
        assert quantity.definition[0].isupper(), quantity.name
        assert quantity.definition.endswith("."), quantity.name


def test_a_lanes_value_is_named_after_the_quantity_and_the_lane():
    assert schema.lane_name("accuracy/test", 3) == "accuracy/test/lane_3"
