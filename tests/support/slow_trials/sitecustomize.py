"""Slows the trials of a test down, and lets some raise; each of its Python processes imports this.

So faults meet trials that are under way and checkpoints to damage, however fast the machine: a task takes half a second at
least, and leaves a checkpoint. A trial of thirteen passes raises. Each change that is made leaves a file of its module's name in
the folder STUDY_TEST_CHANGES, for a module that has moved would be left as it is without a word.
"""

import importlib.machinery
import os
import sys
import time
from pathlib import Path

TASK_SECONDS = float(os.environ.get("STUDY_TEST_TASK_SECONDS", "0.5"))

RAISING_PASSES = 13
"""Number of passes over a task's images of a trial that raises."""


def a_checkpoint_after_each_task(trainable):
    """Takes the pause between the checkpoints of a trial away."""
    if not trainable.CHECKPOINT_SECONDS > 0:
        raise AssertionError("CHECKPOINT_SECONDS is not what it was")
    trainable.CHECKPOINT_SECONDS = 0.0


def slowly(trainer):
    """Waits before each task; trials of thirteen passes raise."""
    train = trainer.train

    def train_slowly(experiment, *args):
        if experiment.passes == RAISING_PASSES:
            raise RuntimeError("unlucky")
        results = train(experiment, *args)
        while True:
            time.sleep(TASK_SECONDS)
            try:
                yield next(results)
            except StopIteration:
                return

    trainer.train = train_slowly


CHANGES = {"study.cluster.worker": a_checkpoint_after_each_task, "study.training.trainer": slowly}


class Changed(importlib.machinery.PathFinder):
    """Finds the modules of the study that these tests change a little."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        change = CHANGES.get(name)
        if change is None or (spec := super().find_spec(name, path, target)) is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            change(module)
            Path(os.environ["STUDY_TEST_CHANGES"], name).touch()

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Changed)
