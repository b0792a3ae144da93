"""Tasks with labels of their own: trained, evaluated and diagnosed on what each lane's images were labelled."""

import pytest
import tiny
import torch

from study import data
from study.config import Diagnostics
from study.training.minibatches import EarlierTask, Feed

GIVEN = {"images": 20, "validation_fraction": 0.25}


def by_heart(**more):
    return tiny.experiment(tasks="permuted_labels", task_settings=GIVEN, batch_size=4, widths=(40,), **more)


@pytest.fixture(scope="module")
def learnt():
    experiment = by_heart(optimizer_settings={"lr": 0.2}, images=data.noise("noise", 40, 8, (1, 6, 6), 4), passes=60)
    return experiment, tiny.results(experiment)


def test_random_labels_are_learnt_by_heart_and_task_after_task(learnt):
    _, results = learnt
    assert len(results) == 3
    for result in results:
        assert (result.test_accuracy > 0.9).all(), "by chance it is a quarter"
        assert (result.validation_accuracy > 0.7).all()


def test_the_accuracies_are_those_of_the_last_weights_on_the_tasks_own_images(learnt):
    experiment, results = learnt
    for index, result in enumerate(results):
        task = experiment.tasks.task(index)
        for chosen, measured in (
            (task.relabelled.test, result.test_accuracy),
            (task.validation, result.validation_accuracy),
        ):
            inputs = experiment.dataset.train_images[chosen].float() / 255
            guess = experiment.model.forward(result.state.params, inputs)[0].argmax(2)
            hits = (guess == task.relabelled.labels.gather(1, chosen)).double().mean(1)
            torch.testing.assert_close(measured, hits)


def test_every_minibatch_has_the_labels_that_the_task_dealt_out():
    experiment = by_heart()
    task = experiment.tasks.task(1)
    feed = Feed(experiment.dataset, task, "cpu")
    for chosen in feed.choices(experiment.seeds, 1, 4, 1):
        _, labels = feed.minibatch(chosen)
        for lane in range(3):
            assert labels[lane].tolist() == task.relabelled.labels[lane, chosen[lane]].tolist()


def test_leaving_blank_pixels_out_and_autograd_give_the_same(learnt):
    experiment, results = learnt
    for ours, theirs in zip(results, tiny.results(tiny.plainly(experiment)), strict=True):
        torch.testing.assert_close(ours.online_loss, theirs.online_loss, rtol=0.05, atol=0.05)


def test_an_earlier_task_is_evaluated_on_the_labels_it_had(learnt):
    experiment, _ = learnt
    task = experiment.tasks.task(0)
    earlier = EarlierTask.of(task, "cpu", 6, moves_pixels=False)
    ((_, labels),) = earlier.batches(experiment.dataset, 3)
    chosen = task.relabelled.test[:, torch.arange(6) * 15 // 6]
    assert torch.equal(labels, task.relabelled.labels.gather(1, chosen))
    diagnosed = by_heart(diagnostics=Diagnostics(curvature_every=2, forgetting_every=1, units_every=1))
    assert all(value.isfinite().all() for value in tiny.results(diagnosed)[-1].diagnostics.values())
