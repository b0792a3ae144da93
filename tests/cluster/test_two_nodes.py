"""Real sweeps over a cluster of two nodes.

Some lose a part of the cluster.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time

import outside_parts
import pytest
from nodes import finished, kill_family, two_nodes, wait_until, why_not_isolated
from sweep_fixtures import REPOSITORY, assert_one_sentence, clean_environment, records_of
from two_node_sweep import GRID, assert_each_step_is_logged_once, hosts, results, table, task_count

pytestmark = [pytest.mark.sweep, pytest.mark.slow, pytest.mark.timeout(300)]

isolated = pytest.mark.skipif(why_not_isolated() is not None, reason=f"nodes share a machine: {why_not_isolated()}")

LONG = (*GRID, "--method", "sgd", "--set", "training/passes=80")
"""Two trials, each long enough for a checkpoint in the middle."""

KEYS = {
    "AWS_ACCESS_KEY_ID": "anybody",
    "AWS_SECRET_ACCESS_KEY": "anything",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a client of S3 must have; the S3 of these tests asks nobody who he is."""


def outcomes(sweep):
    """The outcome of each trial's last attempt."""
    return {key: lines[-1].get("outcome") for key, lines in records_of(sweep).items()}


def test_a_local_sweep_listens_on_the_loopback_address_alone(alone):
    _, _, heard = alone
    assert len(heard) > 3  # Ray's own
    assert [address for address in heard if not address.startswith("127.")] == []


def test_a_dry_run_sees_how_many_trials_fit_on_the_cluster_and_leaves_nothing_behind(cluster):
    home = cluster.shared / "dry"
    home.mkdir()
    done = cluster.head.study(*GRID, "--dry-run", "--address", "auto", cwd=home)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 at once, 1 thread each" in done.stdout
    assert "The cluster's nodes may be faster or slower than this machine." in done.stdout
    assert list(home.iterdir()) == []
    storage = home / "nowhere" / "file"
    storage.parent.mkdir()
    storage.write_text("")
    refused = cluster.head.study(*GRID, "--dry-run", "--address", "auto", "--storage", storage, cwd=home)
    assert_one_sentence(refused.returncode, refused.stdout, refused.stderr)


def test_the_second_node_has_neither_mlflow_nor_optuna_nor_data(cluster):
    assert cluster.second.can("import torch, ray.tune, study.cluster.worker")
    for package in ("mlflow", "optuna", "mlxtend", "torchvision"):
        assert not cluster.second.can(f"import {package}")
    assert cluster.head.can("import mlflow, optuna")
    assert not cluster.isolated or list(cluster.second.seen(cluster.second.local).iterdir()) == []


@isolated
@pytest.mark.parametrize("given", [(), ("--storage", "here/checkpoints")], ids=["none", "local"])
def test_a_storage_that_one_node_cannot_reach_is_refused(cluster, given):
    local = cluster.head.seen(cluster.head.local)
    before = sorted(cluster.shared.rglob("*"))
    kept = sorted(path for path in local.rglob("*") if ".ray" not in path.parts)
    done = cluster.head.study(*GRID, "--name", "no", "--address", "auto", *given, cwd=cluster.head.local)
    assert_one_sentence(done.returncode, done.stdout, done.stderr)
    assert "--storage" in done.stderr
    assert "node-two" in done.stderr or cluster.second.address in done.stderr
    assert sorted(cluster.shared.rglob("*")) == before
    assert sorted(path for path in local.rglob("*") if ".ray" not in path.parts) == kept
    assert sorted(cluster.second.seen(cluster.second.local).rglob("checkpoints")) == []


@pytest.fixture(scope="module")
def long_alone(tmp_path_factory):
    """The two long trials on this machine alone."""
    place = tmp_path_factory.mktemp("long")
    outside_parts.install(place / "site")
    environment = clean_environment(PYTHONPATH=os.pathsep.join(map(str, (REPOSITORY, place / "site"))))
    command = [sys.executable, "-m", "study", *map(str, LONG), "--name", "long"]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return results(place / "study-results" / "long")


@isolated
def test_a_killed_worker_goes_on_from_its_checkpoint_in_s3(nodes, long_alone):
    pytest.importorskip("moto")
    nodes.second.kill()
    nodes.head.kill()
    nodes.start_head(**KEYS)
    nodes.start_second(**KEYS)
    home = nodes.shared / "with-s3"
    home.mkdir()
    log = home / "s3.log"
    with nodes.head.popen("moto.server", "-H", nodes.head.address, "-p", 5555, cwd=home, log=log) as s3:
        try:
            url = f"http://{nodes.head.address}:5555"
            query = f"endpoint_override={nodes.head.address}:5555&scheme=http"
            make = f"import urllib.request as u; u.urlopen(u.Request('{url}/bucket', method='PUT'))"
            wait_until(lambda: nodes.head.can(make), "an S3 server")
            words = (*LONG, "--name", "s3", "--address", "auto", "--storage", f"s3://bucket/study?{query}")
            sweep = home / "study-results" / "s3"
            with nodes.head.popen("study", *words, cwd=home, environment=KEYS) as running:
                wait_until(lambda: resumable(sweep) or running.poll() is not None, "a checkpoint in the middle", 120)
                cut = resumable(sweep)
                assert cut, finished(running)
                asked = len(re.findall(r"GET \S*state\.pt", log.read_text()))
                node = nodes.second if hosts(records_of(sweep)[cut[0]])[-1] == nodes.second.name else nodes.head
                (worker,) = node.workers()
                os.kill(worker, signal.SIGKILL)
                code, out, err = finished(running)
        finally:
            kill_family(s3.pid)
    assert (code, err) == (0, ""), out
    assert results(sweep) == long_alone
    assert len(re.findall(r"GET \S*state\.pt", log.read_text())) > asked
    starts = {key: sum(line["kind"] == "start" for line in lines) for key, lines in records_of(sweep).items()}
    assert max(starts.values()) == 2
    assert sorted(path.name for path in nodes.shared.rglob("state.pt") if "with-s3" in path.parts) == []


def resumable(sweep):
    """The unfinished trials that have a checkpoint."""
    return [
        key
        for key, lines in records_of(sweep).items()
        if any(line["kind"] == "checkpoint" for line in lines) and lines[-1]["kind"] != "end"
    ]


def test_a_sweep_whose_head_is_killed_ends_by_itself_and_can_be_resumed(cluster, alone):
    place, printed, _ = alone
    home = cluster.shared / "beheaded"
    home.mkdir()
    sweep = home / "study-results" / "beheaded"
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    moment = random.Random(seed).randint(1, 24)
    with cluster.head.popen("study", *GRID, "--name", "beheaded", "--address", "auto", cwd=home) as running:
        wait_until(lambda: task_count(sweep) >= moment or running.poll() is not None, f"{moment} tasks", 120)
        cluster.head.kill()
        killed_at = time.monotonic()
        code, out, err = finished(running, 90)
    print(f"ended {time.monotonic() - killed_at:.1f} s after the head's death: exit code {code}, {err!r}")
    assert code == 1, out
    assert "Traceback" not in out + err
    whole = results(place / "study-results" / "whole")
    before = {path: path.read_bytes() for path in sweep.glob("trials/*/record.jsonl")}
    assert 0 < sum(len(tasks) for _, tasks in results(sweep).values()) < 8 * len(whole)

    cluster.second.kill()
    cluster.start()
    resumed = cluster.head.study("resume", "beheaded", "--address", "auto", cwd=home)
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert results(sweep) == whole
    assert table(resumed.stdout) == table(printed)
    assert all(path.read_bytes().startswith(content) for path, content in before.items())
    assert_each_step_is_logged_once(f"sqlite:///{home / 'study-results' / 'mlflow.db'}", "beheaded", 8)


@isolated
def test_the_token_of_a_cluster_is_found_where_ray_keeps_it(tmp_path):
    small = (*GRID, "--method", "sgd", "--set", "tasks/count=2", "--address", "auto")
    with two_nodes(tmp_path, ("mlflow", "optuna")) as cluster:
        for node in (cluster.head, cluster.second):
            place = node.seen(node.local) / ".ray"
            place.mkdir()
            (place / "auth_token").write_text("a5" * 32)
        cluster.start_head()
        cluster.start_second(RAY_AUTH_MODE="token")
        found = cluster.head.study(*small, "--name", "found", cwd=cluster.shared)
        assert (found.returncode, found.stderr) == (0, "")
        assert set(outcomes(cluster.shared / "study-results" / "found").values()) == {"finished"}

        (cluster.shared / "home").mkdir()
        lost = cluster.head.study(
            *small, "--name", "lost", cwd=cluster.shared, environment={"HOME": str(cluster.shared / "home")}
        )
        assert_one_sentence(lost.returncode, lost.stdout, lost.stderr)
        assert "token" in lost.stderr
        assert not (cluster.shared / "study-results" / "lost").exists()
