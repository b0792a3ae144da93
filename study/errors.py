"""What can go wrong, as one sentence for the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StudyError(Exception):
    """Something the user asked for cannot be done; the message is one sentence that says what would be right."""


class Interrupted(StudyError):  # noqa: N818  # not a fault
    """The user stopped the work; the message says how to go on."""


class Halted(StudyError):  # noqa: N818  # not the user's
    """Something outside of the study stopped the work, such as a full disk; the message says how to go on."""


def first_line(error: BaseException) -> str:
    """The beginning of an exception's message, for a sentence; its type if it has none.

    At most 200 characters, without a full stop. What SQLAlchemy says of how it came to raise is left out.
    """
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("(raised as a result of")]
    return (lines or [type(error).__name__])[0][:200].rstrip(".: ")


def with_type(error: BaseException) -> str:
    """Type and first line of an exception: `ValueError: too few`."""
    name, line = type(error).__name__, first_line(error)
    return name if line == name else f"{name}: {line}"


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that lists the known words, with the nearest one first when one is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}" if known else f"{hint}none are known"
