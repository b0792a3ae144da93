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

import mlflow
import outside_parts
import pytest
from mlflow import MlflowClient
from nodes import family, finished, kill_family, listening, two_nodes, wait_until, why_not_isolated
from sweep_fixtures import REPOSITORY, assert_one_sentence, clean_environment, records_of, tasks_of

pytestmark = [pytest.mark.sweep, pytest.mark.slow, pytest.mark.timeout(300)]

isolated = pytest.mark.skipif(why_not_isolated() is not None, reason=f"nodes share a machine: {why_not_isolated()}")

GRID = (
    *("run", "paper_grid", "--scenario", "class_pairs", "--seeds", 2, "--set", "data/name=mnist5k"),
    *("--set", "tasks/count=8", "--set", "tasks/images_per_task=800", "--set", "training/passes=8"),
    *(
        "--set",
        f"model/name={REPOSITORY / 'study' / 'models' / 'mlp.py'}",
        "--set",
        "interventions/damping/shrink=0.99",
    ),
)
"""With parts from outside: a file, which travels by itself, and an intervention of an installed package."""

LONG = (*GRID, "--method", "sgd", "--set", "training/passes=80")
"""Two trials, each long enough for a checkpoint in the middle."""

KEYS = {
    "AWS_ACCESS_KEY_ID": "anybody",
    "AWS_SECRET_ACCESS_KEY": "anything",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What a client of S3 must have; the S3 of these tests asks nobody who he is."""


def results(sweep):
    """The repeatable part of each trial: configuration and task results."""
    return {key: (lines[0]["config"], tasks_of(lines)) for key, lines in records_of(sweep).items()}


def outcomes(sweep):
    """The outcome of each trial's last attempt."""
    return {key: lines[-1].get("outcome") for key, lines in records_of(sweep).items()}


def hosts(lines):
    """The hosts on which a trial was trained, in order."""
    return [line["facts"]["host"] for line in lines if line["kind"] == "facts"]


def table(text):
    """The rows of the tables that a sweep prints."""
    return re.findall(r"^(?:sgd|sam|gnp) +lr=.+$", text, re.MULTILINE)


def assert_each_step_is_logged_once(uri, name, tasks):
    """MLflow has one finished run per trial, each step once."""
    mlflow.set_tracking_uri(uri)
    runs = mlflow.search_runs(experiment_names=[name], filter_string="tags.role = 'trial'", output_format="list")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.data.tags["trial"] for run in runs}) == len(runs) > 0
    for run in runs:
        history = MlflowClient().get_metric_history(run.info.run_id, "accuracy/test")
        assert [metric.step for metric in history] == list(range(tasks))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same points in sweeps on this machine alone.

    Returns their folder, the output of the first, and the addresses at which its processes listened.
    """
    place = tmp_path_factory.mktemp("alone")
    outside_parts.install(place / "site")
    environment = clean_environment(PYTHONPATH=os.pathsep.join(map(str, (REPOSITORY, place / "site"))))
    command = [sys.executable, "-m", "study", *map(str, GRID), "--workers", "2", "--name", "whole"]
    heard = set()
    with subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        while running.poll() is None and task_count(place / "study-results" / "whole") < 12:
            heard |= listening(family(running.pid))
            time.sleep(0.2)
        code, out, err = finished(running)
    assert (code, err) == (0, "")
    return place, out, heard


def task_count(sweep):
    """Number of recorded tasks of all trials."""
    return sum(len(tasks_of(lines)) for lines in records_of(sweep).values())


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Two nodes with Ray.

    The second has only the packages of the training core, and neither our HOME nor our data.
    """
    bare = ("mlflow", "optuna", "mlxtend", "torchvision")
    with two_nodes(tmp_path_factory.mktemp("nodes"), bare, {"RAY_AUTH_MODE": "disabled"}) as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes):
    """Both nodes up."""
    nodes.start()
    return nodes


def test_a_local_sweep_listens_on_the_loopback_address_alone(alone):
    _, _, heard = alone
    assert len(heard) > 3  # Ray's own
    assert [address for address in sorted(heard) if not address.startswith("127.")] == []


@isolated
@pytest.mark.alone  # on a busy machine the first node may be done before the second has started
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


@pytest.mark.alone  # as above
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
