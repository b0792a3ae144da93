"""The study from Python: the commands as functions.

    import study

    study.trial({"optimizer/name": "sam", "seeds": [0, 1]})  # the rows of one trial, trained in this process
    sweep = study.run("quickstart", trials=3)  # a sweep, on Ray
    sweep.trials  # a row per trial
    study.confirm("quickstart")
    study.report("quickstart")

The names of settings, their meaning and all messages are those of the command line, which calls these functions. A request
that cannot be met raises `study.StudyError`; an interruption and a sweep that had to stop raise kinds of it, and their messages
say how to continue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from study.cli.options import Where, check_threads, data_folder, execution_changes, new_execution
from study.cli.upkeep.session import Session
from study.config import MOST_TRIALS, Flat, flattened, nested
from study.parts import outside
from study.sweep.execution import DEFAULT_DIRECTORY

if TYPE_CHECKING:  # slow to import
    import pandas as pd

    from search_spaces import SearchSpace
    from study.cli.launch import Ended
    from study.sweep.record import TrialHistory

Settings = Mapping[str, Any]
"""Settings by slash name, `{"training/batch_size": 32}`; nested ones are as good."""


@dataclass(frozen=True)
class Sweep:
    """A sweep on disk, finished or not.

    Its numbers are read from its records.

    Attributes:
        name: of the sweep.
        directory: folder of all sweeps.
        complete: whether all planned trials have succeeded and, after a run, MLflow has all of them.
        timed_out: whether its time limit has ended it in good order, so that trials are left.
    """

    name: str
    directory: Path
    complete: bool
    timed_out: bool = False

    @property
    def trials(self) -> pd.DataFrame:
        """One row per trial: settings tried, outcome, summary.

        In a race a trial has some seeds of a configuration: then `configuration` and `seeds` say which.
        """
        import pandas as pd

        from study.sweep.folder import SweepFolder
        from study.sweep.race.configurations import places

        folder = SweepFolder.open(self.directory, self.name)
        histories = folder.histories()
        return pd.DataFrame([{**history.row, **places(folder.plan, history)} for history in histories])

    @property
    def lanes(self) -> pd.DataFrame:
        """One row per trial, task and seed: all measurements."""
        import pandas as pd

        from study.cli import trial

        return pd.DataFrame(
            {"trial": history.key, "scenario": history.scenario, "method": history.method, **row}
            for history in self._histories()
            for line in history.tasks
            for row in trial.rows(line, history.seeds)
        )

    def best(self, top: int = 1) -> pd.DataFrame:
        """The best trials of each method and scenario, best first.

        By the sweep's objective, the first of two. Raises StudyError if there is nothing to choose from.
        """
        import pandas as pd

        from study.sweep import winners
        from study.sweep.folder import SweepFolder
        from study.sweep.plan import check_count

        check_count("top", top, MOST_TRIALS)
        histories = winners.check_selectable(SweepFolder.open(self.directory, self.name))
        row_of = {history.key: history.row for history in histories}
        return pd.DataFrame([row_of[key] for key in winners.best_keys(histories, top)])

    def _histories(self) -> list[TrialHistory]:
        from study.sweep.folder import SweepFolder

        return SweepFolder.open(self.directory, self.name).histories()


def trial(
    config: Settings | str | Path,
    *,
    settings: Settings | None = None,
    threads: int | None = None,
    data_dir: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """Trains one configuration here, a row per seed and task.

    `pandas.DataFrame(study.trial(...))` is a table of it. The configuration is checked at once and trained while rows are read.

    Args:
        config: settings and `seeds`, or a YAML file of them; what it leaves out has its default.
        settings: that replace some of its settings.
        threads: to train with; default: 1.
        data_dir: folder of downloaded data sets.

    Raises:
        StudyError: it is no configuration, or its data set is not available.
    """
    from study.cli import trial
    from study.experiment import build, load_dataset

    overrides = _flat(settings)
    if isinstance(config, str | Path):
        complete, _ = trial.read_trial(Path(config), overrides)
    else:
        complete = trial.complete(nested(config), Path(), overrides, "the configuration")
    if threads is not None:
        check_threads(threads)
    experiment = build(complete, load_dataset(complete, data_folder(data_dir)))
    return (row for line in trial.lines(experiment, threads or 1) for row in trial.rows(line, complete.seeds))


def run(
    space: str | SearchSpace,
    name: str | None = None,
    *,
    directory: str | Path = DEFAULT_DIRECTORY,
    scenarios: Sequence[str] = (),
    methods: Sequence[str] = (),
    trials: int | None = None,
    seeds: int | None = None,
    settings: Settings | None = None,
    sampler: str = "tpe",
    scheduler: str = "none",
    search_seed: int | None = None,
    objectives: str | Sequence[str] = (),
    after: str | None = None,
    time_limit: str | float | None = None,
    notify: str | None = None,
    ui: bool = False,
    **where: Unpack[Where],
) -> Sweep:
    """Runs a sweep over a search space, as `study run`.

    Args:
        space: a search space, the name of one, or the path of its file.
        name: of the sweep; default: that of the space.
        directory: folder of all sweeps.
        scenarios, methods: only these; default: all of the space.
        trials: of each method in each scenario; default: those of the space.
        seeds: of each trial; default: those of the space.
        settings: that have the last word, by slash name.
        sampler, scheduler, search_seed: of the search.
        objectives: what it optimises, as with `--objective`; default: that of the space.
        after: name of an earlier sweep with whose trials the search begins.
        time_limit: after which it ends in good order, to be resumed: seconds, or a text such as "2h".
        notify: a command or address that is told when it is done or has failed.
        ui: whether MLflow's page is served on this machine while it runs.
        where: see `study.cli.options.Where`.

    Raises:
        StudyError: the request cannot be met; nothing has been started.
        Interrupted, Halted: the sweep is not done; the message says how to continue.
    """
    from study.cli import launch

    ended = launch.run(
        space,
        Path(directory),
        new_execution(**where),
        name,
        Session.of(time_limit, notify, ui=ui),
        after,
        scenarios=scenarios,
        methods=methods,
        trials=trials,
        seeds=seeds,
        overrides=_flat(settings),
        sampler=sampler,
        scheduler=scheduler,
        search_seed=search_seed,
        objectives=objectives,
    )
    return _sweep(ended)


def resume(
    name: str,
    *,
    directory: str | Path = DEFAULT_DIRECTORY,
    trials: int | None = None,
    time_limit: str | float | None = None,
    notify: str | None = None,
    ui: bool = False,
    **where: Unpack[Where],
) -> Sweep:
    """Continues a sweep, or searches longer, as `study resume`.

    Args:
        name: of the sweep.
        directory: folder of all sweeps.
        trials: a larger budget, earlier trials included; default: as before.
        time_limit, notify: as `run`.
        ui: whether MLflow's page is served on this machine while it runs.
        where: see `study.cli.options.Where`; default: as before.

    Raises:
        StudyError, Interrupted, Halted: as `run`.
    """
    from study.cli import launch

    session = Session.of(time_limit, notify, ui=ui)
    return _sweep(launch.resume(Path(directory), name, execution_changes(**where), trials, session))


def confirm(
    name: str,
    *,
    directory: str | Path = DEFAULT_DIRECTORY,
    top: int = 1,
    incumbents: bool = False,
    seeds: int | None = None,
    until_decided: bool = False,
    batch: int | None = None,
    first_seed: int = 1000,
    settings: Settings | None = None,
    scenarios: Sequence[str] = (),
    methods: Sequence[str] = (),
    confirmation: str | None = None,
    time_limit: str | float | None = None,
    notify: str | None = None,
    ui: bool = False,
    **where: Unpack[Where],
) -> Sweep:
    """Confirms the best trials on fresh seeds, as `study confirm`.

    Args:
        name: of the sweep.
        directory: folder of all sweeps.
        top: how many of the best trials per method and scenario.
        incumbents: whether all trials that were the best so far are confirmed too, to show over-tuning.
        seeds, first_seed: this many consecutive seeds from the first one; default: 10, or 30 until decided.
        until_decided: whether a method ends when its differences from all others are decided.
        batch: seeds between two decisions; default: 6.
        settings: that differ from the tuning, by slash name; never one that was tuned.
        scenarios, methods: only these; default: all of the sweep.
        confirmation: its name; default: that of the sweep and "-confirm".
        time_limit, notify, ui: as `run`.
        where: see `study.cli.options.Where`; default: as the sweep.

    Raises:
        StudyError, Interrupted, Halted: as `run`.
    """
    from study.cli import launch

    ended = launch.confirm(
        Path(directory),
        name,
        execution_changes(**where),
        confirmation,
        _flat(settings),
        Session.of(time_limit, notify, ui=ui),
        top=top,
        incumbents=incumbents,
        seeds=seeds,
        until_decided=until_decided,
        batch=batch,
        first_seed=first_seed,
        scenarios=scenarios,
        methods=methods,
    )
    return _sweep(ended)


def report(
    name: str,
    *,
    directory: str | Path = DEFAULT_DIRECTORY,
    to: Path | None = None,
    tracking_uri: str | None = None,
    formats: Sequence[str] = (),
    paper: bool = False,
) -> Path:
    """Writes the report of a sweep; returns its page.

    Args:
        name: of the sweep, or the folder of an archived one.
        directory: folder of all sweeps.
        to: a new folder for the report; default: beside the sweep.
        tracking_uri: of MLflow's store; default: that of the sweep.
        formats: svg and pdf for figures, parquet and latex for tables, beside png and csv.
        paper: whether the paper's claims are judged, whatever the sweep is about.

    Raises:
        StudyError: there is no such sweep or format, or the report cannot be written.
    """
    from study.cli import report

    page, _ = report.write(Path(directory), name, to, tracking_uri, formats=formats, paper=paper)
    return page


def compare(
    *names: str,
    directory: str | Path = DEFAULT_DIRECTORY,
    to: Path | None = None,
    quantity: str = "accuracy",
    baseline: str = "sgd",
    formats: Sequence[str] = (),
    tracking_uri: str | None = None,
) -> Path:
    """Compares sweeps, as `study compare`; returns the page.

    Args:
        names: of two or more sweeps, or the folders of archived ones; the first is what the others are compared with.
        directory: folder of all sweeps.
        to: a new folder for the page; default: one in the folder of all sweeps.
        quantity: accuracy, late_accuracy, decline or decline_after_warmup, of test accuracy.
        baseline: the method that the others are compared with.
        formats: svg and pdf for figures, parquet and latex for tables, beside png and csv.
        tracking_uri: of MLflow's store; default: that of each sweep.

    Raises:
        StudyError: there is no such sweep, nothing is comparable, or the page cannot be written.
    """
    from study.cli import report

    return report.compare(
        Path(directory), names, to, tracking_uri, quantity=quantity, baseline=baseline, formats=formats
    )


def load(name: str, *, directory: str | Path = DEFAULT_DIRECTORY) -> Sweep:
    """A sweep that has been started before.

    Raises StudyError if there is none of that name.
    """
    from study.sweep import winners
    from study.sweep.folder import SweepFolder

    folder = SweepFolder.open(Path(directory), name)
    outcomes = folder.outcomes()
    return Sweep(name, Path(directory), outcomes["finished"] + outcomes["stopped"] == winners.trial_count(folder))


def _sweep(ended: Ended) -> Sweep:
    return Sweep(ended.sweep.plan.name, ended.sweep.directory, ended.complete, ended.timed_out)


def _flat(settings: Settings | None) -> Flat:
    """Settings by slash name, with the files of parts read."""
    return outside.adopted(flattened(nested(settings or {})), Path())
