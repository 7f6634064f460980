"""Which file the browser gets for a target: the view, the model without its weights, or the whole file; and why."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

from onnx import ModelProto

from exporter.errors import ExportError, SourceError
from exporter.files import new_file, read_manifest, write_lines
from exporter.formats.view_model.facts import facts_of
from exporter.formats.view_model.hollow_file import read_hollow
from exporter.formats.view_model.layer_graph import layer_model
from exporter.formats.view_model.model import DOMAIN, view_model
from exporter.records import Job, ModelGraph
from exporter.view.site import Shown
from exporter.view.tables import Tables
from exporter.view.targets import MODEL_FILE, VIEW_FILE, resolve

# Netron draws graphs up to about this size at once, and people can overlook them.
LARGE_NODES = 200
# By this name the page asks for the weights that are inside of a model file, when one is clicked.
INLINE = "{}.weights"
HDF5_SUFFIXES = (".h5", ".hd5", ".hdf5")
LAYERS_ONLY = "its layers are shown, without their weights; --full sends those too"
KERAS_PARTS = ("config.json", "metadata.json")


def choose(target: str | Path, place: Path, *, full: bool = False) -> Shown:
    """What to show of a target; what has to be made for it goes into the folder `place`. Raises SourceError."""
    path = resolve(target)
    if full:
        return whole(path, "the whole file is shown, as --full asks for")
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return _onnx(path, place)
    if suffix == ".keras" and zipfile.is_zipfile(path):
        return _keras(path, place)
    if suffix in HDF5_SUFFIXES and (config := _hdf5_config(path)) is not None:
        lean = place / f"{path.name}.json"
        write_lines(lean, [config])
        return Shown(lean, lean.name, LAYERS_ONLY, path)
    return whole(path, f"a {suffix} file goes to the page as it is, with its weights")


def whole(path: Path, reason: str = "") -> Shown:
    return Shown(path, path.name, reason, path, beside=path, tables=Tables.beside(path))


def _onnx(path: Path, place: Path) -> Shown:
    inline = INLINE.format(path.name)
    model = read_hollow(path, refer=inline)
    count = len(model.graph.node)
    if any(entry.domain == DOMAIN for entry in model.opset_import):
        return Shown(path, path.name, "its blocks are shown, as the file holds them", path, tables=Tables.beside(path))
    if count <= LARGE_NODES:
        lean = _written(model, place / path.name)
        reason = f"{count} nodes: all of them are shown, and weights are read when one is clicked"
        tables = Tables.beside(path)
        return Shown(lean, path.name, reason, path, beside=path, tables=tables, inline=(inline, path))
    return _blocks(path, model, place)


def _blocks(path: Path, model: ModelProto, place: Path) -> Shown:
    """The view of a large model: the one of the same export, or a new one."""
    count, tables, kept = len(model.graph.node), Tables.beside(path), path.with_name(VIEW_FILE)
    why = f"{count:,} nodes are more than {LARGE_NODES}, so that its blocks are shown; --full shows every node"
    if path.name == MODEL_FILE and _belongs(kept):
        return Shown(kept, VIEW_FILE, why, path, tables=tables)
    facts, macs = (tables.facts(), tables.macs()) if tables else ({}, [])
    view = view_model(model, facts, macs if len(macs) == count else [])
    made = _written(view, place / f"{path.stem}.view.onnx")
    return Shown(made, made.name, why, path, tables=tables)


def _belongs(view: Path) -> bool:
    """Whether the view is part of the finished export in its folder, and not left from an older one."""
    manifest = read_manifest(view.parent) or {}
    return view.is_file() and any(file.get("name") == view.name for file in manifest.get("files", ()))


def _written(model: ModelProto, path: Path) -> Path:
    with new_file(path) as stream:
        stream.write(model.SerializeToString(deterministic=True))
    return path


def _keras(path: Path, place: Path) -> Shown:
    """A `.keras` archive without its weights; a large one by blocks of its layers, if its config says enough."""
    graph = _layers(path, place)
    if graph is not None:
        model = layer_model(graph)
        count = len(model.graph.node)
        if count > LARGE_NODES:
            view = view_model(model, facts_of(graph.layers, None))
            why = f"{count:,} layers are more than {LARGE_NODES}, so that blocks of them are shown; --full shows all"
            made = _written(view, place / f"{path.stem}.view.onnx")
            return Shown(made, made.name, why, path)
    return _without_weights(path, place)


def _layers(path: Path, place: Path) -> ModelGraph | None:
    """What the archive says of itself; None where that is not enough, or wrong: then Netron says what it can."""
    from exporter.readers import Unexplained, keras_archive

    job = Job(str(path), "keras_archive", path.stem, "", (), "", "")
    with suppress(Unexplained, ExportError):
        return keras_archive.read(job, str(place)).graph
    return None


def _without_weights(path: Path, place: Path) -> Shown:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in KERAS_PARTS if name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise SourceError("cannot be read", where=str(path), why=str(error), hint="save the model again") from error
    lean = place / path.name
    with new_file(lean) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return Shown(lean, path.name, LAYERS_ONLY, path)


def _hdf5_config(path: Path) -> str | None:
    """The JSON of a model that Keras saved whole; None for any other file, such as one of weights alone."""
    import h5py

    try:
        with h5py.File(path) as file:
            config = file.attrs.get("model_config")
    except OSError:
        return None
    return config.decode() if isinstance(config, bytes) else config if isinstance(config, str) else None
