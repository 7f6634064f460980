"""`model.svg`: the graph of layers as a picture that fits a page, simpler where the whole would not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import monotonic

from exporter import files
from exporter.errors import InternalError, ResourceError, UnsupportedError
from exporter.formats import layout
from exporter.formats.columns import plans, scale, turning_point
from exporter.formats.pictures import plain
from exporter.formats.pictures.drawings import Subject
from exporter.formats.pictures.sheets import sheet
from exporter.formats.sketch import Sketch
from exporter.formats.svg_compose import compose, size_of
from exporter.records import Material

# The share of the time left that one attempt may take, so that a simpler one can follow.
SHARE = 0.6
# Several ways to wrap a picture are tried where it has at most so many boxes.
TRIED_BOXES = 150
# A page is readable down to this scale, at which ordinary text is 6 points high.
READABLE_SCALE = 0.55
FILE = "model.svg"


def write(material: Material, folder: Path) -> tuple[str, ...]:
    """Writes `model.svg`; never raises for a lack of time or of Graphviz. Returns notes on what is not in it."""
    picture, notes = document(material)
    with files.new_file(folder / FILE) as stream:
        stream.write(picture)
    return notes


def written(material: Material, folder: Path) -> tuple[bytes, tuple[str, ...]]:
    """The document that `write` has put into this folder in the same export, or else a new one."""
    if "svg" in material.job.formats:
        return (folder / FILE).read_bytes(), ()
    return document(material)


def document(material: Material) -> tuple[bytes, tuple[str, ...]]:
    """The SVG and notes for the user."""
    deadline = monotonic() + material.job.layout_seconds
    subject = Subject(material)
    failed, failure = subject.too_large(), ""
    fitting: tuple[float, bytes, str] | None = None
    for drawing in subject.attempts():
        try:
            picture = rendered(subject, drawing, (deadline - monotonic()) * SHARE)
        except (ResourceError, InternalError) as error:
            # Graphviz can also crash on a large graph; a simpler one is smaller.
            failed, failure = failed or "The picture could not be laid out in time", str(error)
            continue
        except UnsupportedError as error:
            failure = str(error)
            break
        found = scale(*size_of(picture))
        if fitting is None or found > fitting[0]:
            fitting = found, picture, subject.note(drawing, failed)
        if found >= READABLE_SCALE or not subject.is_free() or turning_point(drawing) is not None:
            break
    if fitting is not None:
        return fitting[1], (fitting[2],) if fitting[2] else ()
    return listed(subject, failure)


def listed(subject: Subject, failure: str) -> tuple[bytes, tuple[str, ...]]:
    """What needs no Graphviz."""
    drawing = subject.drawing(min(subject.most(), plain.MOST_BOXES))
    _, frame = subject.paint(drawing)
    attributes: dict[str, dict[str, str]] = {key: {} for box in drawing.boxes for key in plain.ids(box)}
    frame = replace(frame, attributes=attributes, styles=())
    note = f"The picture is a plain list of blocks ({failure}); `--to dot` has the graph as text."
    return compose(drawing.name, [plain.picture(drawing, frame.theme)], frame), (note,)


def rendered(subject: Subject, drawing: Sketch, seconds: float) -> bytes:
    """The document of one attempt, wrapped as suits a page best. Raises as `layout.pictures` does."""
    paint, frame = subject.paint(drawing)
    ways = plans(drawing, right=frame.right)[: None if len(drawing.boxes) <= TRIED_BOXES else 1]
    texts = ["\n".join(sheet(drawing, part.pieces, part.arrows, part.links, paint)) for way in ways for part in way]
    found = iter(layout.pictures(texts, seconds=seconds))
    documents = [(compose(drawing.name, [next(found) for _ in way], frame), len(way)) for way in ways]
    return max(documents, key=lambda entry: (round(scale(*size_of(entry[0])), 2), -entry[1]))[0]
