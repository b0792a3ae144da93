"""What deletes asks first, and refuses what it does not own."""

import io
import json
import shutil
import sys

import pytest
from analysis_fixtures import sent_sweep
from report_fixtures import confirmed
from shared import lay_database, once
from sweep_fixtures import assert_one_sentence, folder_of, lines_of, plan_of, run_all, train

from study.sweep.conductor import Conductor
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.tracking.client import connect


def contents(place):
    """All paths below a folder, with the content of files; what the commands lock is left out."""
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in place.rglob("*")
        if path.name not in (".lock", ".mlflow.lock") and not path.is_symlink()
    }


def with_checkpoints(sweep, keys=()):
    """Adds Ray's files, with a checkpoint for each of these trials."""
    session = sweep.root / "ray" / sweep.begin_session(sweep.execution, sweep.execution)
    for attempt, key in enumerate(keys, 1):
        checkpoint = session / f"{key}.{attempt}" / "checkpoint_000000"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state").write_bytes(b"x" * 1000)
    session.mkdir(parents=True, exist_ok=True)
    (session / "experiment_state.json").write_text("{}")
    return session


@pytest.fixture
def sweep(here):
    """A finished sweep with checkpoints, without MLflow."""
    folder = folder_of(here / "study-results", plan_of("first"))
    run_all(folder)
    with_checkpoints(folder, [history.key for history in folder.histories()])
    return folder


@pytest.fixture
def answered(monkeypatch):
    """Sits at a terminal and answers."""

    def answer(word):
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{word}\n"))
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)

    return answer


@pytest.mark.parametrize("command", ["delete", "clean"])
def test_nothing_goes_before_the_user_has_agreed(sweep, run, answered, command):
    before = contents(sweep.root)
    code, out, err = run(command, "first")  # nobody is there to answer
    assert_one_sentence(code, out, err)
    assert "--yes" in err
    answered("n")
    code, out, _ = run(command, "first")
    assert (code, contents(sweep.root)) == (1, before)
    assert out.endswith("Nothing was deleted.\n")


def test_a_user_who_agrees_has_the_sweep_deleted(sweep, run, answered):
    answered("y")
    code, out, _ = run("delete", "first")
    assert code == 0
    assert "4 of 4 trials done, finished since" in out
    assert [path for path in sweep.directory.iterdir() if path.name != ".mlflow.lock"] == []


PATHS = ["../first", "study-results/first", "..", ".", "", "/first", "first/../first", "first/", "a\nb"]


@pytest.mark.parametrize("command", ["delete", "clean"])
def test_a_name_that_is_a_path_is_refused(sweep, here, run, command):
    shutil.copytree(sweep.root, here / "first")
    before = contents(here)
    for name in PATHS:
        code, out, err = run(command, name, "--yes")
        assert_one_sentence(code, out, err)
        assert "cannot be a name" in err
        assert contents(here) == before


LINKS = {
    "the sweep": lambda root, target: (root.rename(target / "moved"), root.symlink_to(target / "moved")),
    "its checkpoints": lambda root, target: (
        (root / "ray").rename(target / "moved"),
        (root / "ray").symlink_to(target),
    ),
    "a file among its checkpoints": lambda root, target: (root / "ray" / "session-000" / "link").symlink_to(
        target / "kept"
    ),
    "a folder of a checkpoint": lambda root, target: next(root.glob("ray/*/*.1")).joinpath("link").symlink_to(target),
}


@pytest.mark.parametrize("command", ["delete", "clean"])
@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_links_are_refused_and_what_they_lead_to_stays(sweep, here, run, command, link):
    target = here / "elsewhere"
    target.mkdir()
    (target / "kept").write_text("mine")
    link(sweep.root, target)
    before = contents(here)
    code, out, err = run(command, "first", "--yes")
    assert_one_sentence(code, out, err)
    assert "link" in err
    assert contents(here) == before


@pytest.mark.parametrize("strange", ["notes.txt", "second/sweep.jsonl", "trials/class_pairs-sgd-000/notes.txt"])
def test_a_folder_with_something_else_in_it_is_not_deleted(sweep, refused, here, strange):
    path = sweep.root / strange
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    (sweep.root / ".lock").touch()
    assert "was not written by the study" in refused("delete", "first", "--yes")


@pytest.mark.parametrize("command", ["delete", "clean"])
def test_a_running_sweep_is_left_alone(sweep, refused, command):
    with sweep.locked():
        assert "is running" in refused(command, "first", "--yes")


@pytest.mark.parametrize("command", ["delete", "clean"])
def test_a_sweep_that_is_not_there_is_refused(sweep, refused, command):
    assert "There is no sweep 'frist' in 'study-results'; did you mean 'first'?" in refused(command, "frist", "--yes")


def test_checkpoints_elsewhere_go_with_the_sweep_and_nothing_beside_them(here, run):
    storage = here / "storage"
    execution = Execution(data_dir="data", storage=str(storage))
    plan = plan_of("first")
    sweep = SweepFolder.create(here / "study-results", plan, execution, {"class_pairs": 3})
    own = storage / f"first-{sweep.identity}"
    for place in (own, storage / "first-0123456789abcdef"):
        (place / "session-000").mkdir(parents=True)
        (place / "session-000" / "state").write_text("x")
    sweep.begin_session(
        sweep.execution.model_copy(update={"storage": None}), sweep.execution
    )  # resumed without storage
    code, out, _ = run("delete", "first", "--yes")
    assert code == 0
    assert f"deletes {own}" in out
    assert list(storage.iterdir()) == [storage / "first-0123456789abcdef"]


def test_a_damaged_sweep_can_be_deleted_but_not_cleaned(sweep, refused, run):
    (sweep.root / ".lock").touch()
    record = sweep.root / "trials" / "class_pairs-sgd-000" / "record.jsonl"
    record.write_text(record.read_text() + "nonsense\n")
    assert "restore this file" in refused("clean", "first", "--yes")
    code, out, _ = run("delete", "first", "--yes")
    assert (code, sweep.root.exists()) == (0, False)
    assert "cannot be read" in out


def test_what_a_confirmation_loses_is_said(sweep, run):
    confirmed(sweep, "sure", seeds=2)
    code, out, _ = run("delete", "first", "--yes")
    assert code == 0
    assert "its confirmation 'sure' stays, but can no longer be reported" in out
    assert sweep.directory.joinpath("sure", "sweep.jsonl").is_file()


def test_cleaning_keeps_what_unfinished_trials_continue_from(here, run):
    sweep = folder_of(here / "study-results", plan_of("first"))
    conductor = Conductor(sweep)
    done, half, lost = (conductor.propose() for _ in range(3))
    train(conductor, done)
    train(conductor, half, tasks=1)
    session = with_checkpoints(sweep, [done.key, half.key, "class_pairs-sgd-001"])
    conductor.checkpointed(half.key, str(session / f"{half.key}.2" / "checkpoint_000000"))
    conductor.started(lost.key)
    code, out, _ = run("clean", "first", "--yes")
    assert code == 0
    assert "the checkpoints of the 3 trials that are not done stay" in out
    assert [path.name for path in session.iterdir()] == [f"{half.key}.2"]
    again = Conductor(sweep)
    assert [history.key for history in iter(again.propose, None)][:2] == [half.key, lost.key]
    assert (session / f"{half.key}.2" / "checkpoint_000000" / "state").is_file()
    assert again.checkpoints_of(half.key) == [str(session / f"{half.key}.2" / "checkpoint_000000")]


def test_a_cleaned_sweep_keeps_its_records_and_can_be_searched_longer(sweep, run):
    records = contents(sweep.root / "trials")
    code, out, _ = run("clean", "first", "--yes")
    assert code == 0
    assert "0.0 MB in 5 files" in out
    assert (contents(sweep.root / "trials"), list((sweep.root / "ray").iterdir())) == (records, [])
    assert run("clean", "first")[1] == "first: there is nothing to clean.\n"
    sweep.log("budget", trials=3)
    longer = SweepFolder.open(sweep.directory, "first")
    assert longer.begin_session(longer.execution, longer.execution) == "session-001"
    assert [history.outcome for history in run_all(longer)] == ["finished"] * 6
    assert records.items() <= contents(longer.root / "trials").items()


def test_what_is_not_of_a_start_among_the_checkpoints_is_not_cleaned(sweep, run):
    kept = sweep.root / "ray" / "mine"
    kept.write_text("mine")
    assert run("clean", "first", "--yes")[0] == 0
    assert list((sweep.root / "ray").iterdir()) == [kept]


@pytest.fixture
def logged(here):
    """A finished sweep in MLflow, beside another one that is not looked at."""

    def make(place):
        for name in ("first", "other"):
            sent_sweep(place, lay_database(place), name, methods=["sgd"], trials=1)

    shutil.copytree(once("two-sent", make), here / "study-results")
    return SweepFolder.open(here / "study-results", "first"), connect(lay_database(here / "study-results"))


def test_the_runs_of_the_sweep_go_and_no_others_and_its_name_is_free_again(logged, here, run):
    sweep, client = logged
    other, identity = client.get_experiment_by_name("other"), sweep.identity
    runs = [run.info.run_id for run in client.search_runs([other.experiment_id])]
    code, out, _ = run("delete", "first", "--yes")
    assert code == 0
    assert "deletes its 2 runs in MLflow" in out
    assert sorted(e.name for e in client.search_experiments()) == ["Default", "other"]
    assert [run.info.run_id for run in client.search_runs([other.experiment_id])] == runs
    assert contents(here / "study-results" / "other")
    again = sent_sweep(here / "study-results", lay_database(here / "study-results"), "first", methods=["sgd"], trials=1)
    assert client.get_experiment_by_name("first").tags["sweep_identity"] == again.identity != identity


def test_runs_that_the_sweep_did_not_make_and_models_are_not_deleted(logged, run):
    sweep, client = logged
    experiment = client.get_experiment_by_name("first")
    foreign = client.create_run(experiment.experiment_id, run_name="mine").info.run_id
    code, out, err = run("delete", "first", "--yes")
    assert_one_sentence(code, out, err)
    assert "1 runs that are not the sweep's, such as 'mine'" in err
    client.delete_run(foreign)
    client.create_registered_model("first-class_pairs")
    own = client.search_runs([experiment.experiment_id])[0].info.run_id
    client.create_model_version("first-class_pairs", sweep.root.as_uri(), own)
    code, out, err = run("delete", "first", "--yes")
    assert_one_sentence(code, out, err)
    assert "registered model first-class_pairs 1" in err
    assert len(sweep.histories()) == len(lines_of(sweep.root / "sweep.jsonl")) == 1


def test_runs_of_a_copied_sweep_and_runs_to_keep_stay(logged, run):
    sweep, client = logged
    shutil.copytree(sweep.root, sweep.directory / "copy")
    code, out, _ = run("delete", "copy", "--yes")
    assert code == 0
    assert "MLflow's runs stay" in out
    assert run("delete", "first", "--yes", "--keep-runs")[0] == 0
    assert len(client.search_runs([client.get_experiment_by_name("first").experiment_id])) == 2


def test_exported_files_as_json_name_their_runs(logged, here, run):
    code, out, err = run("export", "first", "--json")
    assert (code, err) == (0, "")
    (listed,) = json.loads(out)["files"]
    assert (here / listed["file"]).is_file()
    assert listed["trial"] == "class_pairs-sgd-000"
    assert logged[1].get_run(listed["mlflow_run_id"]).data.tags["trial"] == "class_pairs-sgd-000"


def test_a_store_that_is_away_keeps_the_sweep(sweep, refused):
    (sweep.root / ".lock").touch()
    assert "No MLflow server answers" in refused("delete", "first", "--yes", "--tracking-uri", "http://127.0.0.1:9")
