"""Which code a command runs."""

from __future__ import annotations

import sys
from pathlib import Path

from study import provenance
from study.errors import StudyError


def check() -> None:
    """Makes sure that this command is the installed study's.

    `python -m study` may run other code than the installed: a job can bring its source along. A note says so.

    Raises:
        StudyError: PYTHONPATH puts other code in the place of what the command `study` was installed with, or another package in
            the place of one of the study's.
    """
    here = provenance.source_folder()
    if strange := provenance.strange_package():
        name, place = strange
        raise StudyError(
            f"{place} hides the package {name!r} of the study in {here}; take its folder out of PYTHONPATH, or run `study` "
            f"instead of `python -m study`."
        )
    installed = provenance.hidden_installation()
    if installed is None:
        return
    if _is_command():
        raise StudyError(
            f"The study in {here} hides the installed one in {installed}, which has other code; take it out of PYTHONPATH, or "
            f"use it on purpose with `python -m study`."
        )
    from study.cli import terminal  # Rich is slow to import

    terminal.complain(f"note: this is the study in {here}; the installed one in {installed} has other code.")


def _is_command() -> bool:
    """Whether this process is the installed command `study`."""
    return Path(getattr(sys.modules["__main__"], "__file__", None) or "").stem == "study"
