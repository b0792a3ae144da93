"""A page as data: sections of paragraphs, tables and pictures; and its files, one HTML page that opens offline, PNG and CSV.

The page holds its pictures inside, once for wide screens and once for narrow ones. Every number of a table carries its full
value in the cell's attribute `data-value`, and every row the MLflow runs that it comes from.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from analysis.figures import Size
from study.errors import StudyError

Draw = Callable[[Path, Size], None]
"""Draws a figure into a PNG file, for wide or for narrow screens."""

Kind = Literal["text", "share", "signed", "count", "number", "p", "hours", "verdict", "run"]


@dataclass(frozen=True)
class Column:
    """A column of a table as a person sees it.

    Attributes:
        key: column of the frame; with `KEY_low` and `KEY_high` beside it, the interval is shown too.
        heading: what stands above it, with the unit where it is not a share.
        kind: how its values are written.
    """

    key: str
    heading: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """A table: on the page the columns named, in its CSV file `name`.csv all of the frame, numbers in full."""

    name: str
    caption: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    folded: bool = False

    @property
    def is_table(self) -> bool:
        """For the template."""
        return True

    @property
    def summary(self) -> str:
        """The first sentence of the caption, for what a folded table shows of itself."""
        return self.caption.split(". ")[0].rstrip(".")

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns that the frame has."""
        return tuple(column for column in self.columns if column.key in self.frame)

    def cells(self, addresses: Mapping[str, str]) -> Iterator[list[tuple[Column, Markup]]]:
        """Row by row: each column and its cell."""
        for row in self.frame.to_dict("records"):
            yield [(column, cell(column, row, addresses)) for column in self.shown]


@dataclass(frozen=True)
class Picture:
    """A figure: `draw(path, size)` writes it as a PNG."""

    name: str
    caption: str
    draw: Draw
    run_ids: tuple[str, ...] = ()

    @property
    def is_table(self) -> bool:
        """For the template."""
        return False


@dataclass(frozen=True)
class Section:
    """A part of the page. Paragraphs are plain text, with code between backticks; a list of them is a list on the page."""

    anchor: str
    title: str
    paragraphs: tuple[str | tuple[str, ...], ...] = ()
    blocks: tuple[Table | Picture, ...] = ()


@dataclass(frozen=True)
class Page:
    """The whole report. `addresses` are those of the runs' pages in MLflow, by run id; empty where no server is known."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        """All tables, in their order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Table)]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures, in their order."""
        return [block for section in self.sections for block in section.blocks if isinstance(block, Picture)]

    def write(self, folder: Path) -> None:
        """Writes `report.html`, `figures/NAME.png` and `tables/NAME.csv` into a folder; the same page gives the same bytes."""
        (folder / "figures").mkdir(parents=True)
        (folder / "tables").mkdir()
        for table in self.tables:
            table.frame.to_csv(folder / "tables" / f"{_file_name(table.name)}.csv", index=False, lineterminator="\n")
        images: dict[str, dict[str, str]] = {}
        for picture in self.pictures:
            name = _file_name(picture.name)
            wide, narrow = folder / "figures" / f"{name}.png", folder / f".{name}.png"
            picture.draw(wide, "wide")
            picture.draw(narrow, "narrow")
            images[picture.name] = {"wide": _inline(wide), "narrow": _inline(narrow)}
            narrow.unlink()
        environment = jinja2.Environment(
            autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        environment.filters |= {"marked": marked, "run": lambda run_id: run_link(run_id, self.addresses)}
        template = environment.from_string(
            resources.files(__package__).joinpath("page.html").read_text(encoding="utf-8")
        )
        (folder / "report.html").write_text(template.render(page=self, images=images), encoding="utf-8")


def _inline(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def marked(text: str) -> Markup:
    """Plain text as HTML: `code` between backticks, *emphasis* between asterisks."""
    return Markup().join(_marked_part(part) for part in re.split(r"(`[^`]+`|\*[^*\s][^*]*\*)", text))


def _marked_part(part: str) -> Markup:
    if len(part) > 2 and part[0] == part[-1] == "`":
        return Markup("<code>{}</code>").format(part[1:-1])
    if len(part) > 2 and part[0] == part[-1] == "*":
        return Markup("<em>{}</em>").format(part[1:-1])
    return escape(part)


def run_link(run_id: str, addresses: Mapping[str, str]) -> Markup:
    """A run by the beginning of its id, with the whole id in its title, and its page in MLflow where there is a server."""
    code = Markup('<code class="run" title="{0}" data-run="{0}">{1}</code>').format(run_id, run_id[:8])
    return Markup('<a href="{}">{}</a>').format(addresses[run_id], code) if run_id in addresses else code


def cell(column: Column, row: dict[Any, Any], addresses: Mapping[str, str]) -> Markup:
    """What stands in a cell."""
    value = row[column.key]
    if is_missing(value):
        return Markup('<span class="none">not known</span>')
    match column.kind:
        case "text":
            return marked(str(value))
        case "verdict":
            return Markup('<span class="verdict {0}">{0}</span>').format(value)
        case "run":
            return Markup(" ").join(run_link(run_id, addresses) for run_id in str(value).split())
        case kind:
            return number(kind, value) + _interval(kind, row, column.key)


def number(kind: Kind, value: float) -> Markup:
    """A number for people, with its full value beside it for machines."""
    return Markup('<span data-value="{}">{}</span>').format(repr(float(value)), written(kind, float(value)))


def _interval(kind: Kind, row: dict[Any, Any], key: str) -> Markup:
    """The bounds of a number, where the row has them."""
    if f"{key}_low" not in row:
        return Markup()
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    if is_missing(low) or is_missing(high):
        return Markup(' <span class="none">interval not known</span>')
    return Markup(' <span class="interval">[{}, {}]</span>').format(number(kind, low), number(kind, high))


def is_missing(value: object) -> bool:
    """Whether there is no such value: None or one of pandas' and numpy's ways to say so."""
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def written(kind: Kind, value: float) -> str:
    """A number for people."""
    match kind:
        case "share" | "signed" | "count":
            return format(value, {"share": ".4f", "signed": "+.4f", "count": ",.0f"}[kind])
        case "p":
            return f"{value:.4f}" if value >= 0.0001 else f"{value:.1e}"
        case "hours":
            return f"{value:.1f} h" if value >= 1 else f"{60 * value:.1f} min"
        case _:
            return f"{value:.3g}"


def joined(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _file_name(name: str) -> str:
    """The name, which has words out of MLflow in it, if it stays within a folder. Raises StudyError otherwise."""
    if Path(name).name != name or "\0" in name:
        raise StudyError(f"{name!r}, made of names in MLflow, cannot name a file of the report.")
    return name
