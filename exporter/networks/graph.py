"""The graph of an export for NetworkX: `exporter.to_networkx("outputs/resnet101")`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import UsageError
from exporter.networks.elements import LEVELS, graph_attributes, layer_arcs, node_arcs, vertices
from exporter.stored.tables import rows

if TYPE_CHECKING:
    import networkx


def to_networkx(path: str | os.PathLike[str], level: str = "layers") -> networkx.MultiDiGraph:
    """The layers of an export, or its ONNX nodes (`level="nodes"`), and the tensors between them as edges.

    `path` is the folder of an export with the catalogue (`--to parquet`). Nodes go by the catalogue's keys, the names
    of layers joined by `/`; one edge for each tensor from a call to a call, its key is its number. Attributes are the
    catalogue's columns, as texts and numbers: shapes are JSON text, what is unknown is absent. Layers of a nested model
    are joined with each other and name their model in `parent`.

    Raises UsageError for an unknown level or an export without the tables, SourceError for damaged ones, and
    ImportError without NetworkX, which does not come with export-model.
    """
    folder = Path(path)
    if level not in LEVELS:
        raise UsageError(
            f"{level!r} is no level", where="to_networkx", why="there are layers and nodes", hint='level="layers"'
        )
    _require(folder, level)
    try:
        import networkx
    except ImportError as error:
        raise ImportError("to_networkx needs NetworkX: pip install 'export-model[networks]'") from error
    about = next(rows(folder, "models"), {})
    found = networkx.MultiDiGraph(**graph_attributes(about, level))
    read = partial(rows, folder, level, {LEVELS[level].key, LEVELS[level].label, *LEVELS[level].node_kinds})
    found.add_nodes_from(vertices(read(), level))
    found.add_edges_from(layer_arcs(rows(folder, "edges")) if level == "layers" else node_arcs(read))
    return found


def _require(folder: Path, level: str) -> None:
    """Raises UsageError where the tables are not there at all."""
    wanted = {"layers": ("layers", "edges"), "nodes": ("nodes",)}[level]
    missing = [f"{name}.parquet" for name in ("models", *wanted) if not (folder / f"{name}.parquet").is_file()]
    if missing:
        formats = "parquet" if level == "layers" else "onnx,parquet"
        hint = f"export-model SOURCE --to {formats}, then name the model's folder in its output"
        raise UsageError("is no export with the tables", where=str(folder), why=f"no {', '.join(missing)}", hint=hint)
