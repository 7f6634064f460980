"""The files of settings that come with the program: `applications.toml`, `quick.toml`, `template.toml`."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

FOLDER = "configs"
NAMES = ("applications.toml", "quick.toml", "template.toml")


def find(path: str) -> str:
    """`path`; where there is no such file, and it is one of those that come along, that one.

    So `configs/quick.toml` can be used without a clone of the repository too.
    """
    name = path.removeprefix(f"{FOLDER}/")
    if os.path.exists(path) or name not in NAMES:
        return path
    return next((str(place) for place in _places(name) if place.is_file()), path)


def _places(name: str) -> list[Path]:
    """In a clone; beside the package, for `pip install --target`; where the list of installed files says."""
    above = Path(__file__).parents[2]
    try:
        files = importlib.metadata.files("export-model") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    installed = [Path(str(file.locate())).resolve() for file in files if file.parts[-2:] == ("export-model", name)]
    return [above / FOLDER / name, above / "share" / "export-model" / name, *installed]
