"""What a shell completes: names of sweeps and search spaces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from study.sweep import folder
from study.sweep.execution import DEFAULT_DIRECTORY


def sweeps(ctx: typer.Context, incomplete: str) -> list[str]:
    """The sweeps that begin with a word; `--dir` counts."""
    given: Any = ctx.params.get("directory")
    return [name for name in folder.names(Path(given or DEFAULT_DIRECTORY)) if name.startswith(incomplete)]


def spaces(incomplete: str) -> list[str]:
    """The search spaces that begin with a word, or files."""
    import search_spaces  # imports Optuna, which takes long

    names = [name for name in search_spaces.names() if name.startswith(incomplete)]
    if names or "/" not in incomplete:
        return names
    place, _, start = incomplete.rpartition("/")
    found = [path for path in Path(place or "/").glob("*") if path.name.startswith(start)]
    return sorted(f"{place}/{path.name}{'/' if path.is_dir() else ''}" for path in found if _may_lead_to_a_space(path))


def _may_lead_to_a_space(path: Path) -> bool:
    return path.is_dir() or path.suffix in (".py", ".yaml", ".yml")
