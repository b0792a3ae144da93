"""The best configurations as files."""

import pytest
from sweep_fixtures import FACTS, folder_of, plan_of, run_all

from study.cli.trial import read_trial
from study.config import TrialConfig, read_yaml
from study.errors import StudyError
from study.sweep import export, winners
from study.sweep.folder import SweepFolder

CONFIG = TrialConfig().plain()
PROVENANCE = {"sweep": "made", "trial": "s-sgd-000", "objective": 0.5}


def test_a_file_holds_the_configuration_and_where_it_comes_from(tmp_path):
    path = tmp_path / "new" / "x.yaml"
    assert export.write(path, CONFIG, PROVENANCE)
    assert read_yaml(path) == {**CONFIG, "provenance": PROVENANCE}
    assert [found.name for found in path.parent.iterdir()] == ["x.yaml"]


def test_an_identical_file_is_left_alone(tmp_path):
    path = tmp_path / "x.yaml"
    export.write(path, CONFIG, PROVENANCE)
    before = path.stat().st_mtime_ns
    assert not export.write(path, CONFIG, PROVENANCE)
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "text",
    [b"", b"written by hand\n", b"seeds: [1]\n", b"[1\n", b"\xff", b"provenance: {sweep: made, trial: s-sgd-000}\n"],
)
def test_a_different_file_is_never_overwritten(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_bytes(text)
    with pytest.raises(StudyError, match="exists and differs"):
        export.write(path, CONFIG, PROVENANCE)
    assert path.read_bytes() == text
    assert [found.name for found in tmp_path.iterdir()] == ["x.yaml"]


def test_the_same_trial_of_another_sweep_is_another_file(tmp_path):
    path = tmp_path / "x.yaml"
    export.write(path, CONFIG, PROVENANCE)
    before = path.read_text()
    with pytest.raises(StudyError, match="exists and differs"):
        export.write(path, CONFIG, PROVENANCE | {"sweep": "other"})
    assert path.read_text() == before


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be written"):
        export.write(tmp_path / "file" / "x.yaml", CONFIG, PROVENANCE)


def test_the_best_of_each_method_are_exported_with_their_provenance(tmp_path):
    folder = folder_of(tmp_path, plan_of(trials=3))
    histories = {history.key: history for history in run_all(folder)}
    paths = export.export_best(folder, tmp_path / "out", {key: f"run of {key}" for key in histories})
    assert [path.stem for path in paths] == winners.best_keys(list(histories.values()))
    for path in paths:
        config, provenance = read_trial(path, {})
        history = histories[path.stem]
        assert config.plain() == history.config
        assert provenance == {
            "sweep": "made",
            "space": "quickstart",
            "phase": "tune",
            "scenario": "class_pairs",
            "method": history.method,
            "trial": history.key,
            "mlflow_run_id": f"run of {history.key}",
            "selected_by": "the highest objective of its method and scenario",
            "objective": history.summary["summary/objective"],
            "accuracy_test": history.summary["summary/accuracy_test"],
            **{name: FACTS[name] for name in export.PROVENANCE_FACTS},
        }


def test_a_winner_that_stays_the_winner_of_a_grown_sweep_is_exported_again(tmp_path):
    folder = folder_of(tmp_path, plan_of(trials=2))
    run_all(folder)
    first = export.export_best(folder, tmp_path / "out", {})
    before = [path.read_bytes() for path in first]
    folder.log("budget", trials=4)
    grown = SweepFolder.open(tmp_path, "made")
    run_all(grown, lambda history: 0.001 * history.number if history.number > 1 else 0.9)
    assert export.export_best(grown, tmp_path / "out", {}) == first
    assert [path.read_bytes() for path in first] == before


def test_named_trials_are_exported_as_named(tmp_path):
    folder = folder_of(tmp_path, plan_of(trials=2))
    run_all(folder)
    (path,) = export.export_named(folder, ["class_pairs-sam-001"], tmp_path / "out", {})
    assert path.name == "class_pairs-sam-001.yaml"
    provenance = read_yaml(path)["provenance"]
    assert (provenance["selected_by"], provenance["mlflow_run_id"]) == ("named by the user", None)


def test_a_trial_that_has_not_finished_is_not_exported(tmp_path):
    from study.sweep.conductor import Conductor

    folder = folder_of(tmp_path, plan_of(trials=2))
    history = Conductor(folder).propose()
    with pytest.raises(StudyError, match="is waiting, not finished"):
        export.export_named(folder, [history.key], tmp_path / "out", {})
    with pytest.raises(StudyError, match="has no trial"):
        export.export_named(folder, ["class_pairs-sgd-009"], tmp_path / "out", {})
    assert not (tmp_path / "out").exists()
