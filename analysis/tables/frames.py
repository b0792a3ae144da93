"""Rows become a table that has its columns even when it has no rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd


def frame(rows: Sequence[Mapping[str, Any]], columns: str) -> pd.DataFrame:
    """The rows under columns named in one text, apart from each other by blanks; what a row lacks is NaN."""
    return pd.DataFrame(rows, columns=columns.split())
