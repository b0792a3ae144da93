"""The best configurations as YAML files that `study trial` runs, each with where it comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.config import StudyError, yaml_text


def write(path: Path, config: Mapping[str, Any], provenance: Mapping[str, Any]) -> bool:
    """Writes one configuration with its provenance, whole or not at all.

    Returns:
        Whether it was written; False when the file is there already with the same content.

    Raises:
        StudyError: another file stands there, or the folder cannot be written.
    """
    text = yaml_text({**config, "provenance": dict(provenance)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if path.read_bytes() == text.encode():
                return False
            raise StudyError(f"{str(path)!r} exists and differs; move it away, or export to another folder with --to.")
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            draft.write_text(text, encoding="utf-8")
            os.link(draft, path)  # unlike a rename it never replaces a file that has come up meanwhile
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StudyError(f"{str(path)!r} cannot be written: {error.strerror}.") from None
    return True
