"""Malformed words: numbers, settings, names, paths, addresses, sizes, whole command lines."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from study import parts
from study.config import Diagnostics, Training

SWEEP = "first"
"""A finished sweep that the cases may name; it lies in `study-results`."""

ARCHIVE = "kept"
"""A sound archive that the cases damage a copy of."""

TRIAL = "sound.yaml"
"""A sound configuration."""

LOOP = "loop"
"""A link that leads to itself."""

PIPE = "pipe"
"""A pipe into which nobody writes."""

STEM = "case"
"""Files of a case begin with this word."""


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Attributes:
        kind: which maker it comes from.
        words: the command line.
        files: written before the command runs, by path.
        environment: variables that are set.
    """

    words: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    kind: str = ""

    def __str__(self) -> str:
        """The case on one line, for a message."""
        contents = {name: content[-300:] for name, content in self.files.items()}
        shown = [word if len(word) < 300 else f"{word[:100]}...({len(word)})" for word in self.words]
        environment = {name: value[:200] for name, value in self.environment.items()}
        return f"{self.kind}: study {shown} files={contents} environment={environment}"


# --- Words ----------------------------------------------------------------------------------------------------------------

CONTROLS = (
    "\x1b[31mred",
    "a\x07b",
    "\x1b]0;title\x07",
    "a\nb",
    "\ttab",
    "a\rb",
    "\x7f",
    "\u202eback",
    "\x85",
    "\u2028",
)


def long_word(draw: random.Random) -> str:
    """More than any name or sentence may have."""
    return draw.choice("abcxyz") * draw.choice((256, 300, 1000, 5000, 20_000))


def odd_word(draw: random.Random) -> str:
    """A word that is no number, no JSON container, and the name of nothing."""
    return draw.choice(
        [
            long_word(draw),
            draw.choice(CONTROLS) + str(draw.randrange(100)),
            " ",
            "-",
            "--",
            "../x",
            "a/b",
            "/",
            "\\",
            "~",
            "%s%n",
            "${HOME}",
            "$(touch harm)",
            "'; drop table",
            "\udcff\udcfe",
            "\U0001f40d" * 40,
            "ä" * draw.choice((1, 200)),
            f"x {draw.random()}",
        ]
    )


def nested(draw: random.Random) -> str:
    """JSON that is nested too deep for anyone."""
    depth = draw.choice((60, 900, 1100, 5000, 100_000))
    opening, closing = draw.choice((("[", "]"), ('{"a":', "}")))
    inner = draw.choice(("1", ""))
    if opening != "[":
        inner = "1"
    return opening * depth + inner + draw.choice((closing * depth, ""))


def bad_whole(draw: random.Random, low: int, high: int) -> str:
    """A word that is no whole number from `low` to `high`."""
    return draw.choice(
        [
            str(low - 1),
            str(low - draw.randrange(1, 10**6)),
            str(high + 1),
            str(high + draw.randrange(1, 10**6)),
            "9" * draw.choice((12, 20, 40, 400, 5000)),
            "-" + "9" * draw.choice((12, 20, 40, 400, 5000)),
            "1.5",
            "nan",
            "inf",
            "-inf",
            "",
            odd_word(draw),
        ]
    )


def bad_real(draw: random.Random) -> str:
    """A word that is no positive finite number."""
    return draw.choice(
        ["nan", "inf", "-inf", "-1", "1e999", "-1e999", "", "1,5", "1e", "0x1p3", "-" + "9" * 5000, odd_word(draw)]
    )


RUN = ("run", "quickstart", "--dry-run")

MOST = 10_000
"""Seeds of a trial."""


def number_of_an_option(draw: random.Random) -> Case:
    """An option whose number is none, or beyond its bounds."""
    command, option, value = draw.choice(
        [
            (RUN, "--trials", bad_whole(draw, 1, 10**6)),
            (RUN, "--seeds", bad_whole(draw, 1, MOST)),
            (RUN, "--workers", bad_whole(draw, 1, 10**6)),
            (RUN, "--search-seed", draw.choice(["1.5", "x", "", "nan", odd_word(draw)])),
            (RUN, "--objective", draw.choice(["x", "", ":", "loss/online", "accuracy/test:max", odd_word(draw)])),
            (
                RUN,
                "--time-limit",
                draw.choice(["", "0s", "-1s", "1.5h", "90", "367d", "s", "nan", "1h 1m", odd_word(draw)]),
            ),
            (
                RUN,
                "--notify",
                draw.choice(["", " ", "nosuchcommand x", "'", "ftp://x", "http://", "http://x:y", "true |"]),
            ),
            (RUN, "--cpus-per-trial", bad_real(draw)),
            (RUN, "--gpus-per-trial", bad_real(draw)),
            (RUN, "--price-per-hour", bad_real(draw)),
            (("show", "quickstart"), "--price-per-hour", bad_real(draw)),
            (("resume", SWEEP), "--trials", bad_whole(draw, 2, 10**6)),
            (("confirm", SWEEP), "--top", bad_whole(draw, 1, 10**6)),
            (("confirm", SWEEP), "--seeds", bad_whole(draw, 1, MOST)),
            (("confirm", SWEEP), "--first-seed", bad_whole(draw, 2, 2**31 - 1)),
            (("best", SWEEP), "--top", bad_whole(draw, 1, 10**6)),
            (("bench",), "--batch-size", bad_whole(draw, 1, 10**6)),
            (("bench",), "--lanes", bad_whole(draw, 1, MOST)),
            (("bench",), "--threads", bad_whole(draw, 1, 10**4)),
            (("bench",), "--seconds", bad_real(draw)),
            (
                ("bench",),
                "--widths",
                draw.choice(["", ",", "0", "-3", "100,", "1e3", "100,0", str(10**12), odd_word(draw)]),
            ),
            (("trial", TRIAL), "--threads", bad_whole(draw, 1, 10**4)),
            (("ui",), "--port", bad_whole(draw, 1, 65535)),
        ]
    )
    return Case((*command, f"{option}={value}"))


# --- Settings -------------------------------------------------------------------------------------------------------------


def _declared() -> dict[str, Any]:
    """Every setting but the names of parts, by slash name: its field."""
    fields = {f"training/{name}": field for name, field in Training.model_fields.items()}
    fields |= {f"diagnostics/{name}": field for name, field in Diagnostics.model_fields.items()}
    for section, kind in parts.SECTIONS.items():
        for part in parts.names(kind):
            for name, declared in parts.find(kind, part).Settings.model_fields.items():
                fields.setdefault(f"{section}/{declared.alias or name}", declared)
    for part in parts.names("interventions"):
        for name, declared in parts.find("interventions", part).Settings.model_fields.items():
            fields[f"interventions/{part}/{declared.alias or name}"] = declared
    return fields


DECLARED = _declared()


def bad_values(draw: random.Random, name: str) -> list[Any]:
    """Values that a setting cannot have, as plain data."""
    annotation = str(DECLARED[name].annotation)
    values: list[Any] = [
        {"a": 1},
        [[1]],
        float("nan"),
        float("inf"),
        float("-inf"),
        long_word(draw),
        draw.choice(CONTROLS),
        [{}] * draw.choice((1, 3000)),
    ]
    if "tuple" not in annotation:
        values += [[], [1, 2], True]
        values += [] if "None" in annotation else [None]
    else:
        values += ["x", 5, [-1], [0], [1.5], ["x"], [10**12], [10**30], [1] * 5000, None, True]
    if "int" in annotation and "tuple" not in annotation:
        values += [-1, 1.5, 10**12, 10**30, -(10**30), "1"]
    if "float" in annotation:
        below = 0.0 if name == "optimizer/rho" else -1.0  # a rho below 0 is sound, and one of 0 is not
        values += [below, 1e300, 10**400, -(10**400), "0.1"]
    return values


def _text(value: Any) -> str:
    """Plain data as `--set` takes it."""
    is_word = isinstance(value, str) and not value[:1].isdigit()  # of digits YAML would make a number
    return value if is_word else json.dumps(value)


def method_of(name: str) -> str:
    """A method that has the setting."""
    own = {"optimizer/rho": "sam", "optimizer/lambda": "gnp", "optimizer/r": "gnp"}
    return own.get(name, "sgd")


def value_of_a_setting(draw: random.Random) -> Case:
    """A setting whose value has a wrong kind or is beyond its bounds."""
    name = draw.choice(sorted(DECLARED))
    text = nested(draw) if draw.random() < 0.1 else _text(draw.choice(bad_values(draw, name)))
    if draw.random() < 0.3 and not name.startswith("optimizer/"):
        return Case(("trial", TRIAL, "--set", f"{name}={text}"))
    return Case((*RUN, "--method", method_of(name), "--set", f"{name}={text}"))


def name_of_a_setting(draw: random.Random) -> Case:
    """A setting that nobody knows, or no setting at all."""
    sound = draw.choice(sorted(DECLARED))
    word = draw.choice(
        [
            "",
            "=",
            "/",
            "/=1",
            "=1",
            "//=1",
            f"{sound}",
            f"{sound}/x=1",
            f"{sound}x=1",
            f"x{sound}=1",
            f"{sound.upper()}=1",
            f" {sound}=1",
            f"{sound}{draw.choice(CONTROLS)}=1",
            f"{draw.choice(CONTROLS)}/x=1",
            f"training/{long_word(draw)}=1",
            f"{long_word(draw)}/x=1",
            "training/" + "a/" * draw.choice((3, 2000)) + "x=1",
            "seeds=3",
            "seeds/0=3",
            "training/seeds=[1]",
            "optimizer/name=sam",
            "tasks/name=class_pairs",
            "data/name=" + odd_word(draw),
            "model/name=" + odd_word(draw),
            "model/name=[1]",
            "data/name=" + nested(draw),
            "interventions/" + odd_word(draw).replace("/", "_") + "/x=1",
            "interventions=1",
            "interventions/l2_init=1",
            "training=1",
            "training/=1",
        ]
    )
    return Case((*RUN, "--set", word))


# --- Names, paths, addresses ----------------------------------------------------------------------------------------------


def bad_name(draw: random.Random) -> str:
    """What cannot name a sweep."""
    return draw.choice(
        ["", ".", "..", ".x", "-x", "a b", "a/b", "/", "../first", "x" * 101, "mlflow.db/", "ä", "a\\b", odd_word(draw)]
    )


def name(draw: random.Random) -> Case:
    """A name that is none, or of something that is not there."""
    word = bad_name(draw)
    command = draw.choice(("resume", "best", "export", "sync", "ui", "confirm", "archive", "report", "delete", "clean"))
    option = draw.choice(("--scenario", "--method", "--sampler", "--scheduler"))
    sound = draw.choice((RUN, ("confirm", SWEEP)))
    return Case(
        draw.choice(
            [
                (command, "--", word),
                (command, "--", f"{SWEEP}{draw.randrange(99)}"),
                ("compare", "--to=page", "--", ARCHIVE, word),
                (*sound, f"--name={word}"),
                (*RUN, f"--after={word}"),
                (*RUN, f"{option}={odd_word(draw)}"),
                (*RUN, f"{option}="),
                ("export", SWEEP, f"--trial={odd_word(draw)}"),
                ("confirm", SWEEP, f"--method={odd_word(draw)}"),
                (draw.choice(("run", "show")), "--", odd_word(draw)),
                (draw.choice(("run", "show")), "--", odd_word(draw) + ".py"),
                ("trial", "--", odd_word(draw) + ".yaml"),
                ("bench", f"--device={odd_word(draw)}"),
                ("bench", f"--data={odd_word(draw)}"),
            ]
        )
    )


LONG_NAMES = ("x" * 256, "y" * 5000, "ä" * 200, "a/" * 3000 + "b", "x" * 300 + "/y")


def bad_folder(draw: random.Random) -> str:
    """A path at which no folder can be made."""
    return draw.choice(
        [
            "",
            f"{TRIAL}/x",
            TRIAL,
            LOOP,
            f"{LOOP}/x",
            PIPE,
            f"{PIPE}/x",
            "/dev/null",
            "/dev/null/x",
            "/proc/x",
            "/proc/self/mem/x",
            *LONG_NAMES,
        ]
    )


def path(draw: random.Random) -> Case:
    """A folder or file that cannot be."""
    folder = bad_folder(draw)
    archived = ("report", ARCHIVE)
    return Case(
        draw.choice(
            [
                (*RUN, f"--dir={folder}"),
                (*RUN, f"--storage={folder}"),
                ("run", "quickstart", f"--storage={folder}"),
                (*RUN, f"--data-dir={draw.choice(LONG_NAMES)}"),
                (*RUN, "--data-dir="),
                ("resume", SWEEP, f"--storage={folder}"),
                ("confirm", SWEEP, f"--storage={folder}"),
                ("export", SWEEP, f"--to={folder}"),
                ("archive", SWEEP, f"--to={folder}"),
                (*archived, f"--to={folder}"),
                (*archived, f"--to={draw.choice(('.', '/', '..', './', 'kept/..', '//'))}"),
                archived,
                ("archive", SWEEP, f"--to={draw.choice(('.', '/', '..', 'study-results'))}"),
                ("trial", "--", draw.choice(["", ".", "/proc/self/mem", "/dev/null", "/dev/zero", LOOP, *LONG_NAMES])),
                ("show", "--", draw.choice(["./", "/x.py", "./none.py", *(f"./{word}.py" for word in LONG_NAMES)])),
                ("report", "--", draw.choice(["", ".", *LONG_NAMES])),
                ("best", SWEEP, f"--dir={draw.choice(['', 'none', TRIAL, *LONG_NAMES])}"),
            ]
        )
    )


def bad_store(draw: random.Random) -> str:
    """What cannot be the address of MLflow's store."""
    return draw.choice(
        [
            "sqlite://",
            "sqlite:///",
            "sqlite:///:memory:",
            "sqlite:///.",
            "sqlite:///mine.py",
            f"sqlite:///{PIPE}",
            f"sqlite:///{LOOP}",
            f"sqlite:///{LOOP}/x.db",
            "sqlite:////dev/null",
            "sqlite:////dev/zero",
            f"sqlite:///{TRIAL}",
            f"sqlite:///{TRIAL}/x.db",
            "sqlite:////proc/x.db",
            "sqlite:////dev/null/x.db",
            "sqlite:///" + draw.choice(LONG_NAMES),
            "sqlite:x.db",
            "SQLITE:///x.db",
            "http://",
            "http:///x",
            "http://:5000",
            "http://127.0.0.1:9",
            "http://127.0.0.1:0",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:-1",
            "http://127.0.0.1:x",
            "http://[::1",
            "http://[x]:1",
            "http://" + "x" * 300 + ":1",
            "https://127.0.0.1:9/" + "x" * 5000,
            "ftp://x",
            "file:///nowhere/x",
            "./mlruns",
            "x",
            "mysql://",
            "oracle+nothing://x",
            "databricks",
            "://",
            odd_word(draw),
        ]
    )


def bad_cluster(draw: random.Random) -> str:
    """What cannot be the address of a Ray cluster."""
    return draw.choice(
        [
            "127.0.0.1",
            "127.0.0.1:9",
            "127.0.0.1:99999",
            "127.0.0.1:-1",
            "127.0.0.1:" + "9" * 5000,
            "127.0.0.1:²",
            ":6379",
            "http://127.0.0.1:9",
            "ray://127.0.0.1:9",
            "x" * 5000 + ":1",
            "x" * 70 + ":1",
            "a..b:1",
            "LOCAL",
            odd_word(draw),
        ]
    )


def bad_checkpoint_address(draw: random.Random) -> str:
    """What cannot be the address of a storage."""
    return draw.choice(
        ["s3://", "://", "x://y", "gopher://a/b", "s4://bucket/x", "file://", "s3:///", "hdfs:://", "\x1b[1m://x"]
    )


def address(draw: random.Random) -> Case:
    """An address that leads nowhere or means nothing."""
    store, command = bad_store(draw), draw.choice(("resume", "confirm", "sync", "ui", "report", "archive"))
    return Case(
        draw.choice(
            [
                (*RUN, f"--tracking-uri={store}"),
                (*RUN, f"--tracking-uri={draw.choice(('', bad_store(draw)))}"),
                (command, SWEEP, f"--tracking-uri={store}"),
                (command, SWEEP, "--tracking-uri="),
                (draw.choice(("run", "resume", "confirm")), draw.choice((SWEEP,)), f"--address={bad_cluster(draw)}"),
                ("run", "quickstart", f"--address={draw.choice(('', bad_cluster(draw)))}"),
                (*RUN, f"--storage={bad_checkpoint_address(draw)}"),
                (*RUN, f"--address={bad_cluster(draw)}"),
                ("ui", f"--host={draw.choice(['', 'x y', '1.2.3', 'a..b', long_word(draw), *CONTROLS])}"),
            ]
        )
    )


def environment(draw: random.Random) -> Case:
    """A variable that means nothing."""
    variable, value = draw.choice(
        [
            ("MLFLOW_TRACKING_URI", bad_store(draw)),
            ("RAY_ADDRESS", bad_cluster(draw)),
            ("STUDY_DATA", draw.choice(LONG_NAMES)),
        ]
    )
    return Case(RUN, environment={variable: value})


# --- Sizes and words ------------------------------------------------------------------------------------------------------


def size(draw: random.Random) -> Case:
    """Sizes within their bounds that no machine can allocate together."""
    widths = draw.choice(("[1000000,1000000]", "[1000000,1000000,10]", "[100000000000]", "[99999999999999999999]"))
    count = draw.randrange(5000, MOST)
    return Case(
        draw.choice(
            [
                (*RUN, "--set", f"model/widths={widths}"),
                ("run", "quickstart", "--set", f"model/widths={widths}"),
                (*RUN, f"--seeds={count}", "--set", "model/widths=[10000,10000]"),
                ("trial", TRIAL, "--set", f"model/widths={widths}"),
                ("trial", TRIAL, "--set", "tasks/count=2000000000", "--set", "tasks/images_per_task=100"),
                (*RUN, "--set", "tasks/count=2000000000", "--scenario=permuted_pixels"),
                ("bench", f"--lanes={count}", "--widths=10000,10000"),
                ("bench", f"--widths={widths.strip('[]')}"),
                ("bench", "--batch-size=1000000", f"--lanes={count}"),
                ("bench", f"--lanes={draw.choice((10**8, 10**12))}"),
                ("bench", f"--threads={draw.choice((99_999, 10**12))}"),
                (*RUN, f"--seeds={draw.choice((10**7, 99_999_999_999))}"),
                ("confirm", SWEEP, f"--seeds={draw.choice((10**7, 2**31 - 2000, 99_999_999_999))}"),
                ("confirm", SWEEP, f"--seeds={count}", "--set", "model/widths=[10000,10000]"),
            ]
        )
    )


def command_line(draw: random.Random) -> Case:
    """Words that are no command."""
    word = odd_word(draw)
    command = draw.choice(
        ("run", "resume", "confirm", "best", "export", "report", "archive", "show", "trial", "bench", "sync")
    )
    return Case(
        draw.choice(
            [
                (f"x{word}",),
                (draw.choice((*CONTROLS, "", " ")),),
                (command, f"--x{word}"),
                (command, "quickstart", f"--x{word}=1"),
                (command, "quickstart", "quickstart", "quickstart"),
                (command, "-z"),
                ("run", "quickstart", "--trials"),
                ("run", "quickstart", "--seeds", "--trials"),
                ("run",),
                ("trial",),
                ("export", SWEEP, "--model", "--to=x"),
                ("export", SWEEP, "--model", "--trial=x"),
                ("run", "quickstart", "--price-per-hour=1"),
                ("run", "quickstart", "--dry-run=yes"),
                ("run", "quickstart", *(["--set"] * 3)),
                ("run", "quickstart", *(["--method=sgdd"] * draw.choice((1, 3000)))),
            ]
        )
    )
