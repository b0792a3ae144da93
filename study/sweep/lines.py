"""The lines of records and logs: written, read and checked.

Each line is checked once, when it is read, against its form (`study.sweep.forms`); code behind `LineReader` trusts it. The
first line has the `format` of its file; files from before formats had numbers have none, which counts as 1.

A line that ends too early was cut short by a crash and is skipped. Anything else that does not fit raises `LineError`, which
names the file and the line.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from pydantic import TypeAdapter, ValidationError

from study.errors import StudyError, brief, cut
from study.sweep.forms import ANY_LINE

FORMAT: Final = 2
"""The format that is written."""

FORMATS: Final = (1, 2)
"""The formats that are read."""

MOST_CHARACTERS: Final = 290
"""Of a refusal, unless the path alone is longer."""

Line = Mapping[str, Any]

_TAGS = {"trial", "start", "facts", "task", "checkpoint", "note", "lost", "end", "plan", "budget", "logged"}


MAY_REPEAT: Final = ("start", "lost")
"""Lines with nothing but a time and a reason: two of them may be equal if they fall in one millisecond."""


class LineError(StudyError):
    """A line that does not fit.

    Attributes:
        path, number: of the file and of the line, from 1.
        fault: what is wrong, as a clause.
    """

    def __init__(self, path: Path, number: int, fault: str) -> None:
        place, advice = f"{str(path)!r}, line {number}: ", "; restore this file from a copy."
        self.path, self.number = path, number
        self.fault = _shortened(fault, max(80, MOST_CHARACTERS - len(place + advice)))
        super().__init__(place + self.fault + advice)


def append_line(path: Path, line: Mapping[str, Any], form: TypeAdapter[Any] = ANY_LINE) -> None:
    """Appends a line, see `line_text` and `append_text`.

    Raises ValueError, and writes nothing, if the line does not have the form.
    """
    append_text(path, line_text(line, form))


def line_text(line: Mapping[str, Any], form: TypeAdapter[Any]) -> bytes:
    """The line with the present time, as JSON.

    Raises ValueError, with a clause, if the line does not have the form.
    """
    text = json.dumps({**line, "at": round(time.time(), 3)}, allow_nan=False)
    if "\\ud" in text:  # perhaps half a character, as in the name of a file that is not UTF-8; no reader would take it
        whole = json.dumps(json.loads(text), ensure_ascii=False).encode(errors="replace")
        text = json.dumps(json.loads(whole))
    data = text.encode()
    _parsed(data, form)
    return data


def append_text(path: Path, text: bytes) -> None:
    """Appends a line's text, and waits for the disk.

    A last line that a crash cut short is closed first.
    """
    data = text + b"\n"
    with path.open("ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                data = b"\n" + data
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


class LineReader:
    """Reads the lines appended since the last read.

    Attributes:
        number: of the line read last, from 1.
    """

    def __init__(self, path: Path, form: TypeAdapter[Any] = ANY_LINE) -> None:
        """`form`: of the lines; by default any JSON object."""
        self._path = path
        self._form = form
        self._offset = 0
        self._last = b""
        self.number = 0

    def new_lines(self) -> Iterator[dict[str, Any]]:
        """Yields the new complete lines.

        Lines that end too early were cut short by a crash and are skipped. Raises LineError for a line that does not fit, and
        for one that repeats the line before it.
        """
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for whole in file:
                text = whole.removesuffix(b"\n")
                if text == whole:  # it is still being written
                    return
                line = self._checked(text)
                self._offset += len(whole)
                self._last, self.number = text, self.number + 1
                if line is not None:
                    yield line

    def _checked(self, text: bytes) -> dict[str, Any] | None:
        """The line in a text, or None if a crash cut it short."""
        try:
            line = _parsed(text, self._form)
        except ValueError as error:
            raise LineError(self._path, self.number + 1, str(error)) from None
        if line is not None and text == self._last and line.get("kind") not in MAY_REPEAT:
            raise LineError(self._path, self.number + 1, "it repeats the line before it")
        return line

    def refuse(self, fault: str) -> NoReturn:
        """Raises LineError about the line read last."""
        raise LineError(self._path, self.number, fault)


def is_cut(text: bytes) -> bool:
    """Whether a crash cut this line short."""
    try:
        return _parsed(text, ANY_LINE) is None
    except ValueError:
        return False


def format_fault(line: Mapping[str, Any]) -> str:
    """What is wrong with a first line's format, or ""."""
    number = line.get("format", 1)
    if number in FORMATS:
        return ""
    known = " and ".join(map(str, FORMATS))
    return f"it has format {brief(number)}, and this version reads {known}: use the version that wrote it"


def _parsed(text: bytes, form: TypeAdapter[Any]) -> dict[str, Any] | None:
    """The line in a text, or None if a crash cut it short.

    Raises ValueError, with a clause, if it does not fit.
    """
    try:
        line: dict[str, Any] = form.validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        cut = fault["type"] == "json_invalid" and "EOF while parsing" in fault["msg"]
        if cut and text.strip()[:1] in (b"", b"{"):
            return None
        raise ValueError(_clause(fault)) from None
    # pydantic keeps the last of equal keys; counting the keys of a result is faster than reading it again
    if line.get("kind") != "task" or len(_KEY.findall(text)) != _result_keys(line):
        json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_number, parse_float=_finite)
    return line


_KEY = re.compile(rb'"\s*:')


def _result_keys(line: Line) -> int:
    return len(line) + sum(len(line.get(part, ())) for part in ("metrics", "lanes", "diagnostics", "summary"))


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {brief(twice)} stands twice")
    return content


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{brief(text)} is too large for a number")
    return number


def _clause(fault: Any) -> str:
    """The fault that pydantic found, as a clause."""
    if fault["type"] == "json_invalid":
        reason = str(fault["msg"]).removeprefix("Invalid JSON: ")
        return "it is not JSON: " + reason.replace("at line 1 column", "at column")
    place = [str(step) for step in fault["loc"]]
    name = brief("/".join(place[1:] if place and place[0] in _TAGS else place))
    match fault["type"]:
        case "missing":
            return f"the key {name} is missing"
        case "extra_forbidden":
            return f"the key {name} is unknown"
        case "union_tag_invalid":
            known = fault["ctx"]["expected_tags"].replace("'", "")
            return f"its kind is {brief(fault['ctx']['tag'])}, which is none of {known}"
        case "union_tag_not_found":
            return "the key 'kind' is missing"
    complaint = str(fault["msg"][0]).lower() + str(fault["msg"][1:])
    about = f"{name} is {brief(fault['input'])}, but " if place else ""
    return about + complaint.replace("input should", "it should")


def _shortened(text: str, most: int) -> str:
    """At most so many printable characters, without a full stop.

    The middle is left out: the beginning names a value, and the end says what is wrong with it.
    """
    return cut("".join(character if character.isprintable() else "?" for character in text).rstrip("."), most)
