"""`model.pdf`: the picture of `model.svg` on one page of its size, with text that can be searched."""

from __future__ import annotations

from pathlib import Path

from exporter.formats.pictures.rendered import write_rendered
from exporter.records import Material


def write(material: Material, folder: Path) -> tuple[str, ...]:
    return write_rendered("pdf", material, folder)
