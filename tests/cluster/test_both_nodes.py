"""Sweeps over two nodes that must both be at work.

On a busy machine the first node may be done before the second has started.
"""

import random
import time

import pytest
from nodes import finished, wait_until, why_not_isolated
from sweep_fixtures import records_of
from two_node_sweep import GRID, assert_each_step_is_logged_once, hosts, results, table, task_count

pytestmark = [pytest.mark.sweep, pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(300)]


@pytest.mark.skipif(why_not_isolated() is not None, reason=f"nodes share a machine: {why_not_isolated()}")
def test_both_nodes_train_and_the_results_are_those_of_one_machine(cluster, alone):
    place, printed, _ = alone
    done = cluster.head.study(*GRID, "--name", "both", "--address", "auto", cwd=cluster.shared)
    assert (done.returncode, done.stderr) == (0, "")
    sweep = cluster.shared / "study-results" / "both"
    trained_on = [host for lines in records_of(sweep).values() for host in hosts(lines)]
    assert set(trained_on) == {"node-one", "node-two"}
    for first, *lines in records_of(sweep).values():
        assert first["config"]["model"]["name"].startswith("mlp.py@")
        assert {tuple(line["facts"]["parts"]) for line in lines if line["kind"] == "facts"} == {("damping",)}
    assert results(sweep) == results(place / "study-results" / "whole")
    assert table(done.stdout) == table(printed) != []
    assert_each_step_is_logged_once(f"sqlite:///{cluster.shared / 'study-results' / 'mlflow.db'}", "both", 8)


def test_a_sweep_whose_node_is_killed_ends_with_the_same_table(cluster, alone):
    place, printed, _ = alone
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    moment = random.Random(seed).randint(1, 24)
    home = cluster.shared / "driver"
    home.mkdir()
    storage = cluster.shared / "checkpoints"
    storage.mkdir()
    words = (*GRID, "--name", "killed", "--address", cluster.address, "--storage", storage)
    sweep = home / "study-results" / "killed"
    with cluster.head.popen("study", *words, cwd=home) as running:
        wait_until(lambda: task_count(sweep) >= moment or running.poll() is not None, f"{moment} tasks", 120)
        wait_until(lambda: in_training(sweep, cluster) or running.poll() is not None, "a trial on the second node", 60)
        killed_at = time.monotonic()
        cluster.second.kill()
        assert cluster.second.processes() == []
        cut = in_training(sweep, cluster)
        code, out, err = finished(running)
    print(f"killed after {moment} tasks, with {cut} in training; ended {time.monotonic() - killed_at:.1f} s later")
    assert (code, err) == (0, ""), out
    assert cut
    assert results(sweep) == results(place / "study-results" / "whole")
    assert table(out) == table(printed) != []
    if cluster.isolated:
        assert all(hosts(records_of(sweep)[key])[-1] == "node-one" for key in cut)
    assert_each_step_is_logged_once(f"sqlite:///{home / 'study-results' / 'mlflow.db'}", "killed", 8)


def in_training(sweep, cluster):
    """The trials that the second node is training.

    They have at least one task done and one left to do.
    """
    found = []
    for key, lines in records_of(sweep).items():
        tasks = sum(line["kind"] == "task" for line in lines)
        there = not cluster.isolated or hosts(lines)[-1:] == [cluster.second.name]
        if there and 0 < tasks < 8 and lines[-1]["kind"] != "end":
            found.append(key)
    return found
