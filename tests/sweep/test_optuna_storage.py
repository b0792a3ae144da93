"""Optuna's storage of a sweep agrees with its records."""

import optuna
import pytest
from analysis_fixtures import sent_sweep
from optuna.distributions import CategoricalDistribution
from report_fixtures import play, tuned
from shared import lay_database
from sweep_fixtures import folder_of, plan_of

from search_spaces import Method, SearchSpace
from study.errors import StudyError
from study.sweep import optuna_storage
from study.sweep.conductor import Conductor
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.search_plan import make_plan

STATES = {"finished": "COMPLETE", "failed": "FAIL", "running": "RUNNING", "waiting": "RUNNING", "stopped": "PRUNED"}


def studies(path):
    """The studies of a storage, by name."""
    uri = f"sqlite:///{path}"
    names = optuna.get_all_study_names(uri)
    return {name: optuna.load_study(study_name=name, storage=uri) for name in names}


def assert_holds(path, folder):
    """Every trial is there once, complete.

    With its settings, values, intermediate values and state.
    """
    found = studies(path)
    assert list(found) == [f"{folder.plan.name}/{group.label}" for group in folder.plan.groups]
    histories = folder.histories()
    assert histories
    for group in folder.plan.groups:
        own = sorted((one for one in histories if one.group == group.label), key=lambda one: one.number)
        trials = found[f"{folder.plan.name}/{group.label}"].trials
        assert [trial.user_attrs["trial"] for trial in trials] == [history.key for history in own]
        for trial, history in zip(trials, own, strict=True):
            assert trial.state.name == STATES[history.outcome]
            assert trial.params == {
                name: value if isinstance(value, int | float) else str(value) for name, value in history.tried.items()
            }
            assert trial.intermediate_values == {
                line["task"] + 1: line["metrics"]["objective"] for line in history.tasks
            }
            if history.outcome == "finished":
                assert trial.values == [history.summary["summary/objective"]]
                assert trial.user_attrs["summary/accuracy_test"] == history.summary["summary/accuracy_test"]
                assert trial.duration.total_seconds() == pytest.approx(history.ended - history.started, abs=1e-3)


@pytest.fixture
def folder(tmp_path):
    return tuned(tmp_path / "study-results", "kept", trials=4)


def test_it_has_every_trial_whatever_became_of_it(folder):
    fates = {"permuted_pixels-sgd-001": "failed", "class_pairs-gnp-003": "running"}
    play(folder, fate=lambda history: fates.get(history.key, "finished"))
    assert {history.outcome for history in folder.histories()} >= {"finished", "failed", "running"}
    assert_holds(optuna_storage.write(folder), folder)


def test_it_follows_a_sweep_that_goes_on_and_leaves_nothing_beside_it(folder):
    play(folder, fate=lambda history: "running" if history.number > 1 else "finished")
    path = optuna_storage.write(folder)
    assert_holds(path, folder)
    play(folder)
    with folder.locked():
        folder.log("budget", trials=5)
    grown = SweepFolder.open(folder.directory, "kept")
    play(grown)
    assert_holds(optuna_storage.write(grown), grown)
    assert [file.name for file in path.parent.glob("*optuna*")] == ["optuna.db"]


@pytest.fixture
def small(tmp_path):
    return tuned(
        tmp_path / "study-results", "kept", scenarios=["class_pairs"], methods=["sgd", "sam"], trials=2, tasks=5
    )


def test_a_dashboard_that_is_open_sees_a_running_sweep_go_on_and_every_trial_keep_its_number(small):
    folder = small
    play(folder, fate=lambda history: "running" if history.number > 0 else "finished")
    path = optuna_storage.write(folder, is_running=True)
    open_ = studies(path)  # connections to the file as it is now
    identities = {name: [trial._trial_id for trial in found.get_trials()] for name, found in open_.items()}
    with folder.locked():
        folder.log("budget", trials=3)
    grown = SweepFolder.open(folder.directory, "kept")
    play(folder)
    optuna_storage.write(folder, is_running=True)
    for name, found in open_.items():
        assert [trial._trial_id for trial in found.get_trials()] == identities[name]
        assert {trial.state.name for trial in found.get_trials()} == {"COMPLETE"}
    optuna_storage.write(grown, is_running=True)  # one more trial of each method is planned and not begun
    for found in studies(path).values():
        assert [trial.state.name for trial in found.trials] == ["COMPLETE"] * 2 + ["WAITING"]


def test_a_damaged_file_is_replaced(small):
    play(small)
    (small.root / optuna_storage.FILE).write_bytes(b"no database")
    assert_holds(optuna_storage.write(small), small)


def test_the_best_of_a_study_is_the_best_by_the_objective(folder):
    play(folder)
    found = studies(optuna_storage.write(folder))
    for group in folder.plan.groups:
        best = found[f"kept/{group.label}"].best_trial
        objectives = [
            history.summary["summary/objective"] for history in folder.histories() if history.group == group.label
        ]
        assert best.value == max(objectives)


def test_a_sweep_without_an_objective_is_judged_by_test_accuracy_and_says_so(tmp_path):
    plan = plan_of("grid", space="paper_grid", overrides={"tasks/count": 3}, trials=None, seeds=2)
    folder = folder_of(tmp_path, plan, 3)
    play(folder)
    for name, found in studies(optuna_storage.write(folder)).items():
        assert found.metric_names == ["test accuracy"], name
        for trial in found.trials:
            assert trial.value == trial.user_attrs["summary/accuracy_test"]


def test_two_objectives_are_two_values(tmp_path):
    folder = tuned(tmp_path / "study-results", "two", methods=["sgd"], trials=3, sampler="nsga2")
    play(folder)
    for found in studies(optuna_storage.write(folder)).values():
        assert found.metric_names == ["objective", "decline"]
        assert [direction.name for direction in found.directions] == ["MAXIMIZE", "MINIMIZE"]
        assert all(len(trial.values) == 2 for trial in found.trials)
        assert found.best_trials


def test_settings_that_are_no_numbers_are_kept_as_text(tmp_path):
    space = SearchSpace(
        name="words",
        description="",
        scenarios={"class_pairs": {"tasks/name": "class_pairs", "tasks/count": 3}},
        methods={"sgd": Method(points=({"model/widths": [10, 10]},))},
        settings={"data/name": "mnist5k", "tasks/validation_fraction": 0.2},
    )
    plan = make_plan(space, name="words")
    folder = SweepFolder.create(tmp_path / "study-results", plan, Execution(data_dir="data"), {"class_pairs": 3})
    history = Conductor(folder).propose()
    (trial, *_) = studies(optuna_storage.write(folder))[f"words/{history.group}"].trials
    assert trial.params["model/widths"] == "[10, 10]"


def test_settings_that_are_drawn_from_lists_are_kept_as_text(tmp_path):
    space = SearchSpace(
        name="wide",
        description="",
        scenarios={"class_pairs": {"tasks/name": "class_pairs", "tasks/count": 3}},
        methods={"sgd": Method(distributions={"model/widths": CategoricalDistribution([[10], [20, 20]])})},
        settings={"data/name": "mnist5k", "tasks/validation_fraction": 0.2},
        trials=6,
    )
    folder = SweepFolder.create(
        tmp_path / "study-results", make_plan(space, name="wide"), Execution(data_dir="data"), {"class_pairs": 3}
    )
    play(folder)
    trials = studies(optuna_storage.write(folder))["wide/class_pairs-sgd"].trials
    assert [trial.params["model/widths"] for trial in trials] == [
        str(history.tried["model/widths"]) for history in folder.histories()
    ]
    assert {trial.distributions["model/widths"].choices for trial in trials} == {("[10]", "[20, 20]")}


def test_what_cannot_be_written_is_refused_and_the_one_before_stays(folder, monkeypatch):
    play(folder)
    path = optuna_storage.write(folder)
    before = path.read_bytes()

    def fail(self, *given, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(optuna.Study, "add_trials", fail)
    with pytest.raises(StudyError, match=r"optuna\.db' cannot be written: .*No space left on device"):
        optuna_storage.write(folder)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.glob("*optuna*")] == ["optuna.db"]


def test_study_sync_writes_it(here, run):
    directory = here / "study-results"
    folder = sent_sweep(directory, lay_database(directory), "told")
    assert not (folder.root / "optuna.db").exists()
    code, _, err = run("sync", "told")
    assert code == 0, err
    assert set(studies(folder.root / "optuna.db")) == {f"told/{group.label}" for group in folder.plan.groups}
