"""What becomes of the SVG in another kind of file."""

from __future__ import annotations

from pathlib import Path

from exporter import files
from exporter.errors import ResourceError
from exporter.formats import layout, svg_picture
from exporter.formats.pictures import rendering
from exporter.records import Material

MODULE = "exporter.formats.pictures.rendering"
# Whatever the limit of the layout is.
LEAST_SECONDS = 300.0


def write_rendered(kind: str, material: Material, folder: Path) -> tuple[str, ...]:
    """Writes `model.png` or `model.pdf`. A picture for which there is no time is left out, and a note says so."""
    rendering.require(kind)
    svg, notes = svg_picture.written(material, folder)
    try:
        # The time for the layout is over; what remains takes about as long as the picture is large.
        found = layout.run(MODULE, (kind,), svg, max(material.job.layout_seconds, LEAST_SECONDS))
    except ResourceError as error:
        return (*notes, f"model.{kind} was not written ({error}); model.svg shows the same.")
    with files.new_file(folder / f"model.{kind}") as stream:
        stream.write(found)
    return notes
