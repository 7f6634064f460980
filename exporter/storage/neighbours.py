"""What is meant by somebody who names a folder that holds exports, or one that is an export: words for errors."""

from __future__ import annotations

import os
from pathlib import Path

from exporter.files import MANIFEST

# A folder of ten thousand exports need not be gone through for the name of one.
MOST_LOOKS = 100


def is_export(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def export_in(folder: Path) -> str | None:
    """The path of a finished export right below the folder, the first by its name."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return None
    return next((str(folder / name) for name in names[:MOST_LOOKS] if is_export(folder / name)), None)
