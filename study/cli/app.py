"""The command line: words in, exit code out. 0 done, 1 a trial failed or the sweep had to stop, 2 bad input, 130 interrupted."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from study.cli.options import (
    Address,
    CpusPerTrial,
    DataDir,
    Directory,
    GpusPerTrial,
    Name,
    PricePerHour,
    Settings,
    Storage,
    TrackingUri,
    Workers,
    checked_execution,
    data_folder,
    execution_changes,
    parse_overrides,
    parse_widths,
)
from study.errors import Halted, Interrupted, StudyError
from study.sweep.execution import DEFAULT_DIRECTORY

app = typer.Typer(
    name="study",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Does sharpness regularisation (SAM, GNP) keep a network able to learn? Sweeps over methods and settings on "
    "sequences of tasks: run them, compare them in MLflow, export the best.\n\n"
    "Begin with:  [bold]study run quickstart[/bold]",
)


UsageFault: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What Typer raises when the words make no command: the installed Click's, or that of the Click that newer Typers bring."""


@app.command(
    epilog="Examples:\n\n"
    "study run quickstart\n\n"
    "study run paper_grid --set tasks/count=3 --seeds 2\n\n"
    "study run beyond_grid --scenario class_pairs --method sam --method gnp --trials 60 --scheduler asha\n\n"
    "study run ./my_space.py --name first-try --set model/widths=[100,100,100]\n\n"
    "study run paper_grid --set training/batch_size=64 --dry-run"
)
def run(
    space: Annotated[str, typer.Argument(help="A search space by name (see: study list), or the path of a file.")],
    name: Annotated[str | None, typer.Option(help="Name of the sweep; default: the space's.")] = None,
    scenario: Annotated[list[str], typer.Option(help="Only this scenario. Repeatable.")] = [],  # noqa: B006
    method: Annotated[list[str], typer.Option(help="Only this method. Repeatable.")] = [],  # noqa: B006
    trials: Annotated[int | None, typer.Option(help="Trials of each method in each scenario.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds of each trial, trained side by side.")] = None,
    set_: Settings = [],  # noqa: B006
    sampler: Annotated[str, typer.Option(help="tpe, random, gp, cmaes, or nsga2 (accuracy and decline).")] = "tpe",
    scheduler: Annotated[str, typer.Option(help="none, or asha: stop hopeless trials early.")] = "none",
    search_seed: Annotated[int | None, typer.Option(help="Seed of the sampler's draws; default: the space's.")] = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    workers: Workers = None,
    address: Address = None,
    storage: Storage = None,
    directory: Directory = DEFAULT_DIRECTORY,
    data_dir: DataDir = None,
    tracking_uri: TrackingUri = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, show what would be tried and how long it takes; no more."),
    ] = False,
    price_per_hour: PricePerHour = None,
) -> int:
    """Run a sweep over a search space: train, log, compare, export the best."""
    if price_per_hour is not None and not dry_run:
        raise StudyError("--price-per-hour is for an estimate; give it with --dry-run, or to `study show`.")
    execution = checked_execution(
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        workers=workers,
        address=address or os.environ.get("RAY_ADDRESS") or None,
        storage=storage,
        tracking_uri=tracking_uri,
        data_dir=str(data_folder(data_dir)),
    )
    choices: dict[str, Any] = {
        "scenarios": scenario,
        "methods": method,
        "trials": trials,
        "seeds": seeds,
        "overrides": parse_overrides(set_),
        "sampler": sampler,
        "scheduler": scheduler,
        "search_seed": search_seed,
    }
    if dry_run:
        from study.cli import show

        return show.dry_run(space, directory, execution, name, price_per_hour, **choices)
    from study.cli import launch

    return launch.run(space, directory, execution, name, **choices)


@app.command(epilog="Examples:\n\nstudy resume quickstart\n\nstudy resume quickstart --trials 12")
def resume(
    name: Name,
    trials: Annotated[
        int | None, typer.Option(help="A larger budget: trials of each method, old ones counted in.")
    ] = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    workers: Workers = None,
    address: Address = None,
    storage: Storage = None,
    directory: Directory = DEFAULT_DIRECTORY,
    data_dir: DataDir = None,
    tracking_uri: TrackingUri = None,
) -> int:
    """Go on with a sweep that was interrupted, or that is to search longer."""
    from study.cli import launch

    changes = execution_changes(cpus_per_trial, gpus_per_trial, workers, address, storage, data_dir, tracking_uri)
    return launch.resume(directory, name, changes, trials)


@app.command(
    epilog="Examples:\n\nstudy confirm quickstart\n\nstudy confirm beyond_grid --top 3 --seeds 20\n\n"
    "study confirm beyond_grid --set data/name=fashion_mnist"
)
def confirm(
    name: Name,
    top: Annotated[int, typer.Option(help="How many of the best of each method in each scenario.")] = 1,
    seeds: Annotated[int, typer.Option(help="Fresh seeds of each trial.")] = 10,
    first_seed: Annotated[int, typer.Option(help="The first of them; the others count up from it.")] = 1000,
    set_: Settings = [],  # noqa: B006
    scenario: Annotated[list[str], typer.Option(help="Only this scenario. Repeatable.")] = [],  # noqa: B006
    method: Annotated[list[str], typer.Option(help="Only this method. Repeatable.")] = [],  # noqa: B006
    as_: Annotated[
        str | None,
        typer.Option("--name", help="Name of the confirmation; default: NAME-confirm, and -DATA if data/name is set."),
    ] = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    workers: Workers = None,
    address: Address = None,
    storage: Storage = None,
    directory: Directory = DEFAULT_DIRECTORY,
    data_dir: DataDir = None,
    tracking_uri: TrackingUri = None,
) -> int:
    """Run the best of each method, and the paper's own settings, again on fresh seeds that no tuning has used.

    CPUs, cluster, data folder and MLflow are those of the sweep unless given anew. What was tuned cannot be overruled.
    """
    from study.cli import launch

    return launch.confirm(
        directory,
        name,
        execution_changes(cpus_per_trial, gpus_per_trial, workers, address, storage, data_dir, tracking_uri),
        as_,
        parse_overrides(set_),
        top=top,
        seeds=seeds,
        first_seed=first_seed,
        scenarios=scenario,
        methods=method,
    )


@app.command(epilog="Example:\n\nstudy sync quickstart --tracking-uri http://localhost:5000")
def sync(name: Name, directory: Directory = DEFAULT_DIRECTORY, tracking_uri: TrackingUri = None) -> int:
    """Bring MLflow up to date with a sweep's records, after an outage or into another store."""
    from study.cli import sync

    return sync.sync(directory, name, tracking_uri)


@app.command("list", epilog="Example:\n\nstudy list --dir study-results")
def list_(directory: Directory = DEFAULT_DIRECTORY) -> int:
    """List the search spaces and the sweeps there are."""
    from study.cli import overview

    overview.show_all(directory)
    return 0


@app.command(epilog="Examples:\n\nstudy show beyond_grid\n\nstudy show ./my_space.py --no-estimate")
def show(
    space: Annotated[str, typer.Argument(help="A search space by name, or the path of a file.")],
    estimate: Annotated[
        bool, typer.Option("--estimate/--no-estimate", help="Measure for some seconds how long it takes here.")
    ] = True,
    price_per_hour: PricePerHour = None,
    data_dir: DataDir = None,
) -> int:
    """Show what a search space tries, and how long that takes here; for a full command: study run ... --dry-run."""
    from study.cli import show

    return show.show(space, data_folder(data_dir), measured=estimate, price_per_hour=price_per_hour)


@app.command(
    epilog="Examples:\n\nstudy trial study-results/quickstart/best/class_pairs-sam-003.yaml\n\n"
    "study trial my.yaml --set tasks/count=5 --json"
)
def trial(
    file: Annotated[Path, typer.Argument(help="An exported configuration, or one written by hand.")],
    set_: Settings = [],  # noqa: B006
    threads: Annotated[int | None, typer.Option(help="Threads; default: those of the exported trial, or 1.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON a task, numbers in full.")] = False,
    data_dir: DataDir = None,
) -> int:
    """Run one configuration in this process, without Ray, and print each task."""
    from study.cli import trial

    most = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= most:
        raise StudyError(f"--threads must be from 1 to {most}, the processors of this machine, not {threads}.")
    return trial.trial(file, parse_overrides(set_), threads, data_folder(data_dir), as_json)


@app.command(epilog="Example:\n\nstudy best quickstart --top 3")
def best(
    name: Name,
    top: Annotated[int, typer.Option(help="How many of each method.")] = 1,
    directory: Directory = DEFAULT_DIRECTORY,
) -> int:
    """Show the best trials of each method, by the objective."""
    from study.cli import export

    return export.best(directory, name, top)


@app.command(
    epilog="Examples:\n\nstudy export quickstart --to winners\n\nstudy export paper_grid --trial class_pairs-sam-001\n\n"
    "study export quickstart --model"
)
def export(
    name: Name,
    trial: Annotated[list[str], typer.Option(help="This trial instead of the best ones. Repeatable.")] = [],  # noqa: B006
    to: Annotated[Path | None, typer.Option(help="Folder for the files; default: one in the sweep's folder.")] = None,
    model: Annotated[
        bool,
        typer.Option(
            "--model", help="Register the network of each scenario's best confirmed configuration in MLflow instead."
        ),
    ] = False,
    directory: Directory = DEFAULT_DIRECTORY,
    data_dir: DataDir = None,
) -> int:
    """Write the best configuration of each method as a YAML file that `study trial` runs."""
    from study.cli import export

    if model and (trial or to):
        raise StudyError("--model registers networks in MLflow and writes no files: leave out --trial and --to.")
    if model:
        return export.export_models(directory, name, data_folder(data_dir) if data_dir else None)
    return export.export(directory, name, trial, to)


@app.command(
    epilog="Examples:\n\nstudy report quickstart\n\nstudy report analysis/results/paper_grid --to paper-report"
)
def report(
    name: Annotated[str, typer.Argument(help="Name of the sweep, or the folder of an archived one.")],
    to: Annotated[Path | None, typer.Option(help="Folder for the report; default: one in the sweep's folder.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    tracking_uri: TrackingUri = None,
) -> int:
    """Write a report of a sweep and its confirmations: one page, figures, tables, the paper's claims with verdicts."""
    from study.cli import report

    return report.report(directory, name, to, tracking_uri)


@app.command(epilog="Example:\n\nstudy archive paper_grid --to results/paper_grid")
def archive(
    name: Name,
    to: Annotated[Path | None, typer.Option(help="A new folder; default: one in the sweep's folder.")] = None,
    directory: Directory = DEFAULT_DIRECTORY,
    tracking_uri: TrackingUri = None,
) -> int:
    """Keep all numbers of a sweep as a few small files, from which its report and verdicts can be made again."""
    from study.cli import report

    return report.archive(directory, name, to, tracking_uri)


@app.command(epilog="Examples:\n\nstudy doctor\n\nstudy doctor --address auto --storage s3://BUCKET/PREFIX")
def doctor(
    address: Address = None,
    storage: Storage = None,
    directory: Directory = DEFAULT_DIRECTORY,
    data_dir: DataDir = None,
    tracking_uri: TrackingUri = None,
) -> int:
    """Show what the study sees: versions, GPUs, data sets, free disk, MLflow, and each node of Ray. Exit code 1: a problem."""
    from study.cli import doctor

    execution = checked_execution(
        cpus_per_trial=None,
        gpus_per_trial=None,
        workers=None,
        address=address or os.environ.get("RAY_ADDRESS") or None,
        storage=storage,
        tracking_uri=tracking_uri,
        data_dir=str(data_folder(data_dir)),
    )
    return doctor.doctor(directory, execution)


@app.command(
    epilog="Examples:\n\nstudy bench\n\nstudy bench --batch-size 16 --widths 100,100 --lanes 10 --lanes 60 --json"
)
def bench(
    batch_size: Annotated[list[int], typer.Option(help="Images in a minibatch. Repeatable.", min=1)] = [1, 16, 64, 128],  # noqa: B006
    widths: Annotated[list[str], typer.Option(help="Units of each hidden layer. Repeatable.")] = ["100,100", "256,256"],  # noqa: B006
    lanes: Annotated[list[int], typer.Option(help="Seeds trained at once. Repeatable.", min=1)] = [1, 10, 60],  # noqa: B006
    seconds: Annotated[float, typer.Option(help="Time for each cell of the tables in each round.", min=0.001)] = 0.2,
    threads: Annotated[int, typer.Option(help="Threads on the CPU.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data: Annotated[str, typer.Option(help="A data set.")] = "mnist5k",
    data_dir: DataDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON rather than tables.")] = False,
) -> int:
    """Time training on this machine: lanes beside the usual way to write it, and what to set for a sweep."""
    from study.cli import bench

    return bench.bench(
        data=data,
        data_dir=data_folder(data_dir),
        widths=[parse_widths(words) for words in widths],
        batch_sizes=batch_size,
        lane_counts=lanes,
        seconds=seconds,
        threads=threads,
        device=device,
        as_json=as_json,
    )


@app.command(epilog="Example:\n\nstudy ui quickstart")
def ui(
    name: Annotated[str | None, typer.Argument(help="Sweep whose page to open; default: all.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 5000,
    directory: Directory = DEFAULT_DIRECTORY,
    browser: Annotated[bool, typer.Option(help="Open the first link, where there is a screen.")] = True,
    tracking_uri: TrackingUri = None,
) -> int:
    """Serve MLflow's page over the study's store, and say where to look."""
    from study.cli import ui

    return ui.ui(directory, name, tracking_uri, host, port, browser)


def _say(words: str) -> None:
    """Last words on standard error: one line, which a terminal gets wrapped between words."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        words = textwrap.fill(words, width, break_long_words=False, break_on_hyphens=False)
    print(words, file=sys.stderr)


def main() -> None:
    """The program: every fault of the user is one sentence on standard error and exit code 2."""
    from study.cli.interruption import INTERRUPTED

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["MPLBACKEND"] = "agg"  # figures go into files alone; a notebook names one that may not be installed here
    words = ""
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:  # Typer's own answer to Ctrl-C
            words = "interrupted"
    except Interrupted as interruption:
        words, code = str(interruption), INTERRUPTED
    except Halted as fault:
        words, code = str(fault), 1
    except StudyError as error:
        words, code = str(error), 2
    except UsageFault as error:
        said = " ".join(error.format_message().split()).rstrip(".")  # nothing when the help was shown instead
        words, code = said and f"{said}; see: study --help.", 2
    except (KeyboardInterrupt, typer.Abort):
        words, code = "interrupted", INTERRUPTED
    except SystemExit as leaving:
        if leaving.code != signal.SIGTERM:
            raise
        words, code = "interrupted", INTERRUPTED  # Ray's own answer to SIGTERM while it starts
    if words:
        _say(f"study: {words}")
    sys.exit(code)
