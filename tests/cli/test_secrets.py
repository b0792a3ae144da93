"""A password in an address gets into no file and onto no screen."""

import json
from pathlib import Path

import pytest
from report_fixtures import Blank
from shared import lay_database
from store_faults import PASSWORD, USER, played, served
from sweep_fixtures import assert_one_sentence, folder_of, lines_of, plan_of, run_all

from study import redaction
from study.cli import pictures
from study.tracking.store import default_uri

SMALL = (
    *("--scenario", "class_pairs", "--method", "sgd", "--trials", 2, "--seeds", 2, "--set", "tasks/count=3"),
    *("--set", "tasks/images_per_task=200"),
)


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Nothing is remembered from one command to the next: `forget` begins a new one."""

    def forget():
        for name in ("_given", "_recorded", "_secrets"):
            getattr(redaction, name).clear()

    forget()
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    yield forget
    forget()


@pytest.fixture
def command(run, forgetful):
    """Runs a command as in a new process, and sees to it that nothing shows the password."""

    def call(*words):
        forgetful()
        code, out, err = run(*words)
        assert PASSWORD not in out + err
        return code, out, err

    return call


def assert_nowhere(folder):
    holding = [path for path in folder.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]
    assert holding == []


@pytest.mark.timeout(300)
def test_a_password_in_a_servers_address_is_used_and_nowhere_kept(
    tmp_path_factory, here, command, monkeypatch, blank_figures
):
    store = tmp_path_factory.mktemp("store")
    played(monkeypatch)
    monkeypatch.setattr(pictures, "Pictures", Blank)
    with served(lay_database(store), store / "artifacts") as server:
        server.wants_password = True
        option = ("--tracking-uri", server.with_password)
        code, out, err = command("run", "quickstart", *SMALL, *option)
        assert code == 0, err
        assert f"MLflow store: {server.uri}" in out
        assert "kept nowhere; later commands find it in MLFLOW_TRACKING_USERNAME" in err
        code, out, err = command("resume", "quickstart", "--trials", 4)
        assert_one_sentence(code, out, err)
        assert "MLFLOW_TRACKING_PASSWORD" in err
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.with_password)
        code, _, err = command("resume", "quickstart", "--trials", 3)
        assert (code, err) == (0, "")
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        for words in (
            ("confirm", "quickstart", "--seeds", 2, *option),
            ("sync", "quickstart", *option),
            ("ui", "quickstart", *option),
            ("report", "quickstart", *option),
            ("archive", "quickstart", *option),
            ("export", "quickstart", "--to", "winners"),
            ("list",),
        ):
            code, out, err = command(*words)
            assert code == 0, (words, err)
        assert server.uri in (here / "study-results" / "quickstart" / "report" / "report.html").read_text()
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
        for words in (("sync", "quickstart"), ("ui", "quickstart"), ("report", "quickstart"), ("export", "quickstart")):
            assert_one_sentence(*(refusal := command(*words)))
            assert "MLFLOW_TRACKING_PASSWORD" in refusal[2]
    assert_nowhere(here)
    assert_nowhere(store)


BAD = [
    ("--tracking-uri", f"http://{USER}:{PASSWORD}@127.0.0.1:9"),
    ("--tracking-uri", f"http://{USER}:{PASSWORD}@/"),
    ("--tracking-uri", f"http://{USER}:p@{PASSWORD}@127.0.0.1:9"),
    ("--tracking-uri", f"http://{USER}:p/{PASSWORD}@127.0.0.1:9"),
    ("--tracking-uri", f"http://127.0.0.1:{PASSWORD}"),
    ("--tracking-uri", f"ftp://{USER}:{PASSWORD}@host"),
    ("--tracking-uri", f"postgresql+nosuchdriver://{USER}:{PASSWORD}@127.0.0.1:9/mlflow"),
    ("--tracking-uri", f"nosuch+driver://{USER}:{PASSWORD}@127.0.0.1:9/mlflow?password={PASSWORD}"),
    ("--storage", f"s3://{USER}:{PASSWORD}@bucket/prefix"),
    ("--storage", f"s3://bucket/prefix?secret_key={PASSWORD}"),
    ("--address", f"{USER}:{PASSWORD}@host:6379"),
    ("--address", f"ray://{USER}:{PASSWORD}@host:10001"),
    ("--address", f"ray://host:10001?token={PASSWORD}"),
]


@pytest.mark.parametrize("option", BAD, ids=lambda option: " ".join(option).replace(PASSWORD, "PW"))
def test_a_refusal_does_not_repeat_the_password(refused, option):
    sentence = refused("run", "quickstart", *option)
    assert PASSWORD not in sentence
    assert len(sentence) <= 300


@pytest.mark.parametrize("address", [f"http://{USER}:{PASSWORD}@127.0.0.1:9", f"nosuch+x://{USER}:{PASSWORD}@host/db"])
def test_the_password_in_an_earlier_versions_log_is_not_shown(here, command, address):
    log = run_all(folder := folder_of(here / "study-results")) and folder.root / "sweep.jsonl"
    first, *others = lines_of(log)
    first["execution"]["tracking_uri"] = address
    log.write_text("".join(json.dumps(line) + "\n" for line in (first, *others)))
    for word in ("sync", "ui", "report", "export", "resume"):
        assert_one_sentence(*command(word, "made"))


def test_a_database_password_of_an_earlier_log_is_still_used_and_written_no_more(here, monkeypatch):
    folder = folder_of(here / "study-results", plan_of())
    log = folder.root / "sweep.jsonl"
    first, *others = lines_of(log)
    first["execution"]["tracking_uri"] = f"postgresql://{USER}:{PASSWORD}@db/mlflow"
    log.write_text("".join(json.dumps(line) + "\n" for line in (first, *others)))
    before = len(log.read_bytes())
    folder = type(folder).open(here / "study-results", "made")
    assert folder.execution.tracking_uri == f"postgresql://{USER}@db/mlflow"
    assert redaction.completed(folder.execution.tracking_uri) == first["execution"]["tracking_uri"]
    folder.begin_session(folder.execution, folder.execution)
    assert PASSWORD.encode() not in log.read_bytes()[before:]
    assert default_uri(here / "study-results").startswith("sqlite:///")


def test_ray_keeps_the_command_without_its_password(monkeypatch):
    """It writes it into its logs and shows it on its dashboard."""
    from ray._private import utils, worker

    from study.cluster import connection

    assert "ray._private.utils.get_entrypoint_name()" in Path(worker.__file__).read_text(encoding="utf-8")
    command = f"study run quickstart --tracking-uri http://{USER}:{PASSWORD}@host --workers 1"
    monkeypatch.setattr(utils, "get_entrypoint_name", lambda: command)
    connection._hide_secrets_of_command()
    assert utils.get_entrypoint_name() == "study run quickstart --tracking-uri http://host --workers 1"
