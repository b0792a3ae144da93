"""The commands of `study` and their options.

Exit codes: 0 done, or ended by its time limit; 1 a trial failed, the sweep had to stop, MLflow is incomplete or the output
could not be written, or the user did not agree; 2 bad input; 130 interrupted.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from study import __version__
from study.cli import api, output, source, terminal
from study.cli.options import (
    Address,
    After,
    AsJson,
    BatchSizes,
    CpusPerTrial,
    DataDir,
    Directory,
    DryRun,
    FilesFolder,
    Formats,
    GpusPerTrial,
    Host,
    LaneCounts,
    Name,
    NewFolder,
    Notify,
    Pack,
    Page,
    PricePerHour,
    Seconds,
    Settings,
    SpaceName,
    Storage,
    TimeLimit,
    TrackingUri,
    Where,
    Workers,
    Yes,
    check_threads,
    data_folder,
    execution_changes,
    new_execution,
    parse_overrides,
    parse_widths,
    path,
    path_text,
)
from study.errors import Halted, Interrupted, StudyError, one_sentence
from study.sweep.execution import DEFAULT_DIRECTORY

COLLECTED_AFTER = 50_000
"""New objects after which Python looks for garbage, see `gc.set_threshold`.

Imports make hundreds of thousands of objects that live to the end; at Python's own 700 it walks them again and again.
"""

HELP = (
    "Does sharpness regularisation (SAM, GNP) keep a network able to learn? Tune methods on sequences of tasks, "
    "compare the trials in MLflow, confirm the best on fresh seeds, and export them.\n\n"
    "Start with:  [bold]study run quickstart[/bold]"
)

app = typer.Typer(
    name="study",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=HELP,
)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"study {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
def _everywhere(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Options before the name of a command."""


UsageFault: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
"""What Typer raises for a malformed command line.

It is an exception of the installed Click, or of the copy of Click within newer versions of Typer.
"""


@app.command(
    epilog="Examples:\n\n"
    "study run quickstart\n\n"
    "study run paper_grid --set tasks/count=3 --seeds 2\n\n"
    "study run beyond_grid --scenario class_pairs --method sam --method gnp --trials 60 --scheduler asha\n\n"
    "study run ./my_space.py --name first-try --set model/widths=[100,100,100]\n\n"
    "study run paper_grid --set training/batch_size=64 --dry-run"
)
def run(
    space: SpaceName,
    name: Annotated[str | None, typer.Option(help="Name of the sweep; default: that of the space.")] = None,
    scenario: Annotated[list[str], typer.Option(help="Run only this scenario. Repeatable.")] = [],  # noqa: B006
    method: Annotated[list[str], typer.Option(help="Run only this method. Repeatable.")] = [],  # noqa: B006
    trials: Annotated[int | None, typer.Option(help="Trials per method and scenario.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Seeds per trial, trained together.")] = None,
    set_: Settings = [],  # noqa: B006
    sampler: Annotated[
        str, typer.Option(help="tpe, random, gp, cmaes or nsga2 (which can optimize two objectives).")
    ] = "tpe",
    scheduler: Annotated[
        str,
        typer.Option(
            help="none; asha, which stops hopeless trials early; or race, where the better half gets more seeds, and so on: "
            "--trials is then the number of configurations."
        ),
    ] = "none",
    objective: Annotated[
        list[str],
        typer.Option(
            help="What the search optimizes: accuracy, late_accuracy, decline, decline_after_warmup, online_accuracy, or a "
            "logged quantity as NAME:max or NAME:min; never test accuracy. Twice with --sampler nsga2. Default: that of the "
            "space, or accuracy; with nsga2 accuracy and decline."
        ),
    ] = [],  # noqa: B006
    search_seed: Annotated[int | None, typer.Option(help="Seed of the sampler; default: that of the space.")] = None,
    after: After = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    workers: Workers = None,
    pack: Pack = None,
    address: Address = None,
    storage: Storage = None,
    directory: Directory = DEFAULT_DIRECTORY,
    data_dir: DataDir = None,
    tracking_uri: TrackingUri = None,
    time_limit: TimeLimit = None,
    notify: Notify = None,
    ui: Page = False,
    dry_run: DryRun = False,
    price_per_hour: PricePerHour = None,
) -> int:
    """Run a sweep over a search space.

    Trains, logs to MLflow, compares the trials, and exports the best ones.
    """
    _check_dry(dry_run, ui, price_per_hour)
    overrides = parse_overrides(set_)
    choices: dict[str, Any] = {
        "scenarios": scenario,
        "methods": method,
        "trials": trials,
        "seeds": seeds,
        "sampler": sampler,
        "scheduler": scheduler,
        "search_seed": search_seed,
        "objectives": objective,
        "after": after,
    }
    where: Where = {
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "workers": workers,
        "pack": pack,
        "address": address,
        "storage": storage,
        "data_dir": data_dir,
        "tracking_uri": tracking_uri,
    }
    terminal.begin(f"checking {space}: plan, data and MLflow")
    if dry_run:
        from study.cli import show

        execution = new_execution(**where)
        return show.dry_run(space, directory, execution, name, price_per_hour, overrides=overrides, **choices)
    return _exit_code(
        api.run(
            space,
            name,
            directory=directory,
            settings=overrides,
            time_limit=time_limit,
            notify=notify,
            ui=ui,
            **choices,
            **where,
        )
    )


@app.command(epilog="Examples:\n\nstudy resume quickstart\n\nstudy resume quickstart --trials 12")
def resume(
    name: Name,
    trials: Annotated[
        int | None, typer.Option(help="A larger budget: trials per method, including earlier ones.")
    ] = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    workers: Workers = None,
    pack: Pack = None,
    address: Address = None,
    storage: Storage = None,
    directory: Directory = DEFAULT_DIRECTORY,
    data_dir: DataDir = None,
    tracking_uri: TrackingUri = None,
    time_limit: TimeLimit = None,
    notify: Notify = None,
    ui: Page = False,
) -> int:
    """Continue an interrupted sweep, or search longer."""
    terminal.begin(f"checking {name}: records, data and MLflow")
    sweep = api.resume(
        name,
        directory=directory,
        trials=trials,
        time_limit=time_limit,
        notify=notify,
        ui=ui,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        workers=workers,
        pack=pack,
        address=address,
        storage=storage,
        data_dir=data_dir,
        tracking_uri=tracking_uri,
    )
    return _exit_code(sweep)


@app.command(
    epilog="Examples:\n\nstudy confirm quickstart\n\nstudy confirm quickstart --until-decided\n\n"
    "study confirm beyond_grid --top 3 --seeds 20\n\nstudy confirm beyond_grid --incumbents --dry-run\n\n"
    "study confirm beyond_grid --set data/name=fashion_mnist"
)
def confirm(
    name: Name,
    top: Annotated[int, typer.Option(help="How many of the best trials per method and scenario.")] = 1,
    incumbents: Annotated[
        bool,
        typer.Option(
            "--incumbents",
            help="Confirm all trials too that were the best so far at some moment of the search: the report then shows confirmed "
            "accuracy against trials spent, and over-tuning.",
        ),
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(help="Fresh seeds per trial; default 10, with --until-decided at most 30.")
    ] = None,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="Train seeds in batches; end a method when its differences from all others are decided.",
        ),
    ] = False,
    batch: Annotated[int | None, typer.Option(help="Seeds in a batch of --until-decided; default 6.")] = None,
    first_seed: Annotated[int, typer.Option(help="The first seed; the others follow it.")] = 1000,
    set_: Settings = [],  # noqa: B006
    scenario: Annotated[list[str], typer.Option(help="Run only this scenario. Repeatable.")] = [],  # noqa: B006
    method: Annotated[list[str], typer.Option(help="Run only this method. Repeatable.")] = [],  # noqa: B006
    as_: Annotated[
        str | None,
        typer.Option("--name", help="Name of the confirmation; default: NAME-confirm, plus -DATA if data/name is set."),
    ] = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    workers: Workers = None,
    pack: Pack = None,
    address: Address = None,
    storage: Storage = None,
    directory: Directory = DEFAULT_DIRECTORY,
    data_dir: DataDir = None,
    tracking_uri: TrackingUri = None,
    time_limit: TimeLimit = None,
    notify: Notify = None,
    ui: Page = False,
    dry_run: DryRun = False,
    price_per_hour: PricePerHour = None,
) -> int:
    """Confirm the best trials on fresh seeds.

    Reruns the best of each method on seeds that no tuning has used, and the paper's own settings if the sweep has the paper's
    data and network. CPUs, cluster, data folder and MLflow store are those of the sweep unless you give others. Settings that
    were tuned cannot be overridden.
    """
    _check_dry(dry_run, ui, price_per_hour)
    overrides = parse_overrides(set_)
    choices: dict[str, Any] = {
        "top": top,
        "incumbents": incumbents,
        "seeds": seeds,
        "until_decided": until_decided,
        "batch": batch,
        "first_seed": first_seed,
        "scenarios": scenario,
        "methods": method,
    }
    where: Where = {
        "cpus_per_trial": cpus_per_trial,
        "gpus_per_trial": gpus_per_trial,
        "workers": workers,
        "pack": pack,
        "address": address,
        "storage": storage,
        "data_dir": data_dir,
        "tracking_uri": tracking_uri,
    }
    terminal.begin(f"checking {name}: winners, data and MLflow")
    if dry_run:
        from study.cli import show

        changes = execution_changes(**where)
        return show.dry_confirmation(name, directory, changes, as_, price_per_hour, overrides, **choices)
    sweep = api.confirm(
        name,
        directory=directory,
        settings=overrides,
        confirmation=as_,
        time_limit=time_limit,
        notify=notify,
        ui=ui,
        **choices,
        **where,
    )
    return _exit_code(sweep)


def _check_dry(dry_run: bool, ui: bool, price_per_hour: float | None) -> None:
    """Raises StudyError if an option does not fit a dry run, or needs one."""
    if ui and dry_run:
        raise StudyError("--ui shows a sweep that runs; leave it out of a --dry-run.")
    if price_per_hour is not None and not dry_run:
        raise StudyError("--price-per-hour belongs to an estimate: add --dry-run, or use `study show`.")


def _exit_code(sweep: api.Sweep) -> int:
    """1 if a trial has failed or MLflow lacks something.

    Trials that a time limit has left do not count.
    """
    return 0 if sweep.complete or sweep.timed_out else 1


@app.command(epilog="Example:\n\nstudy sync quickstart --tracking-uri http://localhost:5000")
def sync(name: Name, directory: Directory = DEFAULT_DIRECTORY, tracking_uri: TrackingUri = None) -> int:
    """Send a sweep's records to MLflow.

    After an outage, or to fill another store.
    """
    terminal.begin(f"comparing the records of {name} with MLflow")
    from study.cli import sync

    return sync.run(directory, name, tracking_uri)


@app.command("list", epilog="Example:\n\nstudy list --dir study-results")
def list_(directory: Directory = DEFAULT_DIRECTORY, as_json: AsJson = False) -> int:
    """List all search spaces and sweeps.

    With the state of each sweep, and since when.
    """
    from study.cli.upkeep import catalogue

    return catalogue.show(directory, as_json=as_json)


@app.command(epilog="Examples:\n\nstudy delete quickstart\n\nstudy delete quickstart --yes")
def delete(
    name: Name,
    yes: Yes = False,
    keep_runs: Annotated[bool, typer.Option("--keep-runs", help="Leave MLflow's runs as they are.")] = False,
    directory: Directory = DEFAULT_DIRECTORY,
    tracking_uri: TrackingUri = None,
) -> int:
    """Delete a sweep: its folder, checkpoints and MLflow's runs.

    Says what goes and asks. Refused are a sweep that is running, links, and a folder with files that the study has not written.
    """
    from study.cli.upkeep import deletion

    return deletion.delete(directory, name, tracking_uri, agreed=yes, keep_runs=keep_runs)


@app.command(epilog="Examples:\n\nstudy clean quickstart\n\nstudy clean quickstart --yes")
def clean(name: Name, yes: Yes = False, directory: Directory = DEFAULT_DIRECTORY) -> int:
    """Delete the checkpoints and Ray's files of done trials.

    Says how many megabytes that are, and asks. The sweep can still be reported, sent to MLflow and searched longer; trials that
    are not done keep their checkpoints.
    """
    from study.cli.upkeep import deletion

    return deletion.clean(directory, name, agreed=yes)


@app.command(epilog="Examples:\n\nstudy show beyond_grid\n\nstudy show ./my_space.py --no-estimate")
def show(
    space: SpaceName,
    estimate: Annotated[
        bool,
        typer.Option("--estimate/--no-estimate", help="Measure for some seconds how long it takes on this machine."),
    ] = True,
    price_per_hour: PricePerHour = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> int:
    """Show what a space tries and how long it takes.

    To check a full command: study run ... --dry-run
    """
    terminal.begin(f"checking {space}")
    from study.cli import show

    folder = data_folder(data_dir)
    return show.run(space, folder, measured=estimate, price_per_hour=price_per_hour, as_json=as_json)


@app.command(
    epilog="Examples, FILE being one of study-results/quickstart/best/*.yaml, of `study export`, or your own:\n\n"
    "study trial FILE\n\nstudy trial FILE --set tasks/count=5 --json"
)
def trial(
    file: Annotated[
        Path,
        typer.Argument(help="A configuration: exported, or written by hand.", parser=path("The file")),
    ],
    set_: Settings = [],  # noqa: B006
    threads: Annotated[int | None, typer.Option(help="Threads; default: as in the exported trial, or 1.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON per task, with all digits.")] = False,
    data_dir: DataDir = None,
) -> int:
    """Run one configuration in this process, without Ray."""
    terminal.begin(f"loading {file}")
    from study.cli import trial

    if threads is not None:
        check_threads(threads)
    return trial.run(file, parse_overrides(set_), threads, data_folder(data_dir), as_json)


@app.command(epilog="Example:\n\nstudy best quickstart --top 3")
def best(
    name: Name,
    top: Annotated[int, typer.Option(help="How many trials per method and scenario.")] = 1,
    directory: Directory = DEFAULT_DIRECTORY,
    as_json: AsJson = False,
) -> int:
    """Show the best trials of each method by the objective."""
    from study.cli import overview

    overview.show_best(directory, name, top, as_json=as_json)
    return 0


@app.command(
    epilog="Examples:\n\nstudy export quickstart --to winners\n\nstudy export paper_grid --trial class_pairs-sam-001\n\n"
    "study export quickstart --model"
)
def export(
    name: Name,
    trial: Annotated[list[str], typer.Option(help="Export this trial instead of the best ones. Repeatable.")] = [],  # noqa: B006
    to: FilesFolder = None,
    model: Annotated[
        bool,
        typer.Option(
            "--model", help="Instead, register the network of each scenario's best confirmed configuration in MLflow."
        ),
    ] = False,
    directory: Directory = DEFAULT_DIRECTORY,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> int:
    """Write the best configuration of each method to a file.

    `study trial` runs these YAML files.
    """
    from study.cli import export

    if model and (trial or to):
        raise StudyError("--model registers networks in MLflow and writes no files: leave out --trial and --to.")
    if model:
        return export.register_models(directory, name, data_folder(data_dir) if data_dir else None, as_json=as_json)
    return export.write_files(directory, name, trial, to, as_json=as_json)


@app.command(
    epilog="Examples:\n\nstudy report quickstart\n\nstudy report analysis/results/paper_grid --to paper-report\n\n"
    "study report quickstart --format pdf --format latex"
)
def report(
    name: Annotated[
        str,
        typer.Argument(
            help="Name of the sweep, or folder of an archived one.",
            parser=path_text("The sweep or its archive"),
        ),
    ],
    to: NewFolder = None,
    format_: Formats = [],  # noqa: B006
    paper: Annotated[
        bool, typer.Option("--paper", help="Judge the paper's claims, whatever the sweep is about.")
    ] = False,
    directory: Directory = DEFAULT_DIRECTORY,
    tracking_uri: TrackingUri = None,
) -> int:
    """Write a report of a sweep and its confirmations.

    The report is one page with figures and tables, which opens offline. If the sweep has the paper's data and network, there is a
    verdict on each of the paper's claims.
    """
    terminal.begin(f"reading the runs of {name}")
    from study.cli import report

    _, complete = report.write(directory, name, to, tracking_uri, formats=format_, paper=paper)
    return 0 if complete else 1


@app.command(
    epilog="Examples:\n\nstudy compare quickstart-confirm other-confirm\n\n"
    "study compare analysis/results/beyond_pairs-confirm analysis/results/beyond_pairs-fashion --to compared"
)
def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Names of two or more sweeps or confirmations, or folders of archived ones; the first is the reference.",
            parser=path_text("The sweep or its archive"),
            show_default=False,
        ),
    ],
    quantity: Annotated[
        str, typer.Option(help="accuracy, late_accuracy, decline or decline_after_warmup, of test accuracy.")
    ] = "accuracy",
    baseline: Annotated[str, typer.Option(help="The method that the others are compared with.")] = "sgd",
    to: NewFolder = None,
    format_: Formats = [],  # noqa: B006
    directory: Directory = DEFAULT_DIRECTORY,
    tracking_uri: TrackingUri = None,
) -> int:
    """Compare the same methods in several sweeps.

    Under other data, networks or assumptions: each method against the baseline, and how that differs from sweep to sweep, paired
    where seeds are shared. Writes one page and changes nothing of the sweeps.
    """
    terminal.begin(f"reading the runs of {', '.join(names)}")
    api.compare(
        *names,
        directory=directory,
        to=to,
        quantity=quantity,
        baseline=baseline,
        formats=format_,
        tracking_uri=tracking_uri,
    )
    return 0


@app.command(epilog="Example:\n\nstudy archive paper_grid --to results/paper_grid")
def archive(
    name: Name,
    to: NewFolder = None,
    directory: Directory = DEFAULT_DIRECTORY,
    tracking_uri: TrackingUri = None,
) -> int:
    """Write all numbers of a sweep to small files.

    `study report` makes the report and its verdicts again from them.
    """
    terminal.begin(f"reading the runs of {name}")
    from study.cli import report

    return report.write_archive(directory, name, to, tracking_uri)


@app.command(epilog="Examples:\n\nstudy doctor\n\nstudy doctor --address auto --storage s3://BUCKET/PREFIX")
def doctor(
    address: Address = None,
    storage: Storage = None,
    directory: Directory = DEFAULT_DIRECTORY,
    data_dir: DataDir = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> int:
    """Check versions, GPUs, data sets, free disk, MLflow and Ray.

    Exit code 1: there is a problem.
    """
    terminal.begin("checking versions, data, MLflow and Ray")
    from study.cli import doctor

    execution = new_execution(address=address, storage=storage, data_dir=data_dir, tracking_uri=tracking_uri)
    return doctor.run(directory, execution, as_json=as_json)


@app.command(
    epilog="Examples:\n\nstudy bench\n\nstudy bench --batch-size 16 --widths 100,100 --lanes 10 --lanes 60 --json"
)
def bench(
    batch_size: BatchSizes = [1, 16, 64, 128],  # noqa: B006
    widths: Annotated[list[str], typer.Option(help="Units of each hidden layer. Repeatable.")] = ["100,100", "256,256"],  # noqa: B006
    lanes: LaneCounts = [1, 10, 60],  # noqa: B006
    model: Annotated[str, typer.Option(help="mlp or cnn; the latter with its default convolutions.")] = "mlp",
    seconds: Seconds = 0.2,
    threads: Annotated[int, typer.Option(help="Threads on the CPU.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data: Annotated[str, typer.Option(help="A data set.")] = "mnist5k",
    data_dir: DataDir = None,
    packs: Annotated[
        bool,
        typer.Option("--packs", help="Measure only what it costs to train several trials of three seeds together."),
    ] = False,
    interventions: Annotated[
        bool,
        typer.Option("--interventions", help="Measure only what a step of ten seeds costs with each intervention."),
    ] = False,
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compare with torch.compile, too; it takes a minute for each number of lanes."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> int:
    """Measure the speed of training on this machine.

    Compares the study's lanes with ordinary training, and advises on settings for a sweep.
    """
    check_threads(threads)
    terminal.begin(f"loading {data}")
    from study.cli import bench

    folder = data_folder(data_dir)
    if packs and interventions:
        raise StudyError("--packs and --interventions are measured one at a time; leave one of them out.")
    if packs or interventions or compiled:
        word = "--packs" if packs else "--interventions" if interventions else "--compile"
        if model != "mlp":
            raise StudyError(f"{word} measures the mlp only; leave out --model {model}.")
    if packs or interventions:
        return (bench.run_packs if packs else bench.run_interventions)(
            data=data, data_dir=folder, seconds=seconds, threads=threads, device=device, as_json=as_json
        )
    return bench.run(
        data=data,
        data_dir=folder,
        widths=[parse_widths(words) for words in widths],
        batch_sizes=batch_size,
        lane_counts=lanes,
        seconds=seconds,
        threads=threads,
        device=device,
        as_json=as_json,
        model=model,
        compiled=compiled,
    )


@app.command(epilog="Example:\n\nstudy ui quickstart")
def ui(
    name: Annotated[str | None, typer.Argument(help="Sweep to show; default: all.")] = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 5000,
    directory: Directory = DEFAULT_DIRECTORY,
    browser: Annotated[bool, typer.Option(help="Open the first link in a browser, if there is a screen.")] = True,
    tracking_uri: TrackingUri = None,
) -> int:
    """Serve MLflow's page on the study's store, with links."""
    terminal.begin("opening MLflow's store")
    from study.cli import ui

    return ui.run(directory, name, tracking_uri, host, port, browser)


def _say(words: str) -> None:
    """Prints a line on standard error, fit to be read.

    Control characters are escaped and what is too long is cut. A terminal gets it wrapped between words.
    """
    words = one_sentence(words)
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        words = textwrap.fill(words, width, break_long_words=False, break_on_hyphens=False)
    print(words, file=sys.stderr)


def main() -> NoReturn:
    """Runs the command line and exits.

    Bad input becomes one sentence on standard error and exit code 2.
    """
    gc.set_threshold(COLLECTED_AFTER)
    with output.guarded() as shown:
        code, words = _outcome()
        shown.flush()
        if shown.fault and not code:
            code = 1
            if not shown.is_closed_pipe:
                reason = shown.fault.strerror
                words = f"standard output could not be written ({reason}); the command itself has done its work."
        if words:
            _say(f"study: {words}")
    sys.exit(code)


def _outcome() -> tuple[Any, str]:
    """Runs the command line.

    Returns the exit code and a sentence about what went wrong, if anything did.
    """
    from study.cli.interruption import INTERRUPTED

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"  # as containers do for a user without a name; MLflow asks for it when it is imported
    os.environ["MPLBACKEND"] = "agg"  # figures go into files only; a notebook's backend may not be installed here
    os.environ["PYTHONSAFEPATH"] = "1"  # Python processes of ours do not search the current folder for modules
    words = ""
    try:
        source.check()
        code = app(prog_name="study", standalone_mode=False)
        if code == INTERRUPTED:  # Typer's own answer to Ctrl-C
            words = "interrupted"
    except Interrupted as interruption:
        words, code = str(interruption), INTERRUPTED
    except Halted as fault:
        words, code = str(fault), 1
    except StudyError as error:
        words, code = str(error), 2
    except UsageFault as error:
        message = " ".join(error.format_message().split()).rstrip(".")  # "" when the help was shown instead
        words, code = message and f"{message}; see: study --help.", 2
    except (KeyboardInterrupt, typer.Abort):
        words, code = "interrupted", INTERRUPTED
    except SystemExit as leaving:
        if leaving.code != signal.SIGTERM:
            raise
        words, code = "interrupted", INTERRUPTED  # Ray's own answer to SIGTERM while it starts
    return code, words
