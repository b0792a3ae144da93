"""Ray's side of a trial: a dict comes in, `tune.report` and checkpoints go out. Runs in a worker process."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

CHECKPOINT_FILE = "state.pt"
CHECKPOINT_SECONDS = 5.0
"""Least time between two checkpoints of a trial; the last task always leaves one."""


def run_trial(assignment: dict[str, Any]) -> None:
    """Trains one trial and reports after each task.

    Args:
        assignment: `config`, a complete configuration with its seeds as nested plain data; `threads`, how many this
            worker may use; `data_dir`, folder of downloaded data sets; `checkpoint`, folder of the checkpoint to go on
            from, or None.
    """
    import torch
    from ray import tune

    from study import checkpoint, experiment, facts, measures, trainer
    from study.config import TrialConfig

    torch.set_num_threads(assignment["threads"])
    config = TrialConfig.from_plain(assignment["config"])
    parts = experiment.build(config, Path(assignment["data_dir"]))
    identity = checkpoint.identity(config, parts.dataset.fingerprint)
    told = facts.training_facts(parts.device, parts.dataset.fingerprint) | {"rule": parts.rule.constants}

    start = None
    saved = tune.get_checkpoint()  # after a failure of a worker; newer than the one of the assignment
    folder = saved.path if saved else assignment["checkpoint"]
    if folder:
        start = checkpoint.load(Path(folder) / CHECKPOINT_FILE, identity, parts.device)

    saved_at = time.monotonic()
    for result in trainer.train(parts, start):
        line = measures.task_line(result, parts.tasks.count)
        report = {
            "report": json.dumps({"line": line, "facts": told})
        }  # as text: Tune flattens dicts, '/' in names or not
        last = result.task + 1 == parts.tasks.count
        if not last and time.monotonic() - saved_at < CHECKPOINT_SECONDS:
            tune.report(report)
            continue
        with tempfile.TemporaryDirectory() as draft:
            checkpoint.save(Path(draft) / CHECKPOINT_FILE, result.state, identity)
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(draft))
        saved_at = time.monotonic()
