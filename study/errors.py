"""Errors that the user sees as one sentence."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

from study.redaction import redacted

LONGEST = 300
"""Characters of a sentence that the user sees."""

LONGEST_WORD = 48
"""Characters to which the longest words of a sentence that is too long are cut first."""


class StudyError(Exception):
    """A request that cannot be met.

    The message is one sentence that says what would work.
    """


class Interrupted(StudyError):  # noqa: N818  # not a fault
    """The user stopped the work.

    The message says how to continue.
    """


class Halted(StudyError):  # noqa: N818  # not the user's
    """Something outside the study stopped the work.

    A full disk, for example. The message says how to continue.
    """


def first_line(error: BaseException) -> str:
    """The first line of an exception's message.

    The type, if it has no message. At most 200 characters and no full stop, to be part of a sentence. SQLAlchemy's remarks on
    how it came to raise are left out, and so are passwords.
    """
    lines = [
        line for line in redacted(str(error)).strip().splitlines() if not line.startswith("(raised as a result of")
    ]
    return (lines or [type(error).__name__])[0][:200].rstrip(".: ")


def with_type(error: BaseException) -> str:
    """Type and first line of an exception: `ValueError: too few`."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


def brief(value: object) -> str:
    """A value that somebody else wrote, in a few characters."""
    return _BRIEF.repr(value)


_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxdict, _BRIEF.maxlist = 2, 2, 3
_BRIEF.maxstring = _BRIEF.maxlong = _BRIEF.maxother = 40


def printable(text: str, kept: str = "") -> str:
    """The text with control characters escaped, as `repr` does.

    Untrusted text could otherwise move the cursor or recolour a terminal. Characters in `kept` stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in kept else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def one_sentence(text: str, limit: int = LONGEST) -> str:
    """A message as one printable line of limited length.

    It has at most `limit` characters. What is too long is cut in the middle: its longest words first, since they are values or
    paths, then the whole.
    """
    line = printable(cut(" ".join(text.split("\n")).strip(), 10 * limit))
    if len(line) <= limit:
        return line
    words = line.split(" ")
    for place in sorted(range(len(words)), key=lambda place: -len(words[place])):
        excess = sum(map(len, words)) + len(words) - 1 - limit
        if excess <= 0 or len(words[place]) <= LONGEST_WORD:
            break
        words[place] = cut(words[place], max(LONGEST_WORD, len(words[place]) - excess))
    return cut(" ".join(words), limit)


def cut(text: str, size: int) -> str:
    """The text without its middle, if it is longer."""
    if len(text) <= size:
        return text
    end = (size - 3) // 2
    return f"{text[: size - 3 - end]}...{text[-end:]}"


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that lists known words, a similar one first."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}" if known else f"{hint}none are known"
