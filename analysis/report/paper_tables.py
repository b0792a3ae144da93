"""Tables of the page as Parquet and LaTeX."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from analysis.report.page import Column, Kind, Table, is_missing, written

TEXTS: Final[tuple[Kind, ...]] = ("text", "verdict", "run")

ESCAPED: Final = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "−": "$-$",
        "±": r"$\pm$",
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    }
)


def write_parquet(table: Table, place: Path) -> None:
    """Writes the whole frame of a table, numbers in full.

    A column that mixes numbers and texts is written as text.
    """
    frame = table.frame.copy()
    for name in frame:
        kinds = {type(value) for value in frame[name] if not is_missing(value)}
        if frame[name].dtype == object and len(kinds) > 1:
            frame[name] = [None if is_missing(value) else str(value) for value in frame[name]]
    frame.to_parquet(place, index=False)


def latex(table: Table) -> str:
    """A table as a reader sees it, without runs.

    The preamble needs the package `booktabs`.
    """
    columns = [column for column in table.shown if column.kind != "run"]
    rows = (table.frame if table.rows is None else table.rows).to_dict("records")
    lines = [
        r"\begin{table}",
        rf"\caption{{{escaped(table.caption)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{''.join('l' if column.kind in TEXTS else 'r' for column in columns)}}}",
        r"\toprule",
        " & ".join(escaped(column.heading) for column in columns) + r" \\",
        r"\midrule",
        *(" & ".join(_cell(column, row) for column in columns) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Plain text with marks of the page, as LaTeX."""
    return text.replace("`", "").replace("*", "").translate(ESCAPED)


def _cell(column: Column, row: dict[Any, Any]) -> str:
    value = row[column.key]
    if is_missing(value):
        return "--"
    if column.kind in TEXTS:
        return escaped(str(value))
    low, high = (row.get(f"{column.key}_{end}") for end in ("low", "high"))
    interval = (
        "" if is_missing(low) or is_missing(high) else f" [{_number(column.kind, low)}, {_number(column.kind, high)}]"
    )
    return _number(column.kind, value) + interval


def _number(kind: Kind, value: Any) -> str:
    """A number with a minus sign instead of a hyphen."""
    mantissa, _, exponent = written(kind, float(value)).partition("e")
    return f"${mantissa}$" if not exponent else rf"${mantissa} \times 10^{{{int(exponent)}}}$"
