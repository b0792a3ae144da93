"""Registered networks predict what was measured, without the study."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import mlflow
import numpy as np
import pytest
import tiny
import torch
from mlflow import MlflowClient
from report_fixtures import Blank, play, tuned
from shared import lay_database
from sweep_fixtures import study

from search_spaces import load
from study import addresses, experiment, provenance
from study.config import TrialConfig
from study.pixels import scale_of
from study.sweep.conductor import Conductor
from study.sweep.confirmation_plan import make_confirmation
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.search_plan import make_plan
from study.tracking import artifacts, model_registry, tracker
from study.tracking.store import default_uri
from study.training import checkpoint, task_log
from study.training.minibatches import Feed
from study.training.trainer import train

pytestmark = pytest.mark.filterwarnings("ignore")

SMALL = {"tasks/count": 2, "tasks/images_per_task": 400, "model/widths": [16], "diagnostics/curvature_every": 0}


def trained(folder, *, keep=lambda path: str(path.resolve())):
    """Trains all trials of a sweep in this process.

    Then it sends them to the store beside the sweep, as a launch would. `keep` gives the address of a checkpoint's folder; None
    means that no checkpoint is left.
    """
    conductor = Conductor(folder)
    torch.set_num_threads(1)
    while (history := conductor.propose()) is not None:
        config = TrialConfig.from_plain(history.config)
        parts = experiment.build(config, experiment.load_dataset(config, folder.directory))
        conductor.started(history.key)
        told = provenance.training_facts(parts.device, parts.dataset.fingerprint) | {"rule": parts.rule.constants}
        for result in train(parts):
            conductor.result(history.key, task_log.task_line(result, parts.tasks.count), told)
        if keep:
            place = folder.root / "trials" / history.key / "last"
            place.mkdir()
            checkpoint.save(place / "state.pt", result.state, checkpoint.identity(config, parts.dataset.fingerprint))
            conductor.checkpointed(history.key, keep(place))
        conductor.ended(history.key)
    tracker.sync(folder, lay_database(folder.directory), Blank())
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
def exported(tuning, tmp_path_factory):
    """What the command said, run from a folder that has nothing to do with the sweep."""
    done = study("export", "small", "--model", "--dir", tuning.directory, cwd=tmp_path_factory.mktemp("elsewhere"))
    assert done.returncode == 0, done.stderr
    assert "training it again" not in done.stderr
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
    classes = np.array(json.loads(version.tags["classes"]))
    assert predicted.shape == (len(images), len(classes))
    assert np.allclose(predicted.sum(axis=1), 1, atol=1e-5)
    accuracy = (classes[predicted.argmax(axis=1)] == labels).mean()
    assert accuracy == history.tasks[1]["lanes"]["accuracy/test"][0] == float(version.tags["accuracy_test"])
    assert version.tags["data"] == "mnist5k"
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


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (np.full((2, 784), 255.0, np.float32), "grey values from 0 to 1"),
        (np.full((2, 784), 1.5, np.float32), "grey values from 0 to 1"),
        (np.full((2, 784), -0.1, np.float32), "grey values from 0 to 1"),
        (np.full((2, 784), np.nan, np.float32), "grey values from 0 to 1"),
        (np.full((2, 784), 255, np.uint8), "uint8"),
        (np.full((2, 784), 0.5, np.float64), "float64"),
        (np.full((2, 28, 28), 0.5, np.float32), "shape"),
    ],
)
def test_it_refuses_what_are_no_grey_values_from_0_to_1(values, problem, exported, client):
    model = mlflow.pyfunc.load_model("models:/small-class_pairs/1")
    with pytest.raises(Exception, match=problem):
        model.predict(values)
    assert model.predict(np.ones((2, 784), np.float32)).shape == (2, 2)
    assert model.predict(np.zeros((1, 784), np.float32)).shape == (1, 2)


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


def test_the_command_says_where_they_are_and_a_second_one_adds_none(exported, tuning, client, here, run):
    assert [line.split()[:2] for line in exported.splitlines()] == [
        ["registered", f"models:/small-{scenario}/1"] for scenario in SCENARIOS
    ]
    code, out, err = run("export", "small", "--model", "--dir", tuning.directory)
    assert code == 0, err
    assert [line.split("  ")[0] for line in out.splitlines()] == [
        f"already registered: models:/small-{scenario}/1" for scenario in SCENARIOS
    ]
    for scenario in SCENARIOS:
        assert len(client.search_model_versions(f"name = 'small-{scenario}'")) == 1


def test_a_model_moves_with_its_sweep(exported, tuning, here):
    directory = here / "copy of the results"
    shutil.copytree(tuning.directory, directory)
    uri = default_uri(directory)
    artifacts.settle(uri, SweepFolder.open(directory, "small-confirm"))
    client = MlflowClient(uri)
    for version in client.search_model_versions():
        network = addresses.local_folder(client.get_model_version_download_uri(version.name, version.version))
        assert network.is_relative_to(directory / "small-confirm" / "mlflow-artifacts")
        assert (network / "MLmodel").is_file()
    mlflow.set_tracking_uri(uri)
    assert mlflow.pyfunc.load_model("models:/small-class_pairs/1").predict(np.zeros((1, 784), np.float32)).shape == (
        1,
        2,
    )


def test_the_trial_s_run_is_as_it_was_but_for_the_model(tuning, exported, client):
    confirmation = SweepFolder.open(tuning.directory, "small-confirm")
    for scenario in SCENARIOS:
        (version,) = client.search_model_versions(f"name = 'small-{scenario}'")
        run = client.get_run(version.run_id)
        history = next(one for one in confirmation.histories() if one.key == version.tags["trial"])
        assert run.info.status == "FINISHED"
        assert (run.info.start_time, run.info.end_time) == (int(history.started * 1000), int(history.ended * 1000))


def small_tuning(directory):
    """A trained sweep of two SGD trials on class pairs."""
    plan = make_plan(
        load("quickstart"), name="small", trials=2, seeds=1, methods=["sgd"], scenarios=["class_pairs"], overrides=SMALL
    )
    return trained(
        SweepFolder.create(directory, plan, Execution(data_dir=str(directory)), {"class_pairs": 2}), keep=None
    )


def confirming(tuning, name="small-confirm", **choices):
    """The folder of a confirmation of a sweep."""
    made = make_confirmation(tuning, name=name, **choices)
    return SweepFolder.create(tuning.directory, made, tuning.execution, tuning.task_counts)


def right_of(directory, lane):
    """The accuracy of the only registered model on its task.

    Returns it with the recorded accuracy of the same lane.
    """
    mlflow.set_tracking_uri(default_uri(directory))
    (version,) = MlflowClient().search_model_versions("name = 'small-class_pairs'")
    confirmation = SweepFolder.open(directory, version.tags["sweep"])
    history = next(one for one in confirmation.histories() if one.key == version.tags["trial"])
    assert version.tags["seed"] == str(history.seeds[lane])
    config = TrialConfig.from_plain(history.config)
    parts = experiment.build(config, experiment.load_dataset(config, directory))
    test = parts.tasks.task(1).test
    images = parts.dataset.test_images[test].numpy().astype(np.float32) / 255
    predicted = mlflow.pyfunc.load_model("models:/small-class_pairs/1").predict(images).argmax(axis=1)
    right = (np.array(json.loads(version.tags["classes"]))[predicted] == parts.dataset.test_labels[test].numpy()).mean()
    return right, history.tasks[1]["lanes"]["accuracy/test"][lane]


def test_a_network_whose_checkpoint_is_gone_is_trained_again_without_held_out_images_too(here, run):
    directory = here / "study-results"
    tuning = small_tuning(directory)
    code, out, err = run("export", "small", "--model")
    assert (code, out) == (2, "")
    assert "study confirm small" in err
    trained(confirming(tuning, seeds=2, overrides={"tasks/validation_fraction": 0.0}), keep=None)
    code, _, err = run("export", "small", "--model")
    assert code == 0, err
    assert "no longer has a checkpoint of its last task: training it again" in err
    assert "it was confirmed with other settings than it was tuned with" in err
    measured, recorded = right_of(directory, 0)
    assert measured == recorded > 0.6


def test_a_checkpoint_at_an_address_is_found_and_a_seed_that_has_diverged_is_passed_over(here, run):
    directory = here / "study-results"
    tuning = small_tuning(directory)
    confirmation = trained(confirming(tuning, seeds=2, top=1), keep=lambda path: path.resolve().as_uri())
    (history,) = [one for one in confirmation.histories() if confirmation.plan.origin(one.group, one.number).rank]
    config = TrialConfig.from_plain(history.config)
    parts = experiment.build(config, experiment.load_dataset(config, directory))
    identity = checkpoint.identity(config, parts.dataset.fingerprint)
    path = confirmation.root / "trials" / history.key / "last" / "state.pt"
    state = tiny.load_checkpoint(path, identity)
    checkpoint.save(path, replace(state, diverged=torch.tensor([True, False])), identity)
    code, _, err = run("export", "small", "--model")
    assert code == 0, err
    assert "training it again" not in err
    measured, recorded = right_of(directory, 1)
    assert measured == recorded > 0.6


def test_what_was_tuned_best_is_chosen_whenever_it_was_confirmed_and_on_the_data_it_was_tuned_on(tmp_path):
    tuning = tuned(tmp_path / "study-results", "tuning", trials=4)
    play(tuning)
    objectives = {
        scenario: max(one.summary["summary/objective"] for one in tuning.histories() if one.scenario == scenario)
        for scenario in SCENARIOS
    }
    best = {
        one.scenario: one.method
        for one in tuning.histories()
        if one.summary["summary/objective"] in objectives.values()
    }
    other = next(method for method in ("sgd", "sam", "gnp") if method not in best.values())

    def chosen():
        return {
            found.history.scenario: (found.folder.plan.name, found.history.method, found.tuned, found.as_tuned)
            for found in model_registry.confirmed_winners(tuning)
        }

    play(confirming(tuning, "fashion", overrides={"data/name": "fashion_mnist"}))
    assert chosen() == {name: ("fashion", best[name], objectives[name], False) for name in SCENARIOS}
    play(confirming(tuning, "all"))
    assert chosen() == {name: ("all", best[name], objectives[name], True) for name in SCENARIOS}
    play(confirming(tuning, "others", methods=[other]))
    play(confirming(tuning, "fashion-again", overrides={"data/name": "fashion_mnist"}))
    assert chosen() == {name: ("all", best[name], objectives[name], True) for name in SCENARIOS}
    play(confirming(tuning, "again"))
    assert chosen() == {name: ("again", best[name], objectives[name], True) for name in SCENARIOS}


def test_files_and_models_are_not_mixed(tuning, here, run):
    code, out, err = run("export", "small", "--model", "--to", "winners", "--dir", tuning.directory)
    assert (code, out) == (2, "")
    assert "leave out --trial and --to" in err


def test_a_network_that_sees_whole_images_is_exported_with_its_pixels_moved():
    module, settings = tiny.part("models", "cnn", {"channels": [3], "kernels": [3], "pools": [2]})
    model = module.build(settings, (2, 6, 5), 4)
    params = model.initial((0,))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    moved = model_registry._Moved(order)
    network = model_registry._portable(torch.nn.Sequential(moved, *model.layers(params, 0)).eval())
    images = torch.rand(7, 60, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(network(images), model.forward(params, images[:, order].unsqueeze(0))[0][0])


@pytest.mark.parametrize("pixels", ["unit", "symmetric", "standardized"])
@pytest.mark.parametrize("model", [{"images": {"shape": (2, 3, 3)}}, tiny.CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("tasks", ["permuted_pixels", "class_pairs"])
def test_an_exported_network_takes_images_from_0_to_1_whatever_it_was_trained_on(tasks, model, pixels):
    """It scales and moves them itself, as training did."""
    images = tiny.dataset(**model["images"])
    images = replace(images, scale=scale_of(pixels, images.train_images, 2))
    parts = tiny.experiment("sgd", tasks=tasks, **model | {"images": images})
    params, task = parts.model.initial(parts.seeds), parts.tasks.task(1)
    ((inputs, _),) = Feed(images, task, "cpu").test()  # with pixels moved
    expected, _ = parts.model.forward(params, inputs)
    given = images.test_images[task.test].to(torch.float32) / 255
    for lane in range(len(parts.seeds)):
        network = model_registry._portable(torch.nn.Sequential(*model_registry._layers(parts, task, params, lane)))
        with torch.no_grad():
            torch.testing.assert_close(network(given), expected[lane], rtol=1e-4, atol=1e-5)
