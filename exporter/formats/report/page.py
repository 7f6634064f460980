"""Writes `model.html`: the built page with its slots filled, as a stream.

The page's own policy lets two scripts run, known by their hashes, and nothing be loaded. The bundle is packed, which
makes the page a third of the size; its first script unpacks it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TypeVar

from exporter.files import new_file
from exporter.formats.report import facts
from exporter.formats.report.tables import Tables, chunks, packed
from exporter.records import Material

FILE = "model.html"
SLOT = re.compile(r"\{\{(\w+)\}\}")
T = TypeVar("T")
Slot = Callable[[Material], Iterator[str]]


def write(material: Material, folder: Path) -> tuple[str, ...]:
    """Raises OutputError."""
    with new_file(folder / FILE) as stream:
        for piece in page(material):
            stream.write(piece.encode())
    return ()


def page(material: Material) -> Iterator[str]:
    """The text of the page, piece by piece."""
    return filled(asset("page.html"), SLOTS, material)


def filled(body: str, slots: Mapping[str, Callable[[T], Iterator[str]]], value: T) -> Iterator[str]:
    """A page of that body below the head that all pages have; what stands in a slot is made of the value."""
    for place, piece in enumerate(SLOT.split(asset("head.html") + body)):
        if place % 2:
            yield from slots[piece](value)
        else:
            yield piece


def style(own: str) -> str:
    """The styles of a page: those that all pages have, then its own."""
    return asset("look.css") + own


def asset(name: str) -> str:
    """A built file; its line ends are kept, because the policy has its hash."""
    return (files(__package__) / "assets" / name).read_bytes().decode("utf-8")


def policy(material: Material) -> Iterator[str]:
    """Nothing is loaded from anywhere. Styles may be inline, because the table makes its own."""
    scripts = " ".join(source_hash(asset(name)) for name in ("loader.js", "report.js"))
    allowed = f"script-src {scripts}; style-src 'unsafe-inline'; img-src data:; font-src data:"
    content = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    yield f'<meta http-equiv="Content-Security-Policy" content="{content}">'


def source_hash(script: str) -> str:
    """What allows one inline script (Content Security Policy Level 3, section 2.3.1)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


@cache
def bundle() -> str:
    return packed(asset("report.js").encode())


def data(material: Material) -> Iterator[str]:
    for name, rows in Tables(material).all():
        for chunk in chunks(rows):
            yield f'<script type="text/plain" data-table="{name}">{chunk}</script>'


def loader(material: Material) -> Iterator[str]:
    yield f"<script>{asset('loader.js')}</script>"


def fixed(make: Callable[[Material], str]) -> Slot:
    def slot(material: Material) -> Iterator[str]:
        yield make(material)

    return slot


SLOTS: dict[str, Slot] = {
    "policy": policy,
    "title": fixed(lambda material: facts.text(material.job.name)),
    "style": fixed(lambda material: style(asset("report.css"))),
    "subtitle": fixed(facts.subtitle),
    "tiles": fixed(facts.tiles),
    "interface": fixed(facts.interface),
    "warnings": fixed(facts.warnings),
    "provenance": fixed(facts.provenance),
    "licences": fixed(lambda material: facts.text(asset("LICENSES.txt"))),
    "data": data,
    "bundle": fixed(lambda material: f'<script type="text/plain" id="bundle">{bundle()}</script>'),
    "loader": loader,
}
