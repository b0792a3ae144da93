"""Arithmetic on stacked lanes, and random streams."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from study.lanes import add, finite, generator, multiply, norm, per_lane, reciprocal, select

FINITE = st.floats(-1e6, 1e6, width=32)


def test_multiply_scales_each_lane_by_its_own_number_and_in_place():
    tensors = {"a": torch.ones(2, 3), "b": torch.ones(2)}
    places = {name: value.data_ptr() for name, value in tensors.items()}
    multiply(tensors, torch.tensor([2.0, -1.0]))
    assert tensors["a"].tolist() == [[2.0] * 3, [-1.0] * 3]
    assert tensors["b"].tolist() == [2.0, -1.0]
    assert {name: value.data_ptr() for name, value in tensors.items()} == places


@given(FINITE)
def test_the_reciprocal_of_0_is_0_and_that_of_what_is_not_finite_is_seen(length):
    result = reciprocal(torch.tensor([length, 0.0, torch.inf, torch.nan]))
    assert result[0] == (1 / torch.tensor(length) if length else 0)
    assert result[1] == result[2] == 0
    assert result[3].isnan()


def test_the_norm_is_that_of_all_tensors_of_a_lane_together():
    draw = torch.Generator().manual_seed(0)
    tensors = {"a": torch.randn(3, 4, 5, generator=draw), "b": torch.randn(3, 7, generator=draw)}
    for lane, length in enumerate(norm(tensors)):
        whole = torch.cat([value[lane].flatten() for value in tensors.values()])
        torch.testing.assert_close(length, whole.norm())


def test_the_norm_of_a_lane_alone_has_the_same_bits_as_in_company():
    draw = torch.Generator().manual_seed(0)
    for _ in range(100):
        tensors = {name: torch.randn(4, 5, 7, generator=draw) for name in "abcdef"}
        company = norm(tensors)
        for lane in range(4):
            alone = norm({name: value[lane : lane + 1].clone() for name, value in tensors.items()})
            assert torch.equal(alone[0], company[lane])


def test_add_and_select_keep_the_lanes_apart():
    ones, threes = {"w": torch.ones(3, 2)}, {"w": torch.full((3, 2), 3.0)}
    assert add(ones, threes, torch.tensor([0.0, 1.0, -1.0]))["w"].tolist() == [[1, 1], [4, 4], [-2, -2]]
    assert select(torch.tensor([True, False, True]), ones, threes)["w"].tolist() == [[1, 1], [3, 3], [1, 1]]


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_one_non_finite_element_makes_its_lane_and_no_other_not_finite(poison):
    tensors = {"a": torch.zeros(3, 2, 2), "b": torch.zeros(3, 4)}
    tensors["b"][1, 3] = poison
    assert finite(tensors).tolist() == [True, False, True]


def test_a_value_for_each_lane_broadcasts_over_whatever_the_lanes_hold():
    for shape in ((2,), (2, 3), (2, 3, 4)):
        scaled = per_lane(torch.tensor([1.0, 10.0]), torch.ones(shape)) * torch.ones(shape)
        assert scaled.shape == shape
        assert (scaled[0] == 1).all()
        assert (scaled[1] == 10).all()


@given(st.integers(0, 2**31 - 1), st.sampled_from(["order", "validation"]), st.integers(0, 1000))
def test_a_stream_is_a_function_of_seed_purpose_and_task(seed, purpose, task):
    def drawn(*key) -> list[int]:
        return torch.randint(0, 2**31, (4,), generator=generator(*key)).tolist()

    assert drawn(seed, purpose, task) == drawn(seed, purpose, task)
    others = [(seed + 1, purpose, task), (seed, f"{purpose}!", task), (seed, purpose, task + 1)]
    assert all(drawn(*other) != drawn(seed, purpose, task) for other in others)


def test_no_stream_touches_the_global_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    torch.rand(3, generator=generator(0, "order", 0))
    assert torch.equal(torch.get_rng_state(), before)
