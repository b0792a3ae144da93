"""Schedules of rho and lambda: factors by place, settings without effect, constant ones that change nothing."""

import math
from pathlib import Path

import pytest
import tiny
import torch

from search_spaces import Method, SearchSpace
from study import parts
from study.contracts import Beginning
from study.errors import StudyError
from study.lanes import stackable, stacked
from study.sweep import datasets
from study.sweep.search_plan import make_plan

COUNT = 9
PLACES = range(COUNT)

FACTORS = {
    "linear down": ({"schedule": "linear"}, [1 - i / 8 for i in PLACES]),
    "linear up": ({"schedule": "linear", "schedule_from": 0.0, "schedule_to": 2.0}, [i / 4 for i in PLACES]),
    "warm-up": (
        {"schedule": "linear", "schedule_from": 0.0, "schedule_to": 1.0, "schedule_length": 3},
        [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    ),
    "cosine": ({"schedule": "cosine"}, [(1 + math.cos(math.pi * i / 8)) / 2 for i in PLACES]),
    "first": ({"schedule": "first", "schedule_length": 2}, [1.0] * 2 + [0.0] * 7),
    "first, more than there are": ({"schedule": "first", "schedule_length": 99}, [1.0] * 9),
    "last": ({"schedule": "last", "schedule_length": 2, "schedule_to": 0.5}, [0.5] * 7 + [1.0] * 2),
    "last, changing sign": ({"schedule": "last", "schedule_length": 4, "schedule_to": -1.0}, [-1.0] * 5 + [1.0] * 4),
}


def factors(schedule, seeds=(0, 1), over="tasks") -> torch.Tensor:
    """The factors of all tasks, or of all steps of one, [place, lane]."""
    rows, memory = [], schedule.initial_memory()
    for task in PLACES if over == "tasks" else (3,):
        memory = memory | schedule.before_task(Beginning(task, COUNT, COUNT, seeds))
        rows += [schedule.next_factor(memory).clone() for _ in (PLACES if over == "steps" else (0,))]
    return torch.stack(rows)


@pytest.mark.parametrize("over", ["tasks", "steps"])
@pytest.mark.parametrize("name", FACTORS)
def test_the_factor_follows_the_place_in_the_sequence_or_in_the_task(name, over):
    given, expected = FACTORS[name]
    schedule = tiny.rule("sam", 2, schedule_over=over, **given).schedule
    torch.testing.assert_close(factors(schedule, over=over), torch.tensor(expected).unsqueeze(1).expand(-1, 2))


def test_a_list_gives_each_task_its_own_factor_and_lanes_of_a_stack_their_own():
    one, other = (
        tiny.rule("random_sam", 1, schedule="list", schedule_factors=[float(x) for x in values])
        for values in (PLACES, reversed(PLACES))
    )
    assert stackable([one, other])
    table = factors(stacked([one, other]).schedule)
    assert table.tolist() == [[i, 8 - i] for i in PLACES]


def test_only_schedules_of_one_kind_go_into_one_stack():
    plain, linear, cosine, within = (
        tiny.rule("sam", 1, **given)
        for given in (
            {},
            {"schedule": "linear"},
            {"schedule": "cosine"},
            {"schedule": "linear", "schedule_over": "steps"},
        )
    )
    assert stackable([linear, tiny.rule("sam", 2, schedule="linear", schedule_from=0.0, schedule_length=3)])
    for other in (plain, cosine, within, tiny.rule("sam", 1, schedule="linear", base="adamw")):
        assert not stackable([linear, other])


@pytest.mark.parametrize("name", ["sam", "gnp", "gnp exact", "asam", "friendly_sam", "random_sam"])
def test_a_factor_of_1_is_as_no_schedule_and_one_of_0_as_the_base_alone(name):
    given = tiny.OPTIMIZERS.get(name, {"rho": 0.1}) | {"momentum": 0.9}

    def params(optimizer, settings):
        return tiny.results(tiny.experiment(optimizer, settings, task_settings={"count": 2}))[-1].state.params

    plain, base = params(name, given), params("sgd", {"momentum": 0.9})
    for over in ("tasks", "steps"):
        level = {"schedule": "linear", "schedule_over": over}
        ones, zeros = (params(name, given | level | {"schedule_from": f, "schedule_to": f}) for f in (1.0, 0.0))
        for key, value in plain.items():
            torch.testing.assert_close(ones[key], value, rtol=0, atol=1e-6)
            torch.testing.assert_close(zeros[key], base[key], rtol=0, atol=1e-6)
            assert float((value - base[key]).abs().max()) > 1e-4


def test_without_a_schedule_a_rule_remembers_no_place():
    weights = tiny.mlp(9, 4, [5]).initial((0,))
    for name in ("sam", "gnp", "asam"):
        rule = tiny.rule(name, 1)
        memory = rule.initial_memory(weights)
        assert (rule.schedule, memory) == (None, {})
        assert rule.before_task(memory, Beginning(1, 2, 3, (0,))) is memory


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"schedule_to": 0.5}, "schedule_to has no effect with schedule=constant"),
        ({"schedule_over": "steps"}, "schedule_over has no effect with schedule=constant"),
        ({"schedule": "first"}, "schedule=first needs schedule_length"),
        ({"schedule": "list"}, "schedule=list needs schedule_factors"),
        ({"schedule": "linear", "schedule_factors": [1.0]}, "schedule_factors has no effect with schedule=linear"),
        ({"schedule": "list", "schedule_factors": [1.0], "schedule_length": 3}, "schedule_length has no effect"),
        ({"base": "adamw", "momentum": 0.9}, "momentum has no effect with base=adamw"),
        ({"beta2": 0.9}, "beta2 has no effect with base=sgd"),
        ({"epsilon": 1e-6}, "epsilon has no effect with base=sgd"),
    ],
)
@pytest.mark.parametrize("name", ["sam", "random_sam"])
def test_a_setting_without_effect_is_refused_in_one_sentence(name, given, words):
    with pytest.raises(StudyError, match=f"^optimizer: {words}.*[.]$") as refusal:
        parts.settings("optimizers", name, given, "optimizer/")
    assert len(str(refusal.value)) <= 300


def test_a_list_of_another_length_than_the_sequence_is_refused():
    rule = tiny.rule("sam", 2, schedule="list", schedule_factors=[1.0, 0.0])
    rule.check_tasks(2)
    with pytest.raises(StudyError, match=r"^optimizer/schedule_factors has 2 numbers and the sequence 3 tasks; .*[.]$"):
        rule.check_tasks(3)


@pytest.mark.parametrize("first", ["sgd", "sam"])
def test_a_plan_whose_list_does_not_fit_its_tasks_is_refused_before_any_trial(first):
    """Also if trials of another method have been checked on the same tasks before."""
    listed = {"optimizer/schedule": "list", "optimizer/schedule_factors": [1.0, 0.0]}
    methods = {"sgd": Method(points=({"optimizer/lr": 0.1},)), "sam": Method(points=(listed,))}
    space = SearchSpace(
        name="lists",
        description="Is a list of factors as long as the sequence?",
        scenarios={"class_pairs": {"tasks/name": "class_pairs", "tasks/count": 3}},
        methods={first: methods.pop(first), **methods},
        settings={"data/name": "mnist5k"},
    )
    with pytest.raises(StudyError, match=r"schedule_factors has 2 numbers and the sequence 3 tasks"):
        datasets.load(make_plan(space, name="lists"), Path("nowhere"))
