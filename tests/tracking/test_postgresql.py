"""MLflow's server over PostgreSQL, with many trials at once."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import mlflow
import pytest
from faults import Site, mlflow_server
from mlflow import MlflowClient
from ports import free_port

pytestmark = [pytest.mark.sweep, pytest.mark.slow, pytest.mark.timeout(600)]

TASKS = 5
SWEEP = (
    *("quickstart", "--trials", 4, "--seeds", 2, "--workers", 8, "--cpus-per-trial", 0.25),
    *("--set", f"tasks/count={TASKS}", "--set", "tasks/images_per_task=320"),
)
"""24 trials, eight at once."""


def binaries():
    """PostgreSQL's folder of programs; None if not installed."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "pg_ctl").exists()), None)


def why_not():
    """Why PostgreSQL cannot run here; None if it can."""
    if binaries() is None:
        return "PostgreSQL is not installed on this machine"
    if importlib.util.find_spec("psycopg2") is None:
        return "psycopg2 is not installed"
    if os.geteuid() == 0 and not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        return "PostgreSQL does not run as root, and there is no user postgres"
    return None


needed = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture
def place():
    """A folder that PostgreSQL's own user may enter; another run of pytest would take that right from those above it."""
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        yield Path(name)


@pytest.fixture
def database(place):
    """The address of an empty database in its own cluster."""
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    if user:
        os.chown(place, user.pw_uid, user.pw_gid)
    port, data = free_port(), place / "data"

    def run(program, *words):
        command = [str(binaries() / program), *map(str, words)]
        done = subprocess.run(
            command,
            cwd=place,
            user=user and user.pw_uid,
            group=user and user.pw_gid,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    run("initdb", "-D", data, "-A", "trust", "-U", "study", "-E", "UTF8", "--no-sync")
    options = f"-h 127.0.0.1 -p {port} -k {place} -c fsync=off"
    run("pg_ctl", "-D", data, "-w", "-l", place / "log", "-o", options, "start")
    try:
        run("createdb", "-h", "127.0.0.1", "-p", port, "-U", "study", "mlflow")
        yield f"postgresql+psycopg2://study@127.0.0.1:{port}/mlflow"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "stop")


@needed
@pytest.mark.alone
def test_eight_trials_at_once_log_to_a_server_over_postgresql_and_no_step_is_lost_or_doubled(tmp_path, database):
    with mlflow_server(tmp_path / "mlflow", database) as server:
        site = Site(tmp_path, "served", *SWEEP, "--tracking-uri", server.uri)
        site.finish()
        client = MlflowClient(server.uri)
        mlflow.set_tracking_uri(server.uri)
        runs = mlflow.search_runs(
            experiment_names=["served"], filter_string="tags.role = 'trial'", output_format="list"
        )
        records = site.results()
        assert {run.data.tags["trial"] for run in runs} == set(records)
        assert len(runs) == len(records) == 24
        for run in runs:
            assert run.info.status == "FINISHED"
            for lane in range(2):
                history = client.get_metric_history(run.info.run_id, f"accuracy/test/lane_{lane}")
                told = [task["lanes"]["accuracy/test"][lane] for task in records[run.data.tags["trial"]][1]]
                assert [(metric.step, metric.value) for metric in history] == list(enumerate(told))
    (logged,) = [line for line in site.log() if line["kind"] == "logged"]
    assert logged["complete"]
    (begun,) = [line["at"] for line in site.log() if line["kind"] == "start"]
    spent = logged["at"] - begun
    print(f"logging took {logged['seconds']:.1f} s of a thread, all was logged after {spent:.1f} s")
    assert logged["seconds"] < 0.8 * spent, "MLflow does not keep the driver busy all the time"
    assert len(site.kinds("lost")) == 0
