"""Results that have moved are read where they are, and written nowhere else."""

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from report_fixtures import Blank, play, sent, tuned
from sweep_fixtures import assert_one_sentence, clean_environment, lines_of

from analysis import load
from study import addresses
from study.cli import options
from study.sweep import optuna_storage, storage
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.record import TrialHistory
from study.tracking import artifacts, store, tracker

ODD = "-x/~y/it's 100% [b]#1? %20&=;\"é大"
"""A path whose folders' names are unlike any that needs no quotes."""


def small(directory, name="made"):
    """A sweep of two trials in the store beside it."""
    folder = tuned(directory, name, tasks=3, scenarios=["class_pairs"], methods=["sgd"], trials=2)
    play(folder)
    return sent(folder)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    directory = tmp_path_factory.mktemp("template") / "study-results"
    small(directory)
    return directory


@pytest.fixture
def first(template, here):
    """The results where they were made: their addresses lead there."""
    directory = here / "first" / "study-results"
    directory.parent.mkdir()
    shutil.copytree(template, directory)
    artifacts.settle(store.default_uri(directory), SweepFolder.open(directory, "made"))
    return directory


def content(directory):
    """Every file, what is in it and when it was last written."""
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b"")
        for path in sorted(directory.rglob("*"))
    }


def addresses_of(directory, name="made"):
    """Where MLflow would write artifacts of a sweep, and which of each run it has."""
    client = MlflowClient(store.default_uri(directory))
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id])
    places = [addresses.local_folder(address) for address in (run.info.artifact_uri for run in runs)]
    listed = [{file.path for file in client.list_artifacts(run.info.run_id)} for run in runs]
    return [addresses.local_folder(experiment.artifact_location), *places], listed


def assert_written_in(directory, name="made"):
    places, listed = addresses_of(directory)
    assert all(place.is_relative_to(directory.resolve() / name / "mlflow-artifacts") for place in places)
    assert all({"tables", "figures"} <= names for names in listed)


MOVES = {
    "moved": lambda first, here: first.rename(here / "second"),
    "moved into a folder of an odd name": lambda first, here: first.rename(odd(here) / "results"),
    "copied": lambda first, here: Path(shutil.copytree(first, here / "second")),
}


def odd(here):
    (here / ODD).mkdir(parents=True)
    return here / ODD


@pytest.fixture(params=MOVES)
def second(request, first, here):
    """The results in another place, and what must not change in the first one, if it is still there."""
    place = MOVES[request.param](first, here)
    before = content(first.parent)
    yield place
    assert content(first.parent) == before


def test_reading_needs_no_writing(second, here, run, blank_figures, monkeypatch):
    before = content(second)
    monkeypatch.setattr(artifacts, "is_writable", lambda *_: False)
    for words in (
        ("list",),
        ("best", "made"),
        ("export", "made", "--to", here / "winners"),
        ("archive", "made", "--to", here / "archived"),
        ("report", "made", "--to", here / "page"),
    ):
        code, out, err = run(*words, "--dir", second)
        assert (code, err) == (0, ""), words
        assert out
    assert content(second) == before
    assert (here / "winners" / "class_pairs-sgd-000.yaml").is_file() or list((here / "winners").iterdir())
    assert (here / "archived" / "lanes.csv.gz").is_file()
    assert (here / "page" / "report.html").is_file()


def test_a_notebook_reads_it_by_its_address_alone(second):
    sweep = load.sweep("made", store.default_uri(second), diagnosed=True)
    assert len(sweep.finished) == 2
    assert len(sweep.diagnostics)
    assert sweep.notes == ()


def test_what_is_written_goes_to_where_the_folder_is(second, here, run, blank_figures):
    places, _ = addresses_of(second)
    assert not any(place.is_relative_to(second.resolve()) for place in places)
    code, out, err = run("sync", "made", "--dir", second)
    assert (code, err) == (0, "")
    assert_written_in(second)
    code, out, err = run("report", "made", "--dir", second)
    assert code == 0, err
    assert "attached to the sweep's run" in out
    assert list((second / "made" / "mlflow-artifacts").glob("*/artifacts/report/report.html"))
    assert_written_in(second)


def test_a_report_that_is_attached_first_goes_there_too(second, run, blank_figures):
    code, _, err = run("report", "made", "--dir", second)
    assert code == 0, err
    assert list((second / "made" / "mlflow-artifacts").glob("*/artifacts/report/report.html"))
    assert_written_in(second)


def test_mlflow_s_page_finds_everything_in_a_copy_of_what_cannot_be_written(second, monkeypatch):
    before = content(second)
    monkeypatch.setattr(artifacts, "is_writable", lambda *_: False)
    uri = store.default_uri(second)
    with artifacts.browsable(uri, second) as found:
        assert found != uri
        client = MlflowClient(found)
        experiment = client.get_experiment_by_name("made")
        for run in client.search_runs([experiment.experiment_id]):
            place = addresses.local_folder(run.info.artifact_uri)
            assert place.is_relative_to(second.resolve())
            assert (place / "tables").is_dir()
    assert content(second) == before
    assert not addresses.database_file(found).exists()


def test_mlflow_s_page_of_moved_results_that_can_be_written_is_over_the_store_itself(second):
    uri = store.default_uri(second)
    with artifacts.browsable(uri, second) as found:
        assert found == uri
    assert_written_in(second)


def test_a_renamed_sweep_is_known_by_the_name_of_its_folder(first, here, run, blank_figures):
    (first / "made").rename(first / "renamed")
    for words in (("best", "renamed"), ("sync", "renamed"), ("report", "renamed"), ("archive", "renamed")):
        code, _, err = run(*words, "--dir", first)
        assert (code, err) == (0, ""), words
    assert_written_in(first, "renamed")
    assert not (first / "made").exists()
    folder = SweepFolder.open(first, "renamed")
    assert folder.checkpoint_place(folder.execution) == str(first.resolve() / "renamed" / "ray")
    assert folder.command("resume") == f"study resume renamed --dir {first}"


def test_two_copies_do_not_share_a_store(first, here, run):
    """Neither beside each other nor if the store is elsewhere: the runs would be of both."""
    shutil.copytree(first / "made", first / "again")
    elsewhere = addresses.database(here / "elsewhere.db")
    tracker.sync(SweepFolder.open(first, "made"), elsewhere, Blank())
    other = Path(shutil.copytree(first, here / "other"))
    before = content(first)
    for words in (("again", "--dir", first), ("made", "--dir", other, "--tracking-uri", elsewhere)):
        for command in ("sync", "resume"):
            code, out, err = run(command, *words)
            assert_one_sentence(code, out, err)
            assert "is a copy of" in err
            assert "--tracking-uri" in err
    assert content(first) == before
    code, _, err = run("sync", "again", "--dir", first, "--tracking-uri", addresses.database(here / "own.db"))
    assert (code, err) == (0, "")


def test_artifacts_that_a_server_keeps_elsewhere_stay_there(first, here):
    uri = store.default_uri(first)
    kept = (here / "server" / "1").as_uri()
    with sqlite3.connect(first / "mlflow.db") as database:
        database.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'made'", [kept])
    second = first.rename(here / "second")
    uri = store.default_uri(second)
    artifacts.settle(uri, SweepFolder.open(second, "made"))
    assert MlflowClient(uri).get_experiment_by_name("made").artifact_location == kept


CRASH = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("PRAGMA cache_size = 1")
database.execute("UPDATE metrics SET value = -1")
database.execute("UPDATE latest_metrics SET value = -1")
os._exit(9)
"""


def test_a_store_left_in_the_middle_of_a_change_is_read_as_before_it(first):
    uri = store.default_uri(first)
    before = load.sweep("made", uri)
    subprocess.run([sys.executable, "-c", CRASH, first / "mlflow.db"], check=False)
    assert (first / "mlflow.db-journal").stat().st_size
    after = load.sweep("made", uri)
    assert after.lanes.equals(before.lanes)
    assert after.notes == before.notes == ()


def test_a_store_elsewhere_follows_results_that_were_moved(first, here, run):
    elsewhere = addresses.database(here / "elsewhere.db")
    tracker.sync(SweepFolder.open(first, "made"), elsewhere, Blank())
    second = first.rename(here / "second")
    assert len(load.sweep("made", elsewhere, directory=second).finished) == 2
    code, _, err = run("sync", "made", "--dir", second, "--tracking-uri", elsewhere)
    assert (code, err) == (0, "")
    assert not first.exists()
    assert len(load.sweep("made", elsewhere).finished) == 2


def test_places_within_the_results_move_with_them(here):
    first, second = here / "first", here / "second"
    inside = {
        "storage": str(first / "checkpoints"),
        "data_dir": str(first / "data"),
        "tracking_uri": addresses.database(first / "my?.db"),
    }
    folder = tuned(first, "made", tasks=3)
    folder.log("start", execution=Execution(**inside).plain(), directory=str(first))
    place = folder.checkpoint_place(SweepFolder.open(first, "made").execution)
    recorded = folder.recorded_place(f"{place}/session-000/x")
    assert not Path(recorded).is_absolute()
    first.rename(second)
    moved = SweepFolder.open(second, "made")
    assert moved.execution.storage == str(second / "checkpoints")
    assert moved.execution.data_dir == str(second / "data")
    assert addresses.database_file(moved.execution.tracking_uri) == second / "my?.db"
    history = tuned_history(checkpoints=["ray/session-000/y", recorded, "s3://bucket/z"])
    assert moved.checkpoints(history) == [
        "s3://bucket/z",
        f"{moved.checkpoint_place(moved.execution)}/session-000/x",
        str(second / "made" / "ray" / "session-000" / "y"),
    ]


def test_a_log_from_before_results_could_move_is_read_as_it_is(here):
    folder = tuned(here / "first", "made", tasks=3)
    log = folder.root / "sweep.jsonl"
    lines = [{name: value for name, value in line.items() if name != "directory"} for line in lines_of(log)]
    lines[0]["execution"]["storage"] = str(here / "first" / "checkpoints")
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (here / "first").rename(here / "second")
    assert SweepFolder.open(here / "second", "made").execution.storage == str(here / "first" / "checkpoints")


def tuned_history(checkpoints):
    return TrialHistory("k", 0, "s", "m", "tune", {}, {}, 1, {}, checkpoints=checkpoints)


def test_a_relative_address_means_the_folder_of_the_command(first, here, run, monkeypatch):
    for variable in (False, True):
        place = here / f"there {variable}"
        place.mkdir()
        monkeypatch.chdir(place)
        if variable:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
        words = () if variable else ("--tracking-uri", "sqlite:///mine.db")
        code, out, err = run("sync", "made", "--dir", first, *words)
        assert (code, err) == (0, "")
        assert f"sqlite:///{place}/mine.db" in out
        assert (place / "mine.db").is_file()


def test_what_a_sweep_keeps_of_relative_places_is_absolute(here, monkeypatch):
    monkeypatch.setenv("STUDY_DATA", "my data")
    kept = options.new_execution(tracking_uri="sqlite:///mine.db")
    assert kept.data_dir == str(here / "my data")
    assert kept.tracking_uri == f"sqlite:///{here}/mine.db"
    assert storage.check("~checkpoints") == str(here / "~checkpoints")


def test_a_whole_sweep_in_a_folder_of_an_odd_name(here):
    directory = odd(here)
    folder = small(directory)
    optuna_storage.write(folder)
    assert {path.name for path in directory.iterdir()} >= {"made", "mlflow.db"}
    assert (directory / "made" / "optuna.db").is_file()
    assert [path.relative_to(here).parts[0] for path in here.iterdir()] == ["-x"]
    assert len(load.sweep("made", store.default_uri(directory)).finished) == 2
    assert_written_in(directory)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\u2028b", "a\x7f"])
@pytest.mark.parametrize("option", ["--dir", "--data-dir", "--storage", "--tracking-uri"])
def test_a_name_of_several_lines_is_refused(refused, name, option):
    sentence = refused("run", "quickstart", "--dry-run", option, name)
    assert "line break or control character" in sentence
    assert len(sentence) <= 300


READING = """
import sys
from study.cli import main
for words in (["list"], ["best", "made"], ["export", "made", "--to", "out/winners"], ["archive", "made", "--to", "out/a"],
              ["report", "made", "--to", "out/page"], ["sync", "made"], ["resume", "made"], ["export", "made"]):
    sys.argv = ["study", *words, "--dir", "results"]
    try:
        main()
    except SystemExit as end:
        print("code", words, end.code, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a folder read-only")
def test_results_of_a_colleague_can_be_read(template, tmp_path):
    """Bound read-only, since permissions do not bind root."""
    results, mounted = shutil.copytree(template, tmp_path / "theirs"), tmp_path / "mine" / "results"
    mounted.mkdir(parents=True)
    before = content(results)
    script = 'mount --bind "$1" "$2" && mount -o remount,ro,bind "$2" && echo mounted && exec "$3" -c "$4"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", results, mounted, sys.executable, READING]
    try:
        done = subprocess.run(
            command,
            cwd=mounted.parent,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no unshare on this machine, so no read-only folder")
    if "mounted" not in done.stdout:
        pytest.skip(f"a folder cannot be mounted read-only here: {done.stderr}")
    codes = [line.split() for line in done.stdout.splitlines() if line.startswith("code ")]
    told = {" ".join(words[1:-1]): int(words[-1]) for words in codes}
    assert list(told.values()) == [0, 0, 0, 0, 0, 2, 2, 2], done.stderr
    assert "cannot be written" in done.stdout
    sentences = done.stderr.splitlines()
    assert len(sentences) == 3, done.stderr
    assert all("cannot be written" in sentence for sentence in sentences), done.stderr
    assert {path.name for path in (mounted.parent / "out").iterdir()} == {"winners", "a", "page"}
    assert content(results) == before
    assert list(mounted.iterdir()) == []
