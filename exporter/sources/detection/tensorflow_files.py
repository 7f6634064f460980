"""What TensorFlow saves: SavedModel folders, graphs alone, graphs with a checkpoint, checkpoints alone."""

from __future__ import annotations

import mmap
import os
import re
from itertools import islice
from pathlib import Path

from exporter.errors import SourceError
from exporter.protobuf import fields
from exporter.sources.detection.kinds import CHECKPOINT, GRAPH_DEF, META_GRAPH, SAVED_MODEL, Seen

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
# The last bytes of a sorted table, which the index of a checkpoint is.
TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
DATA_FILE = re.compile(r"\.data-\d{5}-of-\d{5}$")
# TensorFlow's text file that says which checkpoint of a folder is the latest.
STATE_FILE, STATE_BYTES = "checkpoint", 2**20
LATEST = re.compile(r'^\s*model_checkpoint_path:\s*"((?:[^"\\]|\\.)*)"', re.MULTILINE)
# Fields of GraphDef, NodeDef and MetaGraphDef; a graph may have so many nodes, of which a few are looked at.
GRAPH_FIELDS, META_GRAPH_FIELDS, MOST_FIELDS, NODES_SEEN = {1, 2, 3, 4, 5}, {1, 2, 3, 4, 5, 6, 7}, 10_000_000, 5
NODE_NAME, NODE_OP = 1, 2


def file_kind(seen: Seen) -> str | None:
    if seen.path.name in SAVED_MODEL_FILES:
        return SAVED_MODEL
    if DATA_FILE.search(seen.path.name) and os.path.exists(f"{checkpoint_prefix(str(seen.path))}.index"):
        return CHECKPOINT
    if _ends_with(seen, TABLE_MAGIC):
        return CHECKPOINT
    if re.match(rb"\s*(#[^\n]*\s*)*(node|versions|library)\s*\{", seen.head):
        return GRAPH_DEF
    return _kind_of_message(seen) if seen.nbytes else None


def folder_kind(path: Path) -> str | None:
    if any((path / name).is_file() for name in SAVED_MODEL_FILES):
        return SAVED_MODEL
    if not (path / STATE_FILE).is_file():
        return None
    prefix = latest_checkpoint(path)
    return META_GRAPH if os.path.exists(f"{prefix}.meta") else CHECKPOINT


def named_source(source: str) -> tuple[str, str] | None:
    """`model.ckpt`, the common start of the names of a checkpoint's files."""
    if not os.path.isfile(f"{source}.index") or os.path.exists(source):
        return None
    name = re.sub(r"[^\w.-]+", "_", os.path.basename(source)).strip("._-")[:60] or "model"
    return (META_GRAPH if os.path.exists(f"{source}.meta") else CHECKPOINT), name


def saved_model_folder(source: str) -> str:
    """The folder, also where the file in it was named."""
    return os.path.dirname(source) or "." if os.path.basename(source) in SAVED_MODEL_FILES else source


def checkpoint_prefix(source: str) -> str:
    """The common start of a checkpoint's files, from any of them, or the latest in a folder. Raises SourceError."""
    if os.path.isdir(source):
        return latest_checkpoint(Path(source))
    return DATA_FILE.sub("", source).removesuffix(".index").removesuffix(".meta")


def latest_checkpoint(folder: Path) -> str:
    """What the folder's `checkpoint` file names, if it is in the folder. Raises SourceError."""
    with open(folder / STATE_FILE, encoding="utf-8", errors="replace") as stream:
        found = LATEST.search(stream.read(STATE_BYTES))
    if found is None:
        why = f"its file {STATE_FILE} names no checkpoint"
        raise SourceError("is no checkpoint", where=str(folder), why=why, hint="name the .index file")
    # The folder may have been moved since; a path that leads out of it is not followed.
    return str(folder / os.path.basename(found[1]))


def saved_model_files(source: str) -> list[str]:
    """Those that TensorFlow knows, the assets among them; what else lies in the folder does not count."""
    folder = Path(saved_model_folder(source))
    found = [folder / name for name in (*SAVED_MODEL_FILES, "keras_metadata.pb")]
    inner = sorted(path for name in ("variables", "assets") for path in (folder / name).rglob("*"))
    return [str(path) for path in (*found, *inner) if path.is_file()]


def checkpoint_files(source: str) -> list[str]:
    prefix = checkpoint_prefix(source)
    folder, name = os.path.split(prefix)
    data = sorted(entry for entry in os.listdir(folder or ".") if entry.startswith(f"{name}.data-"))
    return [f"{prefix}.index", *(os.path.join(folder, entry) for entry in data)]


def meta_graph_files(source: str) -> list[str]:
    return [f"{checkpoint_prefix(source)}.meta", *checkpoint_files(source)]


def _ends_with(seen: Seen, magic: bytes) -> bool:
    if seen.nbytes < len(magic):
        return False
    with open(seen.path, "rb") as stream:
        return os.pread(stream.fileno(), len(magic), seen.nbytes - len(magic)) == magic


def _kind_of_message(seen: Seen) -> str | None:
    """By the fields of the message: a graph is nodes, with a name and an op each."""
    with open(seen.path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found = [each for each in islice(fields(data, 0, seen.nbytes), MOST_FIELDS) if each.number != 1][:100]
            first = [each for each in islice(fields(data, 0, seen.nbytes), NODES_SEEN) if each.number == 1]
            numbers = {each.number for each in found}
            if first and numbers <= GRAPH_FIELDS and all(_is_node(data, each.start, each.stop) for each in first):
                return GRAPH_DEF
            graphs = [each for each in found if each.number == 2]
            if len(graphs) == 1 and numbers <= META_GRAPH_FIELDS and len(first) == 1:
                nodes = list(islice(fields(data, graphs[0].start, graphs[0].stop), NODES_SEEN))
                if nodes and all(_is_node(data, each.start, each.stop) for each in nodes if each.number == 1):
                    return META_GRAPH
        except ValueError:
            return None
    return None


def _is_node(data: mmap.mmap, start: int, stop: int) -> bool:
    """Whether there is a message with a name and an op that look like such."""
    texts = {}
    for each in islice(fields(data, start, stop), 1000):
        if each.number in (NODE_NAME, NODE_OP) and each.stop - each.start < 10_000:
            texts[each.number] = data[each.start : each.stop]
    name, op = texts.get(NODE_NAME, b""), texts.get(NODE_OP, b"")
    return bool(re.fullmatch(rb"[\w.\\/>^-]+", name) and re.fullmatch(rb"[A-Z_][\w>]*", op))
