"""`model.png`: the picture of `model.svg` in pixels."""

from __future__ import annotations

from pathlib import Path

from exporter.formats.pictures.rendered import write_rendered
from exporter.records import Material


def write(material: Material, folder: Path) -> tuple[str, ...]:
    return write_rendered("png", material, folder)
