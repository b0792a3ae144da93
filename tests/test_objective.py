"""What a search may optimise: names, directions, values of tasks, and nothing computed from test images."""

import pytest

from study import objective, schema
from study.errors import StudyError
from study.objective import DEFAULT, NAMED, TWO, parse, parse_all

QUANTITIES = {quantity.name: quantity for quantity in (*schema.PER_TASK, *schema.ALL_DIAGNOSTICS, *schema.SUMMARY)}
ON_TEST = [name for name, quantity in QUANTITIES.items() if quantity.on_test]
WRITTEN = ["summary/chosen_objective", "summary/second_objective"]
OTHERS = [name for name in QUANTITIES if name not in (*ON_TEST, *WRITTEN)]


def lines(*values, name="loss/online"):
    return [{"metrics": {name: value}} for value in values]


def test_all_that_is_computed_from_test_images_is_known():
    """By name, so that a new quantity has to say it too."""
    assert {name for name in QUANTITIES if "test" in name} <= set(ON_TEST)
    assert {"accuracy/first_task", "accuracy/earlier_tasks"} <= set(ON_TEST)
    assert len(ON_TEST) == 8


@pytest.mark.parametrize("name", ON_TEST)
@pytest.mark.parametrize("end", ["", ":max", ":min", "/lane_0:max"])
def test_no_search_reads_what_is_computed_from_test_images(name, end):
    with pytest.raises(StudyError, match="it is computed from test images") as refused:
        parse(name + end)
    assert len(str(refused.value)) <= 300


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("direction", ["max", "min"])
def test_any_other_quantity_may_be_one_by_name_and_direction(name, direction):
    made = parse(f"{name}:{direction}")
    assert (made.quantity, made.is_maximised) == (name, direction == "max")
    assert parse(made.name) == made
    assert made.score(2.0) == (2.0 if direction == "max" else -2.0)
    assert direction in made.words


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("acuracy", "did you mean 'accuracy'"),
        ("loss/onlin:min", "did you mean 'loss/online'"),
        ("loss/online", "needs a direction: loss/online:max or loss/online:min"),
        ("loss/online:", "needs a direction"),
        ("loss/online:up", ":max or :min, not :'up'"),
        ("", "Unknown objective ''"),
        (":max", "Unknown objective ''"),
        ("area_above_reset", "a trial has no curve of a reset to compare with"),
        ("area:max", "a trial has no curve of a reset to compare with"),
        ("rule/blend:max", "it is no result of a trial"),
        ("trials/finished:max", "it is no result of a trial"),
        ("summary/chosen_objective:max", "it is no result of a trial"),
        ("units/dead/layer_0:min", "write units/dead:max or units/dead:min for the mean over the layers"),
        ("loss/online/lane_0:min", "for the mean over the lanes"),
        (3, "3 is no objective"),
        ("x" * 5000, "Unknown objective"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(text, told):
    with pytest.raises(StudyError) as refused:
        parse(text)
    assert told in str(refused.value)
    assert len(str(refused.value)) <= 300


def test_a_named_objective_by_its_quantity_is_the_named_one():
    assert parse("objective:max") is NAMED["accuracy"]
    assert parse("decline:min") is NAMED["decline"]
    assert parse("accuracy/online:max") is NAMED["online_accuracy"]
    assert parse("accuracy:min").column == "summary/objective"
    assert not parse("decline:max").is_default


def test_how_many_there_may_be():
    assert parse_all((), "tpe") == DEFAULT
    assert parse_all((), "nsga2") == TWO
    assert parse_all(["late_accuracy"], "nsga2") == (NAMED["late_accuracy"],)
    assert len(parse_all(["late_accuracy", "seconds/training:min"], "nsga2")) == 2
    for texts, sampler, told in (
        (["accuracy", "decline"], "tpe", "need --sampler nsga2"),
        (["accuracy", "decline", "late_accuracy"], "nsga2", "not 3"),
        (["accuracy", "objective:max"], "nsga2", "both objective"),
    ):
        with pytest.raises(StudyError, match=told):
            parse_all(texts, sampler)


def test_plans_from_before_objectives_could_be_chosen():
    assert objective.of_plan({"sampler": "tpe"}) == DEFAULT
    assert objective.of_plan({"sampler": "nsga2"}) == TWO
    assert objective.of_plan({}) == DEFAULT
    for wrong in ("accuracy", 3, ["accuracy/test:max"]):
        with pytest.raises(StudyError):
            objective.of_plan({"objectives": wrong})


def test_what_is_about_one_task_is_averaged_and_what_is_about_all_is_not():
    loss, decline = parse("loss/online:min"), NAMED["decline"]
    assert loss.value(lines(1.0, 2.0, 6.0)) == 3.0
    assert loss.course(lines(1.0, 2.0, 6.0)) == {1: 1.0, 2: 1.5, 3: 3.0}
    assert decline.value(lines(1.0, 2.0, 6.0, name="decline")) == 6.0
    assert decline.course(lines(1.0, 2.0, 6.0, name="decline")) == {1: 1.0, 2: 2.0, 3: 6.0}
    assert (loss.running, decline.running) == (None, "decline")


def test_a_value_that_tasks_lack_is_none_and_not_zero():
    loss = parse("loss/online:min")
    assert loss.value([]) is None
    assert loss.value([*lines(1.0), {"metrics": {}}]) is None
    assert loss.course([*lines(1.0), {"metrics": {}}, *lines(3.0)]) == {1: 1.0}
    assert NAMED["late_accuracy"].value(lines(1.0)) is None
    assert parse("summary/lanes_diverged:min").value(lines(1.0)) is None


def test_a_diagnostic_counts_after_the_last_task_over_lanes_and_layers():
    dead = parse("units/dead:min")
    first = {"metrics": {}, "diagnostics": {"units/dead/layer_0": [0.0, 0.0], "units/dead/layer_1": [0.0, 0.0]}}
    last = {"metrics": {}, "diagnostics": {"units/dead/layer_0": [0.25, 0.25], "units/dead/layer_1": [0.5, 1.0]}}
    assert dead.value([first, last]) == 0.5
    assert dead.course([first, last]) == {}
    last["diagnostics"]["units/dead/layer_1"][1] = None  # such as of a diverged lane
    assert dead.value([first, last]) is None
    assert parse("weights/norm:min").value([first, last]) is None
    assert {name.partition("/")[0] for name in OTHERS if name in {q.name for q in schema.ALL_DIAGNOSTICS}} == set(
        objective.PERIODS
    )


def test_seconds_are_those_of_all_tasks():
    tasks = [{"metrics": {"seconds/training": 2.0, "seconds/evaluation": 0.5}} for _ in range(3)]
    seconds = parse("summary/seconds:min")
    assert seconds.value(tasks) is None
    tasks[-1]["summary"] = {"summary/accuracy_test": 0.5}
    assert seconds.value(tasks) == 7.5
