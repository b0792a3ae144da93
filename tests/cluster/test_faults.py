"""Sweeps broken on purpose lose nothing.

Their results equal those of a sweep without faults.
"""

import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from faults import (
    AGENT_SECONDS,
    CHANGED,
    SWEEP,
    TASKS,
    Chance,
    Site,
    artifacts,
    assert_same_results,
    family,
    logged,
    mlflow_server,
    tables,
    wait_until,
)

pytestmark = [
    pytest.mark.sweep,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory, undisturbed):
    """The same sweep with a fault of each kind.

    Returns it and what was observed of the faults, which happen at random moments.
    """
    chance = Chance("broken")
    cwd = tmp_path_factory.mktemp("broken")
    seen = {}
    with mlflow_server(cwd / "mlflow") as server:
        site = Site(cwd, "broken", *SWEEP, "--tracking-uri", server.uri)
        site.database = server.database
        driver = site.go()
        assert site.wait_for_tasks(chance.randrange(1, 4)), driver.end()
        site.wait_for_a_worker().kill()
        seen["processes"] = [process.title for process in family(driver.process.pid)]
        seen["second"] = site.other("resume", "broken").end()
        server.kill()
        assert site.wait_for_tasks(chance.randrange(1, 4)), driver.end()
        seen["key"] = site.kill_at_checkpoints(2, TASKS - 3)
        seen["damage"] = site.damage(chance, seen["key"])
        server.back()
        driver = site.go()
        assert site.wait_for_tasks(chance.randrange(2, 5)), driver.end()
        wait_until(
            lambda: any(line["kind"] == "note" for line in site.records()[seen["key"]]) or not driver.is_running,
            f"the damage is noted: {seen}",
        )
        server.stop()
        time.sleep(chance.uniform(0, 1))
        seen["interrupted"] = driver.interrupt_twice()
        server.back()
        driver = site.go()
        assert site.wait_for_tasks(chance.randrange(1, 4)), driver.end()
        server.stop()
        threading.Timer(chance.uniform(11, 14), server.back).start()  # longer than a request waits
        seen["end"] = driver.end()
    return site, seen


@pytest.mark.slow
def test_a_sweep_with_faults_equals_one_without(broken, undisturbed):
    site, seen = broken
    whole, out = undisturbed.result()
    code, last, err = seen["end"]
    assert code == 0, err
    assert tables(last) == tables(out)
    assert_same_results(site, whole, TASKS)
    assert len(site.kinds("lost")) >= 1


@pytest.mark.slow
def test_a_second_driver_is_refused(broken):
    code, out, err = broken[1]["second"]
    assert (code, out) == (2, "")
    assert err == "study: The sweep 'broken' is already running in another process.\n"


@pytest.mark.slow
def test_a_local_ray_has_neither_autoscaler_nor_log_monitor(broken):
    titles = broken[1]["processes"]
    assert any("raylet" in title for title in titles)
    assert [title for title in titles if "monitor.py" in title] == []


@pytest.mark.slow
def test_instead_of_a_damaged_checkpoint_the_one_before_is_used_and_it_is_said(broken):
    site, seen = broken
    place, _, how = seen["damage"].partition("/state.pt ")
    assert how in ("cut short", "corrupted", "deleted")
    (note,) = [line["text"] for line in site.records()[seen["key"]] if line["kind"] == "note"]
    assert place in note
    assert re.search(r"continues after its first [1-9]\d* tasks$", note)
    said = [line for line in seen["interrupted"][1].splitlines() if line.startswith("note: ")]
    assert [line for line in said if seen["key"] in line and place in line]


@pytest.mark.slow
def test_a_second_interrupt_ends_the_driver_at_once_and_says_how_to_go_on(broken):
    code, _, err = broken[1]["interrupted"]
    assert code == 130
    assert err.splitlines()[-1].endswith("continue with: study resume broken")


@pytest.mark.slow
def test_a_sweep_that_moves_equals_one_that_stays(tmp_path, undisturbed):
    """To the last bit, artifacts included; the report of the moved one is made in yet another place."""
    whole, out = undisturbed.result()
    first, second = tmp_path / "first", tmp_path / "second? 100% #it's &c"
    first.mkdir()
    site = Site(first, whole.name, *SWEEP)
    driver = site.go()
    assert site.wait_for_tasks(Chance("moved").randrange(8, 25)), driver.end()
    driver.kill()
    site = site.moved_to(second)
    assert tables(site.finish()) == tables(out)
    site = site.moved_to(tmp_path / "last")
    code, _, err = site.other("report", site.name).end()
    assert code == 0, err
    assert [*first.iterdir(), *second.iterdir()] == []
    assert_same_results(site, whole, TASKS)
    here, there = artifacts(site), artifacts(whole)
    report = {(run, path) for run, path in here if path.parts[0] == "report"}
    assert ("sweep ", Path("report/report.html")) in report
    assert {name: lines for name, lines in here.items() if name not in report} == there


@pytest.fixture(scope="module")
def searches(tmp_path_factory, beside):
    """Two searches by TPE with one worker.

    One runs without a break; the other is killed and then resumed with more trials. Both are long enough for TPE's model to
    start.
    """
    cwd = tmp_path_factory.mktemp("search")
    words = (
        "quickstart",
        "--scenario",
        "class_pairs",
        "--method",
        "sam",
        "--workers",
        1,
        "--seeds",
        1,
        "--sampler",
        "tpe",
    )
    words += ("--set", "tasks/count=3", "--set", "tasks/images_per_task=320")
    once = Site(cwd, "once", *words, "--trials", 14)
    grown = Site(cwd, "grown", *words, "--trials", 13)
    whole = beside.submit(once.finish)
    driver = grown.go()
    assert grown.wait_for_tasks(Chance("search").randrange(31, 37)), driver.end()
    driver.kill()
    grown.finish("--trials", 14)
    whole.result()
    return grown, once


@pytest.mark.slow
def test_a_search_whose_driver_was_killed_tries_the_same_configurations(searches):
    grown, once = searches
    learning_rates = {config["optimizer"]["lr"] for config, _ in once.results().values()}
    assert len(learning_rates) >= 12
    assert_same_results(grown, once, 3)


OWN_SPACE = """
from search_spaces import Method, SearchSpace

SPACE = SearchSpace(
    name="own",
    description="A trial that raises, one that diverges, and two that do neither.",
    scenarios={"pairs": {"tasks/name": "class_pairs", "tasks/count": 4, "tasks/images_per_task": 320}},
    methods={
        "sgd": Method(points=({"optimizer/lr": 1e30}, {"optimizer/lr": 0.1})),
        "raising": Method(
            settings={"optimizer/name": "sgd", "optimizer/lr": 0.1},
            points=({"training/passes": 13}, {"training/passes": 1}),
        ),
    },
    settings={"data/name": "mnist5k", "tasks/validation_fraction": 0.2},
    seeds=(0, 1),
    trials=2,
)
"""


@pytest.mark.slow
def test_a_trial_that_raises_fails_and_one_that_diverges_is_counted_and_the_others_go_on(tmp_path, beside):
    (tmp_path / "own.py").write_text(OWN_SPACE)
    site = Site(tmp_path, "own", "./own.py")
    code, _, err = site.go().end()
    assert site.changed() == CHANGED
    assert code == 1
    ends = {key: lines[-1]["outcome"] for key, lines in site.records().items()}
    assert ends == {
        **dict.fromkeys(("pairs-sgd-000", "pairs-sgd-001", "pairs-raising-001"), "finished"),
        "pairs-raising-000": "failed",
    }
    (failed,) = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert "pairs-raising-000" in failed
    assert "RuntimeError" in failed
    results = {key: tasks for key, (_, tasks) in site.results().items()}
    assert {task["metrics"]["lanes/diverged"] for task in results["pairs-sgd-000"]} == {2.0}
    assert {value for task in results["pairs-sgd-000"] for value in task["lanes"]["accuracy/test"]} == {0.5}
    assert {task["metrics"]["lanes/diverged"] for task in results["pairs-sgd-001"]} == {0.0}
    assert {label: status for label, (status, _, _) in logged(site).items()} == {
        "sweep ": "FAILED",
        **{f"trial {key}": "FAILED" if end == "failed" else "FINISHED" for key, end in ends.items()},
    }


@pytest.mark.slow
def test_nothing_that_a_driver_has_started_outlives_it(broken, searches):
    drivers = [driver for site in (broken[0], *searches) for driver in site.drivers]
    assert sum(driver.process.returncode == -signal.SIGKILL for driver in drivers) == 2
    wait_until(lambda: not any(driver.left_over() for driver in drivers), "what was left over is gone", AGENT_SECONDS)
