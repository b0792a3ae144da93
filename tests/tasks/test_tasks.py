"""Task sequences: images, order, and dependence on seed and index alone."""

from itertools import combinations, pairwise
from pathlib import Path

import hypothesis.strategies as st
import pytest
import tiny
import torch
from hypothesis import given, settings
from torch import Tensor

from study import parts
from study.contracts import Dataset, Task, TaskSequence
from study.errors import StudyError
from study.lanes import generator

SEQUENCES = parts.names("tasks")
BY_HEART = ["permuted_labels"]
"""Sequences whose labels have nothing to do with the images: accuracy is measured on images that were trained on."""
GENERALISING = [name for name in SEQUENCES if name not in BY_HEART]
SEEDS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4, unique=True)
DIGITS = tiny.dataset(classes=10, train_per_class=8, test_per_class=3)


def sequence(name: str, seeds=(0, 1, 2), dataset: Dataset = DIGITS, **given) -> TaskSequence:
    module, chosen = tiny.part("tasks", name, given)
    return module.build(chosen, dataset, tuple(seeds))


def all_tasks(tasks: TaskSequence, count: int | None = None) -> list[Task]:
    return [tasks.task(index) for index in range(count or tasks.count)]


def same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


# --- class pairs -----------------------------------------------------------------------------------------------------


def test_class_pairs_come_in_the_papers_order_and_are_45():
    tasks = all_tasks(sequence("class_pairs"))
    expected = [f"{a}-{b}" for a in range(10) for b in range(a + 1, 10)]
    assert len(expected) == 45
    assert [task.name for task in tasks] == expected
    assert expected[:3] + expected[8:10] + expected[-1:] == ["0-1", "0-2", "0-3", "0-9", "1-2", "8-9"]


def test_a_pair_has_its_images_all_of_them_and_no_others():
    for pair, task in zip(combinations(range(10), 2), all_tasks(sequence("class_pairs")), strict=True):
        for lane in task.train:
            assert sorted(DIGITS.train_labels[lane].tolist()) == [pair[0]] * 8 + [pair[1]] * 8
            assert len(lane.unique()) == 16
        assert sorted(DIGITS.test_labels[task.test].tolist()) == [pair[0]] * 3 + [pair[1]] * 3
        assert len(task.test.unique()) == 6


def test_the_smaller_class_of_a_pair_is_output_0_and_the_classes_outside_it_have_none():
    tasks = sequence("class_pairs")
    assert tasks.output_count == 2
    for (a, b), task in zip(combinations(range(10), 2), all_tasks(tasks), strict=True):
        assert task.outputs.tolist() == [{a: 0, b: 1}.get(label, -1) for label in range(10)]
        assert task.pixel_order is None


def test_a_count_takes_the_first_pairs():
    tasks = sequence("class_pairs", count=3)
    assert [task.name for task in all_tasks(tasks)] == ["0-1", "0-2", "0-3"]


# --- permuted pixels -------------------------------------------------------------------------------------------------


def test_permuted_pixels_are_100_tasks_of_all_classes_and_any_number_on_demand():
    assert sequence("permuted_pixels").count == 100
    assert sequence("permuted_pixels", count=250).count == 250
    task = sequence("permuted_pixels").task(7)
    assert task.outputs.tolist() == list(range(10))
    assert task.test.tolist() == list(range(30))
    assert task.train.tolist() == [list(range(80))] * 3


@given(SEEDS, st.integers(0, 99))
def test_pixel_orders_are_permutations(seeds, index):
    order = sequence("permuted_pixels", seeds).task(index).pixel_order
    assert order.shape == (len(seeds), tiny.FEATURES)
    assert order.sort(dim=1).values.tolist() == [list(range(tiny.FEATURES))] * len(seeds)


def test_pixel_orders_differ_between_tasks_and_between_seeds():
    wide = torch.randint(0, 256, (4, 100), dtype=torch.uint8)
    labels = torch.tensor([0, 1, 0, 1])
    images = Dataset("wide", wide, labels, wide, labels, 2, (1, 10, 10), "0" * 16)
    orders = {
        tuple(lane.tolist())
        for task in all_tasks(sequence("permuted_pixels", dataset=images, count=20))
        for lane in task.pixel_order
    }
    assert len(orders) == 20 * 3
    assert tuple(range(100)) not in orders, "the first task is permuted like all others"


def test_channels_move_each_by_itself_or_with_their_pixel():
    colour = tiny.dataset(shape=(3, 2, 2))
    for index in range(3):
        pixels = sequence("permuted_pixels", dataset=colour, whole_pixels=True).task(index).pixel_order
        assert pixels.sort(dim=1).values.tolist() == [list(range(12))] * 3
        channels = pixels.view(3, 3, 4)  # [lane, channel, position]
        assert torch.equal(channels, channels[:, :1] + torch.tensor([0, 4, 8]).view(1, 3, 1)), (
            "of every lane and channel"
        )
    values = sequence("permuted_pixels", dataset=colour).task(0).pixel_order.view(3, 3, 4)
    assert ((values // 4) != torch.arange(3).view(1, 3, 1)).any(), "values also move to other channels"


def test_grey_pictures_are_permuted_alike_whatever_moves():
    both = (sequence("permuted_pixels", whole_pixels=whole).task(2).pixel_order for whole in (True, False))
    assert same(*both)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("change", [0.1, 0.5, 1.0])
def test_gradual_permutations_differ_from_the_one_before_at_that_share_of_the_positions(change, whole):
    colour = tiny.dataset(shape=(2, 5, 8))
    tasks = sequence("permuted_pixels", dataset=colour, change=change, whole_pixels=whole)
    orders = [task.pixel_order for task in all_tasks(tasks)][:30]
    assert same(orders[0], sequence("permuted_pixels", dataset=colour, whole_pixels=whole).task(0).pixel_order)
    for before, after in pairwise(orders):
        assert after.sort(dim=1).values.tolist() == [list(range(80))] * 3
        assert (before != after).sum(dim=1).tolist() == [change * 80] * 3
    assert (orders[0] == orders[-1]).double().mean() < 0.2, "in the end all have moved"
    assert len({tuple(lane.tolist()) for order in orders for lane in order}) == 30 * 3, "also from seed to seed"
    again = sequence("permuted_pixels", dataset=colour, change=change, whole_pixels=whole)
    assert same(again.task(17).pixel_order, orders[17]), "without the tasks before"


def test_without_gradual_change_permutations_are_those_of_earlier_versions():
    """Of seed 5: drawn from (5, "permutation", 3)."""
    order = sequence("permuted_pixels", (5,)).task(3).pixel_order
    assert order.tolist() == [torch.randperm(tiny.FEATURES, generator=generator(5, "permutation", 3)).tolist()]


# --- class splits ----------------------------------------------------------------------------------------------------


def test_class_splits_take_the_next_classes_in_turn():
    assert [task.name for task in all_tasks(sequence("class_splits"))] == ["0-1", "2-3", "4-5", "6-7", "8-9"]
    alternating = sequence("class_splits", classes=[3, 1])
    assert [task.name for task in all_tasks(alternating)] == ["0-1-2", "3", "4-5-6", "7"]
    assert alternating.output_count == 3
    for task in all_tasks(alternating):
        classes = [int(label) for label in task.name.split("-")]
        assert sorted(DIGITS.train_labels[task.train[1]].tolist()) == sorted(classes * 8)
        assert sorted(DIGITS.test_labels[task.test].tolist()) == sorted(classes * 3)
        expected = {label: place for place, label in enumerate(classes)}
        assert task.outputs.tolist() == [expected.get(label, -1) for label in range(10)]


def test_classes_with_outputs_of_their_own_keep_them():
    tasks = sequence("class_splits", classes=[5, 1], own_outputs=True, order_seed=3)
    assert tasks.output_count == 10
    assert [len(task.name.split("-")) for task in all_tasks(tasks)] == [5, 1]
    for task in all_tasks(tasks):
        classes = [int(label) for label in task.name.split("-")]
        assert task.outputs.tolist() == [label if label in classes else -1 for label in range(10)]


def test_classes_come_again_when_too_few_are_left():
    tasks = all_tasks(sequence("class_splits", classes=[4], count=5))
    assert [task.name for task in tasks] == [
        "0-1-2-3",
        "4-5-6-7",
        "0-1-2-3, task 2",
        "4-5-6-7, task 3",
        "0-1-2-3, task 4",
    ]
    drawn = [task.name.partition(",")[0] for task in all_tasks(sequence("class_splits", count=10, order_seed=0))]
    for part in (drawn[:5], drawn[5:]):
        assert sorted("-".join(part).split("-")) == sorted(map(str, range(10)))
    assert drawn[:5] != drawn[5:]


@pytest.mark.parametrize(("name", "most"), [("class_pairs", 45), ("class_splits", 5)])
def test_an_order_seed_draws_another_order_that_all_lanes_share(name, most):
    plain, drawn, again, other = (
        [task.name for task in all_tasks(sequence(name, seeds, order_seed=order))]
        for seeds, order in (((0,), None), ((0,), 7), ((1, 2), 7), ((0,), 8))
    )
    assert len(plain) == len(drawn) == len(set(drawn)) == most
    assert drawn == again
    assert plain != drawn != other
    sample = [task.name for task in all_tasks(sequence(name, order_seed=7, count=3))]
    assert sample == drawn[:3]


def test_a_drawn_pair_has_its_smaller_class_at_output_0():
    for task in all_tasks(sequence("class_pairs", order_seed=1, count=8)):
        low, high = (int(label) for label in task.name.split("-"))
        assert low < high
        assert task.outputs.tolist() == [{low: 0, high: 1}.get(label, -1) for label in range(10)]


# --- permuted labels -------------------------------------------------------------------------------------------------


def test_permuted_labels_deal_the_labels_of_the_same_images_out_anew():
    tasks = sequence("permuted_labels", images=20)
    assert tasks.count == 50
    assert sequence("permuted_labels", count=3).count == 3
    seen = set()
    for task in all_tasks(tasks, 6):
        assert same(task.train, tasks.task(0).train), "the images stay"
        assert task.train.shape == (3, 20)
        assert task.relabelled.labels.shape == (3, 80)
        assert same(task.relabelled.test.sort(dim=1).values, task.train), "it is tested on what it trains on"
        for lane in range(3):
            chosen = task.train[lane]
            dealt = task.relabelled.labels[lane, chosen].tolist()
            assert sorted(dealt) == sorted(DIGITS.train_labels[chosen].tolist()), "every class stays as frequent"
            seen.add(tuple(dealt))
    assert len(seen) == 6 * 3
    assert not same(tasks.task(0).train[0], tasks.task(0).train[1]), "each seed has images of its own"


def test_a_share_of_the_images_learnt_by_heart_validates_and_the_others_test():
    for task in all_tasks(sequence("permuted_labels", images=20, validation_fraction=0.25), 3):
        assert task.validation.shape == (3, 5)
        both = torch.cat([task.validation, task.relabelled.test], dim=1)
        assert same(both.sort(dim=1).values, task.train)


@pytest.mark.parametrize(("fraction", "sizes"), [(0.0, (0, 4)), (0.01, (1, 3)), (0.99, (4, 1))])
def test_at_least_one_image_learnt_by_heart_validates_and_one_tests(fraction, sizes):
    task = sequence("permuted_labels", images=4, validation_fraction=fraction).task(0)
    assert (task.validation.shape[1], task.relabelled.test.shape[1]) == sizes


# --- every sequence --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GENERALISING)
def test_held_out_images_train_no_task_of_the_whole_sequence(name):
    tasks = sequence(name, validation_fraction=0.25)
    assert tasks.has_validation
    for lane in range(3):
        built = all_tasks(tasks, min(tasks.count, 50))
        held_out = set(torch.cat([task.validation[lane] for task in built]).tolist())
        trained = set(torch.cat([task.train[lane] for task in built]).tolist())
        assert not held_out & trained
        assert held_out | trained == set(range(80)), "every image does one or the other"
        counts = torch.bincount(DIGITS.train_labels[torch.tensor(sorted(held_out))], minlength=10)
        assert counts.tolist() == [2] * 10, "a quarter of each class"


@pytest.mark.parametrize("name", SEQUENCES)
@settings(max_examples=15)
@given(seeds=SEEDS, fraction=st.floats(0.07, 0.9), count=st.integers(1, 4))
def test_a_lane_of_a_task_depends_on_its_seed_and_not_on_the_others(name, seeds, fraction, count):
    given = {"validation_fraction": fraction, "images_per_task": 1, "count": count}
    together = sequence(name, seeds, **given)
    for lane, seed in enumerate(seeds):
        alone = sequence(name, (seed,), **given)
        for one, many in zip(all_tasks(alone), all_tasks(together), strict=True):
            assert same(one.train[0], many.train[lane])
            assert same(one.validation[0], many.validation[lane])
            assert many.pixel_order is None or same(one.pixel_order[0], many.pixel_order[lane])
            assert same(one.test, many.test)


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_task_built_alone_equals_the_task_built_in_order(name):
    given = {"validation_fraction": 0.25, "images_per_task": 5, "count": 12}
    in_order = all_tasks(sequence(name, **given))
    for index in (11, 0, 4):
        alone = sequence(name, **given).task(index)
        for field in ("train", "validation", "test", "outputs", "pixel_order"):
            assert same(getattr(alone, field), getattr(in_order[index], field)), field


@pytest.mark.parametrize("name", SEQUENCES)
def test_images_per_task_draws_so_many_training_images_anew_for_each_task(name):
    given = {"validation_fraction": 0.25, "count": 6}
    whole, drawn = all_tasks(sequence(name, **given)), all_tasks(sequence(name, images_per_task=7, **given))
    subsets = set()
    for task, full in zip(drawn, whole, strict=True):
        assert task.train.shape == (3, 7)
        for lane in range(3):
            chosen = set(task.train[lane].tolist())
            assert len(chosen) == 7
            assert chosen <= set(full.train[lane].tolist())
            subsets.add(tuple(sorted(chosen)))
        assert name in BY_HEART or same(task.validation, full.validation), "what validates is not drawn again"
        assert same(task.test, full.test)
    assert len(subsets) == 6 * 3


@pytest.mark.parametrize("name", SEQUENCES)
def test_without_a_validation_fraction_nothing_is_held_out(name):
    tasks = sequence(name)
    assert not tasks.has_validation
    assert tasks.task(0).validation.shape == (3, 0)


def test_the_held_out_images_of_two_seeds_differ():
    validation = sequence("permuted_pixels", validation_fraction=0.5).task(0).validation
    assert len({tuple(lane.tolist()) for lane in validation}) == 3


def test_both_sequences_hold_out_the_same_images_of_a_seed():
    permuted = sequence("permuted_pixels", validation_fraction=0.25).task(0).validation
    pairs = all_tasks(sequence("class_pairs", validation_fraction=0.25))
    for lane in range(3):
        together = torch.cat([task.validation[lane] for task in pairs]).unique()
        assert same(together, permuted[lane])


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("class_pairs", {"count": 46}, ["tasks/count=46", "45 pairs"]),
        ("class_pairs", {"count": 46, "order_seed": 1}, ["tasks/count=46", "45 pairs"]),
        ("class_splits", {"count": 10_001}, ["tasks/count=10001", "10,000 tasks"]),
        ("class_splits", {"classes": [11]}, ["tasks/classes=[11]", "10 classes"]),
        ("class_splits", {"images_per_task": 17}, ["tasks/images_per_task=17", "classes 0-1", "16"]),
        ("permuted_labels", {"images": 81}, ["tasks/images=81", "80 training images"]),
        ("permuted_labels", {"images": 10, "images_per_task": 11}, ["tasks/images_per_task=11", "10"]),
        ("class_pairs", {"images_per_task": 17}, ["tasks/images_per_task=17", "pair 0-1", "16"]),
        ("permuted_pixels", {"change": 0.1}, ["tasks/change=0.1", "9 positions", "at least 0.22"]),
        ("permuted_pixels", {"images_per_task": 81}, ["tasks/images_per_task=81", "80"]),
        ("permuted_pixels", {"images_per_task": 61, "validation_fraction": 0.25}, ["images_per_task=61", "60"]),
        ("class_pairs", {"validation_fraction": 0.01}, ["tasks/validation_fraction=0.01", "holds out no image"]),
        ("permuted_pixels", {"validation_fraction": 0.01}, ["tasks/validation_fraction=0.01", "holds out no image"]),
        ("class_pairs", {"validation_fraction": 0.99}, ["tasks/validation_fraction=0.99", "no image to train on"]),
        ("permuted_pixels", {"validation_fraction": 0.99}, ["validation_fraction=0.99", "no image to train on"]),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_first_task_in_one_sentence(name, given, words):
    with pytest.raises(StudyError) as refusal:
        sequence(name, **given)
    message = str(refusal.value)
    assert all(word in message for word in words), message
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize(
    "given", [{"count": 0}, {"images_per_task": 0}, {"validation_fraction": 1.0}, {"validation_fraction": -0.1}]
)
def test_settings_out_of_range_are_refused_by_their_name(name, given):
    with pytest.raises(StudyError, match=next(iter(given))):
        sequence(name, **given)


def test_the_random_draws_are_the_same_in_every_version_of_the_study():
    """Results are comparable seed by seed only while these numbers, and torch.randperm, do not change."""
    images = parts.find("data", "mnist5k").build(parts.settings("data", "mnist5k", {}, ""), Path())
    task = sequence("permuted_pixels", (0, 7), images, images_per_task=5, validation_fraction=0.1).task(3)
    assert task.pixel_order[:, :4].tolist() == [[244, 306, 268, 111], [229, 214, 606, 250]]
    assert task.train.tolist() == [[2232, 274, 2241, 856, 3233], [245, 2929, 2925, 3671, 1981]]
    assert task.validation[:, :4].tolist() == [[8, 17, 46, 50], [2, 9, 10, 17]]
