"""Commands that launch a sweep or go on with one: `run`, `confirm`, `resume`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from study import experiment
from study.cli import overview, terminal
from study.cli.interruption import Interruption
from study.cli.progress import Progress
from study.config import Flat
from study.errors import Halted, Interrupted, StudyError
from study.sweep import datasets, folder, search_plan, storage
from study.sweep.datasets import DatasetSource, Material
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan


def run(space_name: str, directory: Path, execution: Execution, name: str | None, **choices: Any) -> int:
    """Launches a sweep; `choices` as in `study.sweep.search_plan.make_plan`. Returns the exit code."""
    space = search_plan.load_space(space_name)
    made = search_plan.make_plan(space, name=space.name if name is None else name, **choices)
    return _begin(made, directory, execution)


def confirm(
    directory: Path, tuned_name: str, changes: Mapping[str, Any], name: str | None, overrides: Flat, **choices: Any
) -> int:
    """Confirms a sweep on fresh seeds.

    Args:
        directory: folder of all sweeps.
        tuned_name: the sweep to confirm.
        changes: to its execution; how many run at once is chosen anew.
        name: of the confirmation; None: after the sweep.
        overrides, choices: as in `study.sweep.confirmation_plan.make_confirmation`.

    Returns:
        The exit code.
    """
    from study.sweep import confirmation_plan

    tuned = SweepFolder.open(directory, tuned_name)
    others, notes = _tunings(directory)
    made = confirmation_plan.make_confirmation(
        tuned,
        name=confirmation_plan.default_name(tuned_name, overrides) if name is None else name,
        overrides=overrides,
        others=others,
        **choices,
    )
    undone = tuned.plan.trial_count - sum(history.is_done for history in tuned.histories())
    if undone:
        notes.append(f"{undone} trials of {tuned_name!r} are not done; the best of the others are confirmed.")
    notes += [
        f"no trial of {label} has finished with an objective, so none of it was selected."
        for label in confirmation_plan.unconfirmed(tuned, made, choices["scenarios"], choices["methods"])
    ]
    kept = tuned.execution.model_copy(update={"workers": None, "gpus_per_trial": None})
    changed = kept.model_copy(update={k: v for k, v in changes.items() if v is not None})
    return _begin(made, directory, changed, notes)


def _tunings(directory: Path) -> tuple[list[Plan], list[str]]:
    """The plans of all sweeps in a folder but confirmations, and a note of each sweep that cannot be read."""
    plans, notes = [], []
    for name in folder.names(directory):
        try:
            plans.append(SweepFolder.open(directory, name).plan)
        except StudyError as error:
            notes.append(f"whether the seeds of {name!r} are fresh cannot be told: {error}")
    return [plan for plan in plans if plan.phase != "confirm"], notes


def _begin(made: Plan, directory: Path, execution: Execution, notes: Sequence[str] = ()) -> int:
    """Launches a new sweep of that plan, once all that it needs is there, and says the notes. Returns the exit code."""
    execution, loaded, uri = prepared(made, directory, execution)
    if terminal.console.is_terminal:
        terminal.remark(f"{made.name}: {made.trial_count} trials; starting Ray")
    from study.cluster import connection

    place = execution.storage or folder.own_checkpoint_place(directory, made.name)
    with connection.connected(execution, made, place) as (resolved, more):
        made_folder = SweepFolder.create(directory, made, execution, loaded.task_counts)
        for note in (*notes, *more):
            terminal.complain(f"note: {note}")
        with made_folder.locked():
            return _launch(made_folder, execution, resolved, loaded, uri)


def prepared(
    made: Plan, directory: Path, execution: Execution, dataset_of: DatasetSource = experiment.load_dataset
) -> tuple[Execution, Material, str]:
    """What a new sweep needs before Ray does: the execution in full, what its trials are made of, and MLflow's store.

    Args:
        made: the plan.
        directory: folder of all sweeps.
        execution: what was asked for.
        dataset_of: where the data sets come from, see `study.sweep.datasets.load`.

    Raises:
        StudyError: the name is taken, a folder or the store cannot be used, or the data is not to be had or too small.
    """
    folder.check_new(directory, made.name)
    from study.tracking import store

    execution = _checked(execution)
    loaded = datasets.load(made, Path(execution.data_dir), dataset_of)
    uri = store.tracking_uri(directory, execution)
    if uri != store.default_uri(directory):
        execution = execution.model_copy(update={"tracking_uri": uri})  # it may come from the environment of today
    store.check_new_experiment(uri, made.name)
    return execution, loaded, uri


def _checked(execution: Execution) -> Execution:
    """The execution with a storage that can be one, its path in full. Raises StudyError."""
    kept = execution.storage
    return execution if kept is None else execution.model_copy(update={"storage": storage.check(kept)})


def resume(directory: Path, name: str, changes: Mapping[str, Any], trials: int | None) -> int:
    """Goes on with a sweep; `changes` to its execution. Returns the exit code."""
    opened = SweepFolder.open(directory, name)
    if trials is not None:
        planned = max(group.trials for group in opened.plan.groups)
        if trials < planned:
            raise StudyError(
                f"--trials {trials} is fewer than the {planned} that {name!r} has already; a budget can only grow."
            )
        opened.plan.with_trials(trials)
    execution = opened.execution.model_copy(update={k: v for k, v in changes.items() if v is not None})
    from study.tracking import store
    from study.tracking.client import check_reachable

    uri = store.tracking_uri(directory, execution)
    check_reachable(uri)
    execution = _checked(execution)
    loaded = datasets.load(opened.plan, Path(execution.data_dir))
    from study.cluster import connection

    place = opened.checkpoint_place(execution)
    with opened.locked(), connection.connected(execution, opened.plan, place) as (resolved, notes):
        for note in notes:
            terminal.complain(f"note: {note}")
        if trials is not None:
            opened.log("budget", trials=trials)
        return _launch(SweepFolder.open(directory, name), execution, resolved, loaded, uri)


def _launch(opened: SweepFolder, asked: Execution, resolved: Execution, loaded: Material, uri: str) -> int:
    """Runs what is left of a sweep, within Ray and the sweep's lock. Returns the exit code."""
    from study.cli import pictures
    from study.cluster import tuner
    from study.tracking.runs import SweepView
    from study.tracking.tracker import Tracker

    going_on = f"go on with: study resume {opened.plan.name}{opened.option}"
    with Interruption(f"interrupted at once; {going_on}") as interruption:
        with Progress(opened, resolved.workers) as progress:
            tracker = Tracker(SweepView(opened, uri, pictures.Pictures()), progress.say)
            outcome = None
            try:
                session = opened.begin_session(asked, resolved)
                outcome = tuner.launch(
                    opened, session, resolved, loaded.datasets, lambda: interruption.requested, (progress, tracker)
                )
            except OSError as error:  # before the first trial; later ones are the outcome's fault
                raise Halted(f"the sweep could not start: {error}; once that is mended, {going_on}") from None
            finally:
                done = outcome is not None and not outcome.fault
                logged = tracker.close(hurried=lambda: interruption.requested or not done)
                with suppress(OSError):  # a full disk is said elsewhere
                    opened.log("logged", complete=logged, seconds=round(tracker.seconds, 3))
        overview.show_results(opened)
        _write_optuna_view(opened)
        if logged and not outcome.interrupted:
            _export_best(opened, uri)
        if not logged:
            again = f"study sync {opened.plan.name}{opened.option}"
            terminal.complain(f"MLflow has not got everything ({tracker.fault}); when it is back: {again}, then export")
        for history in outcome.failed:
            terminal.complain(f"failed: {history.key} ({history.name}): {history.reason}")
            if opened.traceback_file(history.key).is_file():
                terminal.complain(f"its traceback: {opened.traceback_file(history.key)}")
    if outcome.fault:
        raise Halted(f"the sweep had to stop: {outcome.fault}; once that is mended, {going_on}")
    if outcome.interrupted:
        raise Interrupted(f"interrupted; {going_on}")
    overview.show_next_steps(opened, uri)
    return 1 if outcome.failed else 0


def _write_optuna_view(opened: SweepFolder) -> None:
    """Keeps Optuna's own storage up to date; says why when it cannot be written."""
    from study.sweep import optuna_storage

    try:
        optuna_storage.write(opened)
    except StudyError as error:
        terminal.complain(f"note: {error}")


def _export_best(opened: SweepFolder, uri: str) -> None:
    """Writes the files of the best trials, if there are any to choose; says why when they cannot be written."""
    from study.sweep import export, winners
    from study.tracking import store

    if not winners.best_keys(opened.histories()):
        return
    try:
        for path in export.export_best(opened, opened.root / "best", store.run_ids(uri, opened)):
            terminal.console.print(f"exported {path}", markup=False, soft_wrap=True)
    except StudyError as error:
        terminal.complain(f"not exported: {error}")
