"""Real sweeps in packs of trials, broken and resumed in packs of other sizes."""

import signal
import sys
from collections import Counter

import pytest
from faults import SWEEP, TASKS, Chance, Site, logged
from sweep_fixtures import lines_of, records_of, study

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]


def assert_equal_but_for_rounding(ours, theirs):
    """The results of two sweeps; a rounded weight may turn an image or two of some hundred."""
    assert ours.keys() == theirs.keys()
    for key, (config, tasks) in ours.items():
        other_config, other_tasks = theirs[key]
        assert config == other_config
        assert [(task["task"], task["name"]) for task in tasks] == [
            (task["task"], task["name"]) for task in other_tasks
        ]
        for task, other in zip(tasks, other_tasks, strict=True):
            assert task["lanes"].keys() == other["lanes"].keys()
            for name, lanes in task["lanes"].items():
                assert lanes == pytest.approx(other["lanes"][name], abs=0.011), (key, task["name"], name)


@pytest.mark.slow
def test_a_sweep_in_packs_that_is_broken_and_resumed_in_other_packs_equals_one_without(tmp_path, undisturbed):
    chance = Chance("packs")
    site = Site(tmp_path, "packed", *SWEEP, "--pack", 2)
    driver = site.go()
    assert site.wait_for_tasks(chance.randrange(3, 8)), driver.end()
    site.wait_for_a_worker().kill()
    assert site.wait_for_tasks(chance.randrange(2, 6)), driver.end()
    driver.kill()
    driver = site.go("--pack", 1)
    assert site.wait_for_tasks(chance.randrange(2, 6)), driver.end()
    driver.signal(signal.SIGTERM)
    driver.end()
    site.finish("--pack", 3)
    whole, _ = undisturbed.result()
    assert_equal_but_for_rounding(site.results(), whole.results())
    assert Counter(line["outcome"] for line in site.kinds("end")) == {"finished": 6}
    steps = steps_in_mlflow(site)
    assert len(steps) == 6
    for run, times in steps.items():
        assert times == dict.fromkeys(range(TASKS), 1), run


def steps_in_mlflow(site):
    """How often each task of each trial is in MLflow."""
    return {
        label: Counter(step for key, step, _ in metrics if key == "accuracy/test")
        for label, (_, _, metrics) in logged(site).items()
        if label != "sweep "
    }


OPTIONS = (
    *("quickstart", "--scenario", "class_pairs", "--method", "sam", "--trials", "9", "--seeds", "2"),
    *("--sampler", "random", "--set", "tasks/count=9", "--set", "tasks/images_per_task=160", "--workers", "1"),
)


def results(sweep):
    return {
        key: (lines[0]["tried"], [line["lanes"] for line in lines if line["kind"] == "task"], lines[-1].get("outcome"))
        for key, lines in records_of(sweep).items()
    }


def test_trials_of_a_pack_are_stopped_and_the_others_go_on_to_the_end(tmp_path):
    done = study("run", *OPTIONS, "--scheduler", "asha", "--pack", "5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "study-results" / "quickstart"
    outcomes = Counter(outcome for _, _, outcome in results(sweep).values())
    assert outcomes.keys() == {"finished", "stopped"}
    assert outcomes.total() == 9
    assert outcomes["stopped"] >= 3
    for key, lines in records_of(sweep).items():
        tasks = [line["task"] for line in lines if line["kind"] == "task"]
        assert tasks == list(range(len(tasks))), key
        assert len(tasks) == 9 or (len(tasks) in (1, 3) and lines[-1]["outcome"] == "stopped")
        assert not [line for line in lines if line["kind"] in ("note", "lost")]  # all went on from their checkpoints
    (plan,) = [line["plan"] for line in lines_of(sweep / "sweep.jsonl") if line["kind"] == "plan"]
    assert plan["batch"] == 5


@pytest.mark.parametrize("pack", ["0", "-1", "2.5", "many", "", "1000001"])
def test_a_pack_of_no_size_is_refused(refused, pack):
    said = refused("run", "quickstart", "--pack", pack)
    assert "--pack must be auto or a whole number, at least 1 and at most 1,000,000, not" in said
