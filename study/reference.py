"""Reference tables of settings and metrics, made from the code.

`python -m study.reference settings` and `python -m study.reference metrics` print one table each; without an argument both are
printed. A test compares them with `study/docs/settings.md` and `study/docs/metrics.md`.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

from pydantic.fields import FieldInfo

from study import parts, schema
from study.config import Diagnostics, Probes, Training

Fields = Mapping[str, FieldInfo]


def settings_table() -> str:
    """A Markdown table of all settings with default and meaning."""
    rows = []
    for section, kind in parts.SECTIONS.items():
        rows.append(
            (f"`{section}/name`", ", ".join(f"`{name}`" for name in parts.built_in(kind)), f"The {parts.KINDS[kind]}.")
        )
        for fields, owners in _distinct(kind):
            rows += _rows(f"{section}/", fields, owners)
    rows += _named("interventions")
    rows += _rows("training/", Training.model_fields)
    rows += _rows("diagnostics/", Diagnostics.model_fields)
    rows += _rows("probes/", Probes.model_fields)
    rows += _named("operations")
    return _markdown(("setting", "default, or choices", "meaning"), rows)


def metrics_table() -> str:
    """A Markdown table of all logged quantities, units and definitions."""
    rows = []
    for quantity in schema.QUANTITIES.values():
        more = (
            " Also of each lane, as `" + schema.lane_name(quantity.name, 0) + "` and so on." if quantity.by_lane else ""
        )
        if quantity.by_layer:
            more = " Of each layer, as `" + schema.layer_name(quantity.name, "0") + "` and so on."
        only = " Only when images are held out." if quantity.needs_validation else ""
        source = f" {quantity.source}." if quantity.source else ""
        definition = quantity.definition.replace("|", "\\|") + more + only + source
        rows.append((f"`{quantity.name}`", quantity.unit, definition))
    return _markdown(("name", "unit", "definition"), rows)


def _named(kind: str) -> list[tuple[str, str, str]]:
    """The settings of parts that stand by their names."""
    rows = []
    for name in parts.built_in(kind):
        rows += _rows(f"{kind}/{name}/", parts.find(kind, name).Settings.model_fields) or [
            (f"`{kind}/{name}`", "`{}`", "It has no settings; `{}` switches it on.")
        ]
    return rows


def _distinct(kind: str) -> Iterable[tuple[Fields, str]]:
    """The settings of a kind's parts, and words on who has them.

    Settings that all parts share come first. Settings of some parts that are equal in all respects are one.
    """
    declared = {name: parts.find(kind, name).Settings.model_fields for name in parts.built_in(kind)}
    owners: dict[tuple[str, str, str | None], list[str]] = {}
    for part, own in declared.items():
        for name, field in own.items():
            owners.setdefault((name, repr(field.default), field.description), []).append(part)
    for (name, *_), having in sorted(owners.items(), key=lambda item: len(item[1]) < len(declared)):
        lacking = [part for part in declared if part not in having]
        if len(having) > 2 * len(lacking):
            words = f" (not {_quoted(lacking)})" if lacking else ""
        else:
            words = f" ({_quoted(having)} only)"
        yield {name: declared[having[0]][name]}, words


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _rows(prefix: str, fields: Fields, owners: str = "") -> list[tuple[str, str, str]]:
    return [
        (f"`{prefix}{field.alias or name}`", f"`{json.dumps(field.default)}`", f"{field.description}{owners}")
        for name, field in fields.items()
    ]


def _markdown(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(words: list[str]) -> None:
    """Prints the named tables, all tables without a name.

    Exits with one sentence if a table is unknown.
    """
    unknown = [word for word in words if word not in TABLES]
    if unknown:
        sys.exit(f"There is no table {unknown[0]!r}; there are: {', '.join(TABLES)}.")
    print("\n\n".join(TABLES[word]() for word in words or TABLES))


TABLES = {"settings": settings_table, "metrics": metrics_table}

if __name__ == "__main__":
    main(sys.argv[1:])
