"""Confirmed networks in MLflow's registry predict what was measured, without anything of the study."""

import subprocess
import sys

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from report_fixtures import Blank
from sweep_fixtures import study

from search_spaces import load
from study import checkpoint, experiment, facts, measures, tracking
from study.conductor import Conductor
from study.config import TrialConfig
from study.confirmation import make_confirmation
from study.folder import Execution, SweepFolder
from study.planning import make_plan
from study.store import default_uri
from study.trainer import train

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {"tasks/count": 2, "tasks/images_per_task": 400, "model/widths": [16], "diagnostics/curvature_every": 0}


def trained(folder, *, checkpoints=True):
    """Trains all trials of a sweep in this process, as its workers would, and sends them to the store beside it."""
    conductor = Conductor(folder)
    torch.set_num_threads(1)
    while (history := conductor.propose()) is not None:
        config = TrialConfig.from_plain(history.config)
        parts = experiment.build(config, experiment.load_dataset(config, folder.directory))
        conductor.started(history.key)
        told = facts.training_facts(parts.device, parts.dataset.fingerprint) | {"rule": parts.rule.constants}
        for result in train(parts):
            conductor.result(history.key, measures.task_line(result, parts.tasks.count), told)
        if checkpoints:
            place = folder.root / "trials" / history.key / "last"
            place.mkdir()
            checkpoint.save(place / "state.pt", result.state, checkpoint.identity(config, parts.dataset.fingerprint))
            conductor.checkpointed(history.key, str(place.resolve()))
        conductor.ended(history.key)
    tracking.sync(folder, default_uri(folder.directory), Blank())
    return folder


@pytest.fixture(scope="module")
def tuning(tmp_path_factory):
    """A small sweep that was really trained, and its confirmation."""
    directory = tmp_path_factory.mktemp("place") / "study-results"
    plan = make_plan(load("quickstart"), name="small", trials=3, seeds=2, methods=["sgd", "sam"], overrides=SMALL)
    tuning = SweepFolder.create(
        directory, plan, Execution(data_dir=str(directory)), dict.fromkeys(("permuted_pixels", "class_pairs"), 2)
    )
    trained(tuning)
    made = make_confirmation(tuning, name="small-confirm", seeds=2)
    trained(SweepFolder.create(directory, made, tuning.execution, tuning.task_counts))
    return tuning


@pytest.fixture(scope="module")
def exported(tuning):
    done = study("export", "small", "--model", "--dir", tuning.directory, cwd=tuning.directory.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def client(tuning):
    uri = default_uri(tuning.directory)
    mlflow.set_tracking_uri(uri)
    return MlflowClient(uri)


SCENARIOS = ("permuted_pixels", "class_pairs")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_predicts_with_the_accuracy_that_was_measured_of_its_seed_on_the_last_task(
    scenario, tuning, exported, client
):
    (version,) = client.search_model_versions(f"name = 'small-{scenario}'")
    confirmation = SweepFolder.open(tuning.directory, "small-confirm")
    history = next(one for one in confirmation.histories() if one.key == version.tags["trial"])
    assert str(history.seeds[0]) == version.tags["seed"]
    config = TrialConfig.from_plain(history.config)
    parts = experiment.build(config, experiment.load_dataset(config, tuning.directory))
    task = parts.tasks.task(1)
    images = parts.dataset.test_images[task.test].numpy().astype(np.float32) / 255
    labels = parts.dataset.test_labels[task.test].numpy()
    predicted = mlflow.pyfunc.load_model(f"models:/small-{scenario}/1").predict(images)
    classes = np.array(eval(version.tags["classes"]))
    assert predicted.shape == (len(images), len(classes))
    assert np.allclose(predicted.sum(axis=1), 1, atol=1e-5)
    accuracy = (classes[predicted.argmax(axis=1)] == labels).mean()
    assert (
        accuracy
        == history.tasks[1]["lanes"]["accuracy/test"][0]
        == float(version.tags["accuracy_test_of_seed_on_task"])
    )
    assert accuracy > 1.3 / len(classes), "it has learnt something"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_it_is_the_confirmed_configuration_with_the_highest_objective_in_the_tuning(scenario, tuning, exported, client):
    (version,) = client.search_model_versions(f"name = 'small-{scenario}'")
    objectives = [one.summary["summary/objective"] for one in tuning.histories() if one.scenario == scenario]
    assert float(version.tags["objective_tuned"]) == max(objectives)
    run = client.get_run(version.run_id)
    assert run.data.tags["trial"] == version.tags["trial"]
    assert run.data.tags["phase"] == "confirm"
    assert float(version.tags["objective_confirmed"]) == run.data.metrics["summary/objective"]


def test_it_has_a_signature_and_an_example_and_says_what_it_is(exported, client):
    for scenario, outputs in zip(SCENARIOS, (10, 2), strict=True):
        (version,) = client.search_model_versions(f"name = 'small-{scenario}'")
        info = mlflow.models.get_model_info(f"models:/small-{scenario}/1")
        assert [spec.shape for spec in info.signature.inputs] == [(-1, 784)]
        assert [spec.shape for spec in info.signature.outputs] == [(-1, outputs)]
        assert info.saved_input_example_info
        assert "grey values from 0 to 1" in version.description


def test_it_needs_nothing_of_the_study(exported, tuning):
    program = (
        "import sys; sys.modules['study'] = sys.modules['analysis'] = None; import mlflow, numpy\n"
        f"mlflow.set_tracking_uri({default_uri(tuning.directory)!r})\n"
        "model = mlflow.pyfunc.load_model('models:/small-class_pairs/1')\n"
        "print(model.predict(numpy.zeros((3, 784), numpy.float32)).shape)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(3, 2)"


def test_the_command_says_where_they_are_and_a_second_one_adds_none(exported, tuning, client):
    assert [line.split()[:2] for line in exported.splitlines()] == [
        ["registered", f"models:/small-{scenario}/1"] for scenario in SCENARIOS
    ]
    again = study("export", "small", "--model", "--dir", tuning.directory, cwd=tuning.directory.parent)
    assert again.returncode == 0, again.stderr
    assert [line.split("  ")[0] for line in again.stdout.splitlines()] == [
        f"there already: models:/small-{scenario}/1" for scenario in SCENARIOS
    ]
    for scenario in SCENARIOS:
        assert len(client.search_model_versions(f"name = 'small-{scenario}'")) == 1


def test_a_network_whose_checkpoint_is_gone_is_trained_again(tmp_path):
    directory = tmp_path / "study-results"
    plan = make_plan(
        load("quickstart"), name="small", trials=2, seeds=1, methods=["sgd"], scenarios=["class_pairs"], overrides=SMALL
    )
    tuning = SweepFolder.create(directory, plan, Execution(data_dir=str(directory)), {"class_pairs": 2})
    trained(tuning, checkpoints=False)
    refused = study("export", "small", "--model", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "study confirm small" in refused.stderr
    made = make_confirmation(tuning, name="small-confirm", seeds=2)
    confirmation = trained(SweepFolder.create(directory, made, tuning.execution, tuning.task_counts), checkpoints=False)
    done = study("export", "small", "--model", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (version,) = MlflowClient(default_uri(directory)).search_model_versions("name = 'small-class_pairs'")
    history = next(one for one in confirmation.histories() if one.key == version.tags["trial"])
    assert float(version.tags["accuracy_test_of_seed_on_task"]) == history.tasks[1]["lanes"]["accuracy/test"][0]


def test_files_and_models_are_not_mixed(tuning):
    done = study(
        "export", "small", "--model", "--to", "winners", "--dir", tuning.directory, cwd=tuning.directory.parent
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "leave out --trial and --to" in done.stderr
