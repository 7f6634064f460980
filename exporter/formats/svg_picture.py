"""`model.svg`: the graph of layers as a picture that fits a screen, coarser where the whole would not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from exporter import files
from exporter.errors import ExportError, InternalError, ResourceError, UnsupportedError
from exporter.formats import layout
from exporter.formats.columns import columns
from exporter.formats.dot_graph import sheet
from exporter.formats.sketch import COARSEST, Sketch, sketch
from exporter.formats.svg_compose import compose
from exporter.records import Material, ModelGraph

# More boxes than this take Graphviz minutes, and nobody reads them.
MOST_EXPANDED = 2_000
# Above this, layers that differ only in their channels are folded too, where that helps; above the second number
# nobody can read a picture on a screen.
COMFORTABLE, READABLE = 60, 120
MOST_BOXES = 400
SHOWN = (
    "repeated blocks are folded",
    "the inside of similar blocks is drawn once",
    "blocks are single boxes",
    "nested models are single boxes",
    "neighbouring layers are grouped into stages",
)
# The share of the time left that one attempt may take, so that a coarser one can follow.
SHARE = 0.6


@dataclass(frozen=True)
class Attempt:
    """One way to draw; `note` tells the user what is not in the picture."""

    drawing: Sketch
    note: str = ""


def write(material: Material, folder: Path) -> tuple[str, ...]:
    """Writes `model.svg`, or returns a note that says why it is missing. Never raises for a lack of time."""
    deadline = monotonic() + material.job.layout_seconds
    for attempt in attempts(material.graph, expand=material.job.expand):
        left = deadline - monotonic()
        try:
            picture = rendered(material.graph, attempt.drawing, left * SHARE)
        except (ResourceError, InternalError) as error:
            # Graphviz can also crash on a large graph; a coarser one is smaller.
            failure: ExportError = error
            continue
        except UnsupportedError as error:
            failure = error
            break
        with files.new_file(folder / "model.svg") as stream:
            stream.write(picture)
        return (attempt.note,) if attempt.note else ()
    only = "only model.dot is there" if "dot" in material.job.formats else "`--to dot` writes the graph as text"
    return (f"model.svg was not written ({failure}); {only}.",)


def rendered(graph: ModelGraph, drawing: Sketch, seconds: float) -> bytes:
    """The document of one attempt. Raises as `layout.pictures` does."""
    texts = ["\n".join(sheet(drawing, part.pieces, part.arrows, part.links)) for part in columns(drawing)]
    return compose(graph, layout.pictures(texts, seconds=seconds))


def attempts(graph: ModelGraph, *, expand: bool) -> Iterator[Attempt]:
    """Ways to draw from the finest that is sensible to the coarsest."""
    refused = ""
    if expand and len(graph.layers) <= MOST_EXPANDED:
        yield Attempt(sketch(graph, expand=True))
        refused = "The expanded picture could not be laid out in time; "
    elif expand:
        refused = f"{len(graph.layers):,} layers are too many for an expanded picture (limit {MOST_EXPANDED:,}); "
    for coarse in range(COARSEST + 1):
        drawing = finest(graph, coarse)
        if len(drawing.boxes) <= (MOST_BOXES if coarse > 1 else READABLE) or coarse == COARSEST:
            yield Attempt(drawing, note(refused, coarse))
            refused = refused or "The picture could not be laid out in time; "


def finest(graph: ModelGraph, coarse: int) -> Sketch:
    """Exact folding where its result is readable, else the one that also folds blocks of different widths."""
    exact = sketch(graph, coarse=coarse)
    if len(exact.boxes) <= COMFORTABLE:
        return exact
    loose = sketch(graph, coarse=coarse, loose=True)
    return loose if len(loose.boxes) < 0.8 * len(exact.boxes) else exact


def note(refused: str, coarse: int) -> str:
    if not refused and coarse == 0:
        return ""
    reason = refused or "The model is large; "
    return f"{reason}model.svg is simplified: {SHOWN[coarse]}. `--to dot --expand` writes every layer."
