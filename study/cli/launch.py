"""Commands that train: `study run`, `study confirm`, `study resume`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces import SearchSpace
from study import experiment, parts, provenance, redaction
from study.cli import overview, terminal
from study.cli.interruption import Interruption
from study.cli.progress import Progress
from study.cli.upkeep.session import Ending, Session
from study.config import Flat
from study.errors import Halted, Interrupted, StudyError
from study.parts import outside
from study.sweep import datasets, folder, search_plan, storage, winners
from study.sweep.datasets import DatasetSource, Material
from study.sweep.execution import Execution
from study.sweep.folder import SweepFolder
from study.sweep.plan import Plan, extremes
from study.sweep.race.configurations import configurations
from study.sweep.record import facts_in_order

if TYPE_CHECKING:
    from study.tracking.tracker import Tracker

NAMED = 3
"""Trials that MLflow lacks are named up to this number."""


@dataclass(frozen=True)
class Ended:
    """A sweep that has ended.

    Attributes:
        sweep: its folder.
        uri: of MLflow's store.
        complete: whether all trials have succeeded and MLflow has all of them.
        timed_out: whether its time limit has ended it in good order, so that trials are left.
    """

    sweep: SweepFolder
    uri: str
    complete: bool
    timed_out: bool = False


def run(
    space: str | SearchSpace,
    directory: Path,
    execution: Execution,
    name: str | None,
    session: Session,
    after: str | None = None,
    **choices: Any,
) -> Ended:
    """Runs a sweep over a space.

    The search begins with the trials of the sweep `after`, if that is given. `choices` are those of
    `study.sweep.search_plan.make_plan`.
    """
    plan = planned(space, name, **choices)
    if after is None:
        return _begin(plan, directory, execution, session)
    plan = planned_after(plan, directory, after)
    return _begin(plan, directory, execution, session, [overview.beginning(plan)])


def confirm(
    directory: Path,
    tuned_name: str,
    changes: Mapping[str, Any],
    name: str | None,
    overrides: Flat,
    session: Session,
    **choices: Any,
) -> Ended:
    """Confirms a sweep on fresh seeds.

    `session` says how long it may take and who is told; the other arguments are those of `planned_confirmation`.
    """
    plan, execution, notes = planned_confirmation(directory, tuned_name, changes, name, overrides, **choices)
    return _begin(plan, directory, execution, session, notes)


def planned_confirmation(
    directory: Path, tuned_name: str, changes: Mapping[str, Any], name: str | None, overrides: Flat, **choices: Any
) -> tuple[Plan, Execution, list[str]]:
    """The plan of a confirmation, where it runs, and notes.

    Args:
        directory: folder of all sweeps.
        tuned_name: the sweep to confirm.
        changes: to its execution; how many trials run at once is chosen anew.
        name: of the confirmation; None: after the sweep.
        overrides, choices: as in `study.sweep.confirmation_plan.make_confirmation`.
    """
    from study.sweep import confirmation_plan

    tuned = SweepFolder.open(directory, tuned_name)
    others, notes = _tunings(directory)
    plan = confirmation_plan.make_confirmation(
        tuned,
        name=confirmation_plan.default_name(tuned_name, overrides) if name is None else name,
        overrides=overrides,
        others=others,
        **choices,
    )
    notes += _software_notes(tuned)
    undone = winners.trial_count(tuned) - sum(history.is_done for history in tuned.histories())
    if undone:
        notes.append(f"{undone} trials of {tuned_name!r} are not done; the best of the others are confirmed.")
    notes += [
        f"no trial of {label} has finished with an objective, so none of it was selected."
        for label in confirmation_plan.unconfirmed(tuned, plan, choices["scenarios"], choices["methods"])
    ]
    notes += _too_few_seeds(plan)
    before = tuned.execution.model_copy(update={"workers": None, "gpus_per_trial": None, "pack": None})
    return plan, _changed(before, changes), notes


def _too_few_seeds(plan: Plan) -> list[str]:
    """A note if no difference between winners can be significant.

    Or, if the confirmation ends when it is decided, if the batches are too small to decide anything.
    """
    from analysis import statistics, tables
    from analysis.paper import claims
    from study.decision.rule import FEWEST

    if plan.rule:
        few = (
            f"with batches of {plan.lanes} seeds nothing is decided before {FEWEST}, and each of {plan.rule.looks} looks widens "
            f"all intervals; --batch {FEWEST} needs fewer looks."
        )
        return [few] if plan.lanes < FEWEST else []
    tuned = Counter(group.scenario for group in plan.groups if any(origin.rank == 1 for origin in group.origins))
    comparisons = len(tables.QUANTITIES) * sum(math.comb(methods, 2) for methods in tuned.values())
    seeds = len(plan.seeds)
    if not comparisons or statistics.least_p(seeds, comparisons) <= claims.ALPHA:
        return []
    least = statistics.least_lanes(claims.ALPHA / comparisons)
    return [
        f"with {seeds} {'seed' if seeds == 1 else 'seeds'} no difference between the winners can be significant, however "
        f"large: {comparisons} comparisons at level {claims.ALPHA:g} take at least {least} seeds; to compare methods, "
        f"interrupt this and use --seeds {least}."
    ]


def _tunings(directory: Path) -> tuple[list[Plan], list[str]]:
    """The plans of all tuning sweeps, and notes.

    There is a note on each sweep that cannot be read.
    """
    plans, notes = [], []
    for name in folder.names(directory):
        try:
            plans.append(SweepFolder.open(directory, name).plan)
        except StudyError as error:
            notes.append(f"cannot tell whether the seeds of {name!r} are fresh: {error}")
    return [plan for plan in plans if plan.phase != "confirm"], notes


def resume(directory: Path, name: str, changes: Mapping[str, Any], trials: int | None, session: Session) -> Ended:
    """Continues a sweep.

    Args:
        directory: folder of all sweeps.
        name: of the sweep.
        changes: to its execution.
        trials: a larger budget; None: as planned.
        session: how long it may take, and who is told.
    """
    sweep = SweepFolder.open(directory, name)
    sweep.outcomes()  # refuses a damaged record before Ray starts
    if trials is not None:
        planned_trials = max(group.trials for group in sweep.plan.groups)
        if trials < planned_trials:
            raise StudyError(
                f"--trials {trials} is fewer than the {planned_trials} that {name!r} has already; a budget can only grow."
            )
        sweep.plan.with_trials(trials)
    execution = _changed(sweep.execution, changes)
    from study.tracking import artifacts, faults, store

    uri = store.tracking_uri(directory, execution)
    faults.patiently(lambda: store.check_experiment(uri, sweep), terminal.complain)
    artifacts.check_place(uri, sweep)
    execution = _with_checked_storage(execution)
    material = datasets.load(sweep.plan, Path(execution.data_dir), trained_here=execution.is_local)
    from study.cluster import connection

    place = sweep.checkpoint_place(execution)
    terminal.begin(f"{name}: starting Ray")
    with (
        sweep.locked(),
        session.told(name) as ending,
        connection.connected(execution, sweep.plan, place) as (resolved, notes),
    ):
        for note in (*notes, *_software_notes(sweep), *_secret_notes(uri)):
            terminal.complain(f"note: {note}")
        if trials is not None:
            sweep.log("budget", trials=trials)
        return _launch(SweepFolder.open(directory, name), execution, resolved, material, uri, session, ending)


def _software_notes(sweep: SweepFolder) -> list[str]:
    """A note if this software is not that of the sweep's last trial."""
    last = facts_in_order(sweep.histories())[-1:]
    configs = [sweep.plan.trial_config(group, extremes(group)[0]) for group in sweep.plan.groups]
    installed = {name: found for config in configs for name, found in parts.installed(config).items()}
    earlier = last[0].get("parts", {}) if last else {}
    here = {"parts": {name: found for name, found in installed.items() if name in earlier}, **provenance.software()}
    changes = provenance.software_changes([*last, here])
    notes = [f"the software is not that of the earlier trials, so numbers may differ: {changes}."] if changes else []
    return [
        *notes,
        *(f"{change}; this sweep keeps to what was read." for change in outside.changes(sweep.plan.files)),
    ]


def planned(space: str | SearchSpace, name: str | None = None, **choices: Any) -> Plan:
    """The plan of a sweep over a search space.

    Args:
        space: the space, its name, or the path of its file.
        name: of the sweep; None: that of the space.
        choices: as in `study.sweep.search_plan.make_plan`.

    Raises:
        StudyError: the space, a choice or a setting is not possible.
    """
    space = search_plan.load_space(space) if isinstance(space, str) else search_plan.adopted(space, Path())
    return search_plan.make_plan(space, name=space.name if name is None else name, **choices)


def planned_after(plan: Plan, directory: Path, after: str) -> Plan:
    """The plan, begun with the trials of an earlier sweep.

    Raises StudyError if there is no such sweep, or its trials do not fit.
    """
    from study.sweep.upkeep import predecessor

    return predecessor.begun_after(plan, SweepFolder.open(directory, after))


@dataclass(frozen=True)
class Prepared:
    """What a new sweep needs before it starts Ray.

    Attributes:
        execution: where it runs, with its storage and store in full.
        material: what its trials are made of.
        uri: of MLflow's store.
        checkpoint_place: folder or address of the checkpoints.
    """

    execution: Execution
    material: Material
    uri: str
    checkpoint_place: str


def prepare(
    plan: Plan, directory: Path, execution: Execution, dataset_of: DatasetSource = experiment.load_dataset
) -> Prepared:
    """Checks all that a new sweep needs except Ray.

    Starts and writes nothing.

    Args:
        plan: what the sweep tries.
        directory: folder of all sweeps.
        execution: where it is to run.
        dataset_of: where the data sets come from, see `study.sweep.datasets.load`.

    Raises:
        StudyError: the name is taken, a folder or the store cannot be used, or the data is not available or too small.
    """
    folder.check_new(directory, plan.name)
    from study.tracking import faults, store

    execution = _with_checked_storage(execution)
    material = datasets.load(plan, Path(execution.data_dir), dataset_of, trained_here=execution.is_local)
    uri = store.tracking_uri(directory, execution)
    if uri != store.default_uri(directory):
        execution = execution.model_copy(update={"tracking_uri": uri})  # the environment may name another one later
    faults.patiently(lambda: store.check_new_experiment(uri, plan.name), terminal.complain)
    place = execution.storage or folder.own_checkpoint_place(directory, plan.name)
    return Prepared(execution, material, uri, place)


def _changed(execution: Execution, changes: Mapping[str, Any]) -> Execution:
    """The execution with those changes that are not None."""
    return execution.model_copy(update={name: value for name, value in changes.items() if value is not None})


def _with_checked_storage(execution: Execution) -> Execution:
    """The execution with the path of its storage in full.

    Raises StudyError if it cannot be a storage.
    """
    if execution.storage is None:
        return execution
    return execution.model_copy(update={"storage": storage.check(execution.storage)})


def _begin(plan: Plan, directory: Path, execution: Execution, session: Session, notes: Sequence[str] = ()) -> Ended:
    """Prepares and runs a new sweep."""
    prepared = prepare(plan, directory, execution)
    execution = prepared.execution
    terminal.begin(f"{plan.name}: {overview.size(plan)}; starting Ray")
    from study.cluster import connection

    with (
        session.told(plan.name) as ending,
        connection.connected(execution, plan, prepared.checkpoint_place) as (resolved, more),
    ):
        plan = plan.model_copy(update={"batch": resolved.pack or 1})
        sweep = SweepFolder.create(directory, plan, execution, prepared.material.task_counts)
        for note in (*notes, *more, *_secret_notes(prepared.uri)):
            terminal.complain(f"note: {note}")
        with sweep.locked():
            return _launch(sweep, execution, resolved, prepared.material, prepared.uri, session, ending)


def _secret_notes(uri: str) -> list[str]:
    """A note if later commands will lack a password given to this one."""
    if not redaction.is_for_now(uri):
        return []
    if uri.startswith("http"):
        return [
            "the password in MLflow's address is used now and kept nowhere; later commands find it in "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        ]
    return [
        "the password in MLflow's address is used now and kept nowhere; later commands find it in MLFLOW_TRACKING_URI, as a "
        "part of the address, or where the database's driver looks for it, such as PGPASSWORD."
    ]


def _launch(
    sweep: SweepFolder,
    asked: Execution,
    resolved: Execution,
    material: Material,
    uri: str,
    session: Session,
    ending: Ending,
) -> Ended:
    """Runs the trials that are left.

    Ray has been started and the sweep is locked. `ending` is filled with what is to be told.
    """
    from study.cli import pictures, ui
    from study.cluster import tuner
    from study.tracking.runs import SweepView
    from study.tracking.tracker import Tracker

    how_to_continue = f"continue with: {sweep.command('resume')}"
    with Interruption(f"interrupted at once; {how_to_continue}") as interruption:
        with (
            Progress(sweep, resolved.workers, resolved.pack) as progress,
            ui.beside(sweep, uri, progress.say) if session.is_shown else nullcontext(),
        ):
            tracker = Tracker(SweepView(sweep, uri, pictures.Pictures()), progress.say)
            outcome = None
            try:
                outcome = tuner.launch(
                    sweep,
                    sweep.begin_session(asked, resolved),
                    resolved,
                    material.datasets,
                    lambda: interruption.requested or session.is_over,
                    (progress, tracker),
                )
            except OSError as error:  # before the first trial; later ones are in the outcome's fault
                raise Halted(f"the sweep could not start: {error}; once that is fixed, {how_to_continue}") from None
            finally:
                is_done = outcome is not None and not outcome.fault and not outcome.interrupted
                logged = tracker.close(hurried=lambda: interruption.requested or not is_done)
                with suppress(OSError):  # a full disk is reported elsewhere
                    sweep.log("logged", complete=logged, seconds=round(tracker.seconds, 3))
        overview.show_results(sweep)
        _write_optuna_storage(sweep)
        exported = not logged or outcome.interrupted or _export_best(sweep, uri)
        if not logged:
            _tell_what_is_missing(sweep, uri, tracker)
        for history in outcome.failed:
            terminal.complain(f"failed: {history.key} ({history.name}): {history.reason}")
            if sweep.traceback_file(history.key).is_file():
                terminal.complain(f"its traceback: {sweep.traceback_file(history.key)}")
    if outcome.fault:
        raise Halted(f"the sweep had to stop: {outcome.fault}; once that is fixed, {how_to_continue}")
    done = sum(history.is_done for history in outcome.histories)
    ending.text = f"{done} of {winners.trial_count(sweep)} trials are done"
    if outcome.failed:
        ending.state, ending.text = "failed", f"{ending.text}, and {len(outcome.failed)} failed"
    if outcome.interrupted and session.is_over and not interruption.requested:
        ending.state, ending.text = "time limit", f"the time limit has passed; {ending.text}; {how_to_continue}"
        terminal.console.print(f"\n{ending.words}", markup=False, soft_wrap=True)
        return Ended(sweep, uri, complete=False, timed_out=logged and not outcome.failed)
    if outcome.interrupted:
        raise Interrupted(f"interrupted; {how_to_continue}")
    overview.show_next_steps(sweep, uri, is_logged=logged)
    return Ended(sweep, uri, complete=logged and exported and not outcome.failed)


def _tell_what_is_missing(sweep: SweepFolder, uri: str, tracker: Tracker) -> None:
    """Prints what MLflow lacks, why, and how it gets there."""
    keys = tracker.unsent
    some = ", ".join(keys[:NAMED]) + (f" and {len(keys) - NAMED} more" if len(keys) > NAMED else "")
    lacks = f"{len(keys)} of {len(sweep.histories())} trials ({some})" if keys else "the end of the sweep"
    terminal.complain(f"Not everything reached MLflow: {uri} lacks {lacks}, because {tracker.fault}")
    terminal.complain(
        f"Nothing is lost: every result is in {sweep.root}; once MLflow is available: {sweep.command('sync')}, then "
        f"{sweep.command('export')}"
    )


def _write_optuna_storage(sweep: SweepFolder) -> None:
    """Updates Optuna's own storage, or prints why not."""
    from study.sweep import optuna_storage

    try:
        optuna_storage.write(sweep)
    except StudyError as error:
        terminal.complain(f"note: {error}")


def _export_best(sweep: SweepFolder, uri: str) -> bool:
    """Writes files of the best trials, or prints why not.

    Returns whether all are there.
    """
    from study.sweep import export
    from study.tracking import faults, store

    best = winners.best_keys(configurations(sweep.plan, sweep.histories()))
    if not best:
        return True
    try:
        run_ids = faults.patiently(lambda: store.run_ids(uri, sweep), terminal.complain)
        for path in export.export_best(sweep, sweep.root / "best", run_ids):
            terminal.console.print(f"exported {path}", markup=False, soft_wrap=True)
    except StudyError as error:
        terminal.complain(f"not exported: {error}")
    return all((sweep.root / "best" / f"{key}.yaml").is_file() for key in best)
