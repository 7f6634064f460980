"""All that may be fetched: Netron's page and scripts, and the chosen files."""

from __future__ import annotations

import html
import importlib.util
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from exporter.errors import UnsupportedError
from exporter.view.tables import Tables

# External data of `x.onnx`: our name for it (also that of onnx's own tools), and that of Hugging Face's exporters.
SIDECAR_SUFFIXES = (".data", "_data")
# External data in several files, as `--shard-size` makes them.
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.onnx\.data")
ASSET_TYPES = {
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
}
BINARY = "application/octet-stream"
SCRIPT, ATTACHMENT = "export-model-attach.js", "attachment.json"
# Opens the attachment as if the user had, once the graph is drawn. Netron 9 has no other way to be given one; a version
# without these names shows the model without it.
ATTACH = b"""const address = document.querySelector('meta[name="export-model-attachment"]').content;
const drawn = () => document.body.className === 'default' && document.getElementById('canvas').hasAttribute('height');
const attach = async () => {
    const host = window.__view__ && window.__view__.host;
    if (host && typeof host._open === 'function') {
        const content = await (await fetch(address)).blob();
        const file = new File([content], 'attachment.json', { type: 'application/json' });
        await host._open(file, [file]);
        document.body.dataset.attached = 'true';
    }
};
const timer = setInterval(() => { if (drawn()) { clearInterval(timer); attach(); } }, 100);
"""


@dataclass(frozen=True)
class Shown:
    """A file to show under a name, and why it.

    `origin` is what the user pointed at, `beside` the model whose external data the page may ask for, `inline` a name
    by which it may ask for another file; `tables` are what the export knows about it.
    """

    path: Path
    name: str
    reason: str = ""
    origin: Path | None = None
    beside: Path | None = None
    tables: Tables | None = None
    inline: tuple[str, Path] | None = None


@dataclass(frozen=True)
class Site:
    """For each request path (decoded) a text, or a file and its content type. `addresses` are those of the models."""

    texts: Mapping[bytes, tuple[bytes, str]]
    files: Mapping[bytes, tuple[Path, str]]
    attachments: Mapping[bytes, Tables]
    addresses: Sequence[str]


def site(shown: Sequence[Shown]) -> Site:
    """Netron's page for each of the files, with its assets; several get a page that lists them.

    Raises UnsupportedError.
    """
    assets = _assets()
    files: dict[bytes, tuple[Path, str]] = {}
    texts: dict[bytes, tuple[bytes, str]] = {}
    attachments: dict[bytes, Tables] = {}
    addresses = ["/"] if len(shown) == 1 else [f"/{number}/" for number in range(1, len(shown) + 1)]
    for address, each in zip(addresses, shown, strict=True):
        root = address.encode()
        files |= {root + os.fsencode(path.name): (path, ASSET_TYPES[path.suffix]) for path in assets.values()}
        files |= _data(root, each)
        page = (_page(assets["index.html"], address, each), ASSET_TYPES[".html"])
        texts |= {root: page, root + b"index.html": page}
        if each.tables:
            texts[root + SCRIPT.encode()] = (ATTACH, ASSET_TYPES[".js"])
            attachments[root + ATTACHMENT.encode()] = each.tables
    if len(shown) > 1:
        texts[b"/"] = (_list(addresses, shown), ASSET_TYPES[".html"])
    return Site(texts, files, attachments, addresses)


def _data(root: bytes, shown: Shown) -> dict[bytes, tuple[Path, str]]:
    """The model, and what its external data may be in."""
    files: dict[bytes, tuple[Path, str]] = {}
    for name, path in [*_sidecars(shown.beside), *([shown.inline] if shown.inline else [])]:
        encoded = root + b"data/" + os.fsencode(name)
        # Netron asks for the location that stands in the model as it is, unquoted: a `#` or `?` cuts it short.
        files |= dict.fromkeys((key(encoded), encoded), (path, BINARY))
    files[root + b"data/" + os.fsencode(shown.name)] = (shown.path, BINARY)
    return files


def _sidecars(model: Path | None) -> Iterable[tuple[str, Path]]:
    if model is None:
        return ()
    whole = (model.with_name(model.name + suffix) for suffix in SIDECAR_SUFFIXES)
    shards = (path for path in model.parent.glob("model-*.onnx.data") if SHARD.fullmatch(path.name))
    return [(path.name, path) for path in (*whole, *shards) if path.is_file()]


def _assets() -> dict[str, Path]:
    spec = importlib.util.find_spec("netron")
    folders = spec.submodule_search_locations if spec else None
    paths = Path(folders[0]).iterdir() if folders else ()
    assets = {path.name: path for path in paths if path.suffix in ASSET_TYPES}
    if "index.html" not in assets:
        raise UnsupportedError("Netron is not installed", why="its page is not there", hint="pip install netron")
    return assets


def _page(index: Path, address: str, shown: Shown) -> bytes:
    """`index.html` with the `meta` elements by which Netron's own server tells the page what to open."""
    name = os.fsencode(shown.name).decode(errors="replace")
    # Netron puts its own address, with the folder, before this.
    facts = {
        "type": "Python",
        "file": "/data/" + quote(os.fsencode(shown.name), safe=""),
        "name": name,
        "identifier": name,
    }
    if shown.tables:
        facts["export-model-attachment"] = address + ATTACHMENT
    metas = "\n".join(f'<meta name="{name}" content="{html.escape(value)}">' for name, value in facts.items())
    if shown.tables:
        metas += f'\n<script src="{SCRIPT}" defer></script>'
    page, found = re.subn(
        r'<meta name="version" content="[^"]*">',
        lambda version: f"{version[0]}\n{metas}",
        index.read_text(encoding="utf-8"),
        count=1,
    )
    if not found:
        raise UnsupportedError(
            "this version of Netron is not known",
            where=str(index),
            why="its page has no place for the name of a model",
            hint="pip install 'netron<10'",
        )
    return page.encode()


def _list(addresses: Sequence[str], shown: Sequence[Shown]) -> bytes:
    """A plain page that leads to each of the models."""
    rows = "".join(
        f'<li><a href="{address}">{html.escape(label(each))}</a><br>{html.escape(each.reason)}</li>'
        for address, each in zip(addresses, shown, strict=True)
    )
    title = f"{len(shown)} models"
    head = f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
    style = "font: 16px/1.5 sans-serif; max-width: 50em; margin: 2em auto"
    return f'{head}<body style="{style}"><h1>{title}</h1><ol>{rows}</ol></body></html>'.encode()


def label(shown: Shown) -> str:
    """The file with its folder, which tells exports apart: all of their models have the same name."""
    place = shown.origin or shown.path
    return "/".join(os.fsencode(part).decode(errors="replace") for part in place.parts[-2:])


def key(address: bytes) -> bytes:
    """The path of a request as the table knows it: without query and fragment, with its `%xx` decoded."""
    return unquote_to_bytes(re.split(rb"[?#]", address, maxsplit=1)[0])
