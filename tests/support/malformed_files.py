"""Malformed files: configurations, search spaces, archives."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from malformed_words import (
    ARCHIVE,
    CONTROLS,
    DECLARED,
    STEM,
    Case,
    bad_name,
    bad_values,
    long_word,
    method_of,
    nested,
    odd_word,
)

# --- Files ----------------------------------------------------------------------------------------------------------------


def trial_file(draw: random.Random) -> Case:
    """A configuration that is none."""
    name = draw.choice(sorted(DECLARED))
    value = draw.choice(bad_values(draw, name))
    section, _, rest = name.partition("/")
    inner: Any = value
    for step in reversed(rest.split("/")):
        inner = {step: inner}
    if section == "optimizer":
        inner["name"] = method_of(name)
    wrong = json.dumps({section: inner}).encode()  # JSON is YAML, but for NaN and infinity
    wrong = wrong.replace(b"NaN", b".nan").replace(b"Infinity", b".inf")
    bomb = b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + b"".join(
        b"%c: &%c [%s]\n" % (98 + i, 98 + i, b", ".join([b"*%c" % (97 + i)] * 9)) for i in range(9)
    )
    content = draw.choice(
        [
            b"",
            b"\n",
            b"null",
            b"3",
            b"[1]",
            b"x",
            b"\xff\xfe",
            "optimizer: {name: sgd}".encode("utf-16"),
            draw.randbytes(draw.randrange(1, 300)) + b"\xff",
            b"optimizer: {name: sgd",
            b"{" * draw.choice((50, 900, 20_000)),
            b"a: " * 3000,
            b"- " * 3000 + b"1",
            b"optimizer: " + nested(draw).encode(),
            bomb + b"optimizer: *i\n",
            b"optimizer: &x {name: sgd, lr: *x}",
            b"optimizer: !!python/name:os.system x",
            b"optimizer: !x {name: sgd}",
            b"optimizer: {name: sgd}\noptimizer: {name: sam}",
            b"optimizer: {name: 5}",
            b"optimizer: {name: " + long_word(draw).encode() + b"}",
            b'optimizer: {name: "\\e[31mred"}',
            b"optimizer: sgd",
            b"optimizer: [sgd]",
            b"optimizer: {}\n? [1, 2]\n: 3",
            b"1: 2",
            b"null: 2",
            b"2001-01-01: 2",
            b"model: {widths: 2001-01-01}",
            b"optimizer: {lr: 12:30:45}",
            b"optimizer: {lr: yes}",
            b"data: {name: mnist5k, folder: /etc/passwd}",
            b"seeds: "
            + draw.choice((b"5", b"[]", b"[1, 1]", b"[-1]", b"[2147483648]", b"[x]", b"[1.0]", b"{}", b"null")),
            b"seeds: [" + b", ".join(b"%d" % seed for seed in range(20_000)) + b"]",
            b"seeds: [" + b"9" * 5000 + b"]",
            b"provenance: " + draw.choice((b"5", b"[1]", b"x", b"true")),
            b"training: {batch_size: " + b"9" * 5000 + b"}",
            b"model: {widths: [100000, 100000, 100000]}",
            b"tasks: {count: 2000000000}\nseeds: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]",
            long_word(draw).encode() + b": 1",
            wrong,
            wrong,
            wrong,
        ]
    )
    return Case(("trial", f"{STEM}.yaml"), {f"{STEM}.yaml": content})


SPACE = """
import numpy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from search_spaces import Method, SearchSpace
CHOICES = dict(name="mine", description="", scenarios={"pp": {"tasks/name": "permuted_pixels", "tasks/count": 2}},
    methods={"sgd": Method(points=({"optimizer/lr": 0.1},), distributions={"optimizer/lr": FloatDistribution(0.01, 1)})},
    settings={"tasks/validation_fraction": 0.2}, trials=2)
def deep(n):
    value = 1
    for _ in range(n):
        value = [value]
    return value
class Odd:
    def __repr__(self): return "\\x1b[31modd" * 900
"""
"""A sound space, and what its changes are made of."""


def space_file(draw: random.Random) -> Case:
    """A search space that is none, or one whose trials cannot run."""
    long, control = repr(long_word(draw)), repr(draw.choice(CONTROLS))
    value = draw.choice(
        [
            "Odd()",
            "object()",
            "lambda: 0",
            "numpy.array([0.1, 0.2])",
            "numpy.float64('nan')",
            "float('inf')",
            "b'0.1'",
            "{1, 2}",
            "{1: 2}",
            "deep(60)",
            "deep(5000)",
            "10**400",
            "1j",
            "Ellipsis",
            "numpy.datetime64('2001-01-01')",
            long,
            control,
        ]
    )
    size = "training/batch_size"
    statement = draw.choice(
        [
            f"raise ValueError({long})",
            f"raise ValueError({control})",
            "raise Odd",
            "raise ValueError(Odd())",
            "import no_such_module",
            f"exit({draw.randrange(3)})",
            "SPACE = (",
            "\0",
            "deep(1)(2)",
            "def f(): f()\nf()",
            "SPACE = eval('(' * 5000)",
            "SPACE = Odd()",
            "SPACE = SearchSpace",
            "SPACE = [1]",
            "CHOICES = dict(CHOICES, unknown=1)",
            f"CHOICES[{long}] = 1",
            f"CHOICES['name'] = {draw.choice([long, control, repr(bad_name(draw)), '3', 'None', 'Odd()'])}",
            f"CHOICES['trials'] = {draw.choice(['0', '-1', '1.5', '10**12', '10**40', 'True', 'Odd()', 'numpy.int64(2)'])}",
            f"CHOICES['seeds'] = {draw.choice(['5', '()', '(0, 0)', '(-1,)', '(2**31,)', '(10**40,)', 'range(10)', '(Odd(),)'])}",
            "CHOICES['seeds'] = tuple(range(20_000))",
            f"CHOICES['search_seed'] = {draw.choice(['1.5', 'None', 'Odd()', long])}",
            f"CHOICES['scenarios'] = {draw.choice(['{}', 'None', '{3: {}}', '{' + long + ': {}}', '{' + control + ': {}}'])}",
            "CHOICES['scenarios'] = {'pp': []}",
            "CHOICES['scenarios'] = {'a-b': {}, 'a': {}}; "
            "SGD = Method({'optimizer/name': 'sgd'}, ({},)); CHOICES['methods'] = {'c': SGD, 'b-c': SGD}",
            f"CHOICES['methods'] = {draw.choice(['{}', '[]', 'None', '{3: 4}', '{' + long + ': Method(points=({},))}'])}",
            f"CHOICES['methods'] = {{{odd_word(draw)!r}: Method(points=({{}},))}}",
            f"CHOICES['settings'] = {{'seeds': {draw.choice(['[5, 6]', '3', 'None'])}}}",
            f"CHOICES['settings'] = {{{draw.choice(['5', 'None', repr('lr'), repr(''), long, control])}: 1}}",
            f"CHOICES['settings']['optimizer/momentum'] = {value}",
            f"CHOICES['settings']['model/widths'] = {value}",
            "CHOICES['settings']['model/widths'] = (10**11,)",
            "CHOICES['methods'] = {'sgd': Method(points=({'seeds': [5, 6]},))}",
            f"CHOICES['methods'] = {{'sgd': Method(points=({{'optimizer/lr': {value}}},))}}",
            f"CHOICES['methods'] = {{'sgd': Method(points=({{{draw.choice(['5', 'None', repr('lr'), long])}: 1}},))}}",
            f"CHOICES['methods'] = {{'sgd': Method(settings={{'optimizer/rho': {value}}}, points=({{}},))}}",
            f"CHOICES['methods'] = {{'sgd': Method(distributions={{'optimizer/lr': CategoricalDistribution([{value}])}})}}",
            "CHOICES['methods'] = {'sgd': Method(distributions={'seeds': CategoricalDistribution([[1], [2]])})}",
            "CHOICES['methods'] = {'sgd': Method(distributions={'lr': FloatDistribution(0.1, 1)})}",
            f"CHOICES['methods'] = {{'sgd': Method(distributions={{'optimizer/lr': FloatDistribution({value}, 1)}})}}",
            "CHOICES['methods'] = {'sgd': Method(distributions={'optimizer/lr': FloatDistribution(-1, 1)})}",
            "CHOICES['methods'] = {'sgd': Method(distributions={'optimizer/lr': IntDistribution(0, 3)})}",
            f"CHOICES['methods'] = {{'sgd': Method(points=({{'{size}': {draw.choice((24, 17, 127, 33))}}},), "
            f"distributions={{'{size}': IntDistribution(16, 128, step=16)}})}}",
            f"CHOICES['methods'] = {{'sgd': Method(points=({{'optimizer/lr': {draw.choice((0.15, 0.31, 0.9999))}}},), "
            f"distributions={{'optimizer/lr': FloatDistribution(0.1, 1.0, step=0.1)}})}}",
            "CHOICES['methods'] = {'sgd': Method(points=({'optimizer/lr': 0.3},), "
            "distributions={'optimizer/lr': CategoricalDistribution([0.1, 0.2])})}",
            f"CHOICES['methods'] = {{'sgd': Method(distributions={{'{size}': IntDistribution(16, 10**12)}})}}",
        ]
    )
    content = f"{SPACE}{statement}\nSPACE = globals().get('SPACE') or SearchSpace(**CHOICES)\n"
    command = draw.choice((("run", f"./{STEM}.py"), ("run", f"./{STEM}.py", "--dry-run"), ("show", f"./{STEM}.py")))
    if draw.random() < 0.05:
        content = draw.choice(["", "\x00", "\x1b[31m", "SPACE", "# coding: nonsense\nSPACE = 1", "é" * 5000])
    return Case(command, {f"{STEM}.py": content.encode()})


SPACE_YAML: Mapping[str, Any] = {
    "name": "mine",
    "description": "",
    "scenarios": {"pp": {"tasks/name": "permuted_pixels", "tasks": {"count": 2}}},
    "methods": {
        "sgd": {
            "points": [{"optimizer/lr": 0.1}],
            "distributions": {"optimizer/lr": {"low": 0.01, "high": 1.0, "log": True}},
        }
    },
    "settings": {"tasks/validation_fraction": 0.2},
    "trials": 2,
}
"""A sound space in YAML."""

SPACE_PLACES: Mapping[str, tuple[Any, ...]] = {
    "name": (5, None, [], {}, "", "a/b", "\x1b[31mred", True),
    "description": (5, None, []),
    "citation": (5, None, {}),
    "scenarios": (None, [], {}, "x", {"pp": None}, {"pp": []}, {"a/b": {}}, {"\x1b[1m": {}}, {"": {}}),
    "scenarios/pp/tasks": (5, "x", None, [], {"name": "class_pairs"}, {"count": "2"}, {"counts": 2}, {"a": {"b": 1}}),
    "scenarios/pp/seeds": ([5, 6], 3),
    "methods": (None, [], {}, "x", {"sgd": None}, {"sgd": {}}, {"sgdd": {"points": [{}]}}),
    "methods/sgd/points": (
        None,
        5,
        {},
        [],
        [5],
        [None],
        [[1]],
        [{"lr": 1}],
        [{"optimizer/lr": 5.0}],
        {"optimizer/lr": 1},
    ),
    "methods/sgd/settings": (5, [], "x", {"optimizer": {"lr": 1, "": 2}}, {"optimizer/rho": 0.1}, {"seeds": [1]}),
    "methods/sgd/distribution": ({},),
    "methods/sgd/optimizer~1lr": ({"low": 0.1, "high": 1.0}, 0.1),
    "methods/sgd/distributions": (5, [], "x", None, {"optimizer/lr": 0.1}, {"lr": {"low": 0.1, "high": 1.0}}),
    "methods/sgd/distributions/optimizer": ({"lr": {"low": 0.1, "high": 1.0}}, {"momentum": {"low": 0, "high": 1}}),
    "methods/sgd/distributions/optimizer~1lr": (
        None,
        5,
        "uniform",
        [0.1, 1.0],
        {},
        {"low": 0.1},
        {"high": 0.1},
        {"low": 1.0, "high": 0.1},
        {"low": 0, "high": 1.0, "log": True},
        {"low": -1.0, "high": 1.0},
        {"low": 1, "high": 3},
        {"low": "0.1", "high": 1.0},
        {"low": True, "high": 1.0},
        {"low": 0.1, "high": float("inf")},
        {"low": float("nan"), "high": 1.0},
        {"low": 0.1, "high": 10**400},
        {"low": 0.1, "high": 1e40},
        {"low": 0.1, "high": 1.0, "log": "yes"},
        {"low": 0.1, "high": 1.0, "lgo": True},
        {"low": 0.1, "high": 1.0, "step": 0},
        {"low": 0.1, "high": 1.0, "step": 0.7},
        {"low": 0.1, "high": 1.0, "step": 0.1, "log": True},
        {"low": 0.1, "high": 1.0, "choices": [0.1]},
        {"choices": []},
        {"choices": 0.1},
        {"choices": {"a": 1}},
        {"choices": ["x"]},
        {"choices": [[0.1]]},
    ),
    "settings": (5, [], "x", None, {"lr": 1}, {"optimizer": 5}, {"optimzer/lr": 1}, {"tasks/validation_fraction": 2.0}),
    "settings/tasks": ({"validation_fraction": 0.2}, 5),
    "settings/seeds": ([1, 2], None),
    "seeds": (5, "x", [], [-1], [1.5], ["a"], {}, [0, 0], [10**40], [2**31], None),
    "trials": (0, -1, 1.5, "2", True, 10**12, []),
    "search_seed": (1.5, None, "x", []),
    "scenario": ({},),
    "points": ([],),
}
"""Values that a place of `SPACE_YAML` cannot have; `~1` is a slash within a name."""


def space_in_yaml(draw: random.Random) -> Case:
    """A search space in YAML that is none."""
    place = draw.choice(sorted(SPACE_PLACES))
    plain = json.loads(json.dumps(SPACE_YAML))
    *steps, last = (step.replace("~1", "/") for step in place.split("/"))
    branch = plain
    for step in steps:
        branch = branch.setdefault(step, {})
    branch[last] = draw.choice(SPACE_PLACES[place])
    if place in ("name", "description", "scenarios", "methods") and draw.random() < 0.2:
        del branch[last]
    wrong = json.dumps(plain).replace("NaN", ".nan").replace("Infinity", ".inf").encode()
    others = [
        b"",
        b"[]",
        b"SPACE = 1",
        b"\xff\xfe",
        b"optimizer: {name: sgd}",
        b"{" * draw.choice((50, 900, 20_000)),
        b"settings: " + nested(draw).encode(),
        b"name: &x {name: *x}",
        b"methods: !!python/name:os.system x",
        b"? [1, 2]\n: 3",
        b"1: 2",
        long_word(draw).encode() + b": 1",
        json.dumps(SPACE_YAML).encode()[:-1] + b', "name": "twice"}',
        json.dumps(SPACE_YAML).encode()[:-2],
    ]
    name = f"{STEM}.{draw.choice(('yaml', 'yml'))}"
    command = draw.choice((("run", name), ("run", f"./{name}", "--dry-run"), ("show", f"./{name}")))
    return Case(command, {name: wrong if draw.random() < 0.8 else draw.choice(others)})


PLACES: Mapping[str, tuple[Any, ...]] = {
    "format": (0, 2, None, "1", [1], 10**400, True, 1.5),
    "name": (5, None, [], {}, "", "a/b", "x" * 5000, "\x1b[31mred", True),
    "identity": (5, None, [], "", {}),
    "experiment_id": (None, [], {}),
    "run_id": (None, [], 5),
    "status": (5, None, []),
    "plan": (None, [], {}, "x", 5, {"phase": "grid"}),
    "tags": (None, [], [["a", "b"]], "x", {"a": 1}, {"a": {}}),
    "notes": (None, "x", 5, {}, [1], [[]]),
    "runs": (None, {}, "x", 5, [1], [[]], [None]),
    "plan/phase": (None, 5, "x", []),
    "plan/seeds": (None, 5, "x", [], ["a"], [1.5], {}, [[1]]),
    "plan/groups": (None, [], {}, "x", [1], [{}], [[]]),
    "plan/groups/0/scenario": (None, 5, [], "\x1b[1m", "x" * 5000),
    "plan/groups/0/method": (None, 5, {}, "a/b"),
    "plan/groups/0/trials": (None, "2", [], -1, 1.5),
    "plan/groups/0/points": (None, "x", 5, [1], {}),
    "plan/groups/0/distributions": (None, [], "x", {"optimizer/lr": 5}, {"optimizer/lr": "x"}),
    "plan/groups/0/settings": (None, [], "x", 5),
    "plan/labels": ([], "x", {"optimizer/lr": 5}, {"optimizer/lr": {}}),
    "plan/description": (None, 5, []),
    "runs/0/seeds": (None, 5, "x", [], ["a"], [1.5], [10**400], {}),
    "runs/0/trial": (None, 5, [], {}, "x" * 5000, ""),
    "runs/0/number": (None, "x", [], 1.5, -1, 10**40),
    "runs/0/tasks": (None, "x", [], 1.5, -1, 10**40),
    "runs/0/outcome": (None, 5, "x", []),
    "runs/0/phase": (None, 5, "x", []),
    "runs/0/scenario": (None, 5, []),
    "runs/0/method": (None, 5, []),
    "runs/0/name": (None, 5, []),
    "runs/0/run_id": (None, 5, [], {}),
    "runs/0/started": ("x", [], 1e300, 10**40, {}),
    "runs/0/selected_rank": ("x", [], 1.5, 0),
    "runs/0/summary~1accuracy_test": ("x", [], {}, True),
    "runs/0/optimizer~1lr": ([], {}, "x" * 5000),
}
"""Values that a place of an archive's `sweep.json` cannot have; `~1` is a slash within a name."""


def archive(draw: random.Random) -> Case:
    """A damaged copy of a sound archive."""
    files = {f"{STEM}/{file.name}": file.read_bytes() for file in sorted(Path(ARCHIVE).iterdir())}
    sweep, lanes = f"{STEM}/sweep.json", f"{STEM}/lanes.csv.gz"
    plain = json.loads(files[sweep])
    damage = draw.random()
    if damage < 0.7:
        *steps, last = draw.choice(sorted(PLACES)).split("/")
        place = "/".join([*steps, last])
        branch = plain
        for step in steps:
            branch = branch[int(step) if step.isdigit() else step]
        last = last.replace("~1", "/")
        if (
            draw.random() < 0.2
            and "~" not in place
            and last not in ("selected_rank", "started", "labels", "description")
        ):
            branch.pop(last, None)
        else:
            branch[last] = draw.choice(PLACES[place])
        files[sweep] = json.dumps(plain).encode()
    elif damage < 0.8:
        whole = files[sweep]
        files[sweep] = draw.choice(
            [
                b"",
                b"{",
                b"[]",
                b"null",
                b"5",
                b"\xff",
                whole[: len(whole) // 2],
                nested(draw).encode(),
                whole + b"x",
                b"9" * 5000,
            ]
        )
    else:
        text = gzip.decompress(files[lanes]).decode()
        head, first, *others = text.splitlines()
        cells = first.split(",")
        column = draw.randrange(len(cells))
        broken = draw.choice(["x", "\x1b[31m", "1e999", "", "9" * 400, "nan", "-1", "0.5.5"])
        # accuracies and sizes may be missing, so that an empty cell of theirs is sound
        column = column if broken in ("x", "\x1b[31m", "0.5.5", "1e999") else draw.randrange(4)
        damaged = ",".join([*cells[:column], broken, *cells[column + 1 :]])
        files[lanes] = draw.choice(
            [
                b"",
                b"x",
                gzip.compress(b""),
                gzip.compress(b"\xff\xfe"),
                files[lanes][:-12],
                files[lanes][: len(files[lanes]) // 2],
                gzip.compress(head.encode()[:10]),
                gzip.compress("\n".join([head, damaged, *others]).encode()),
                gzip.compress("\n".join([head, damaged, *others]).encode()),
                gzip.compress("\n".join([head, first, first, *others]).encode()),
                gzip.compress("\n".join([head, *others[: len(others) // 2]]).encode()),
            ]
        )
    return Case(("report", STEM, "--to", f"{STEM}-page"), files)
