"""`model.dot`: the graph of layers as Graphviz text, streamed."""

from __future__ import annotations

from pathlib import Path

from exporter import files
from exporter.formats.pictures.drawings import first_drawing
from exporter.formats.pictures.sheets import sheet
from exporter.records import Material


def write(material: Material, folder: Path) -> tuple[str, ...]:
    drawing, paint, note = first_drawing(material)
    files.write_lines(folder / "model.dot", sheet(drawing, drawing.pieces, drawing.arrows, (), paint))
    return (note,) if note else ()
