"""What an export has left, for programs and notebooks: paths, tables, the verdict, and how it shows itself."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from exporter.console import Styled
from exporter.errors import UsageError
from exporter.files import read_manifest
from exporter.memory import format_bytes
from exporter.query.catalogue import Catalogue, Rows
from exporter.records import Outcome, Verification
from exporter.summary import verification_lines
from exporter.wire import restore

# A notebook keeps what is shown in its file.
LARGEST_PICTURE_BYTES = 2 * 2**20
COLOURS = {"bright_magenta": "darkmagenta", "bright_yellow": "goldenrod", "yellow": "darkgoldenrod", "cyan": "teal"}


class Exported:
    """A finished export in `folder`; `status` is `done`, or `skipped` where it was up to date.

    `models`, `layers`, `tensors`, `edges` and `nodes` are its tables: `result.layers.to_pandas()`, `.to_arrow()`,
    `.to_polars()`, or `.batches()` for what need not fit into memory.
    """

    def __init__(self, outcome: Outcome) -> None:
        self.folder, self.name, self.status = Path(outcome.output_path), outcome.name, outcome.status
        self.manifest: dict[str, Any] = read_manifest(self.folder) or {}

    models = property(lambda self: self._rows("models"), doc="The row of the model.")
    layers = property(lambda self: self._rows("layers"), doc="One row for each layer.")
    tensors = property(lambda self: self._rows("tensors"), doc="One row for each weight.")
    edges = property(lambda self: self._rows("edges"), doc="One row for each tensor between calls.")
    nodes = property(lambda self: self._rows("nodes"), doc="One row for each ONNX node.")

    @property
    def paths(self) -> dict[str, Path]:
        """The files by their names, such as `model.onnx`."""
        return {record["name"]: self.folder / record["name"] for record in self.manifest["files"]}

    @property
    def verification(self) -> Verification | None:
        """How the ONNX file compares with the model; None where there is no ONNX file."""
        found = self.manifest.get("verification")
        return restore(Verification, found) if found else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What must not be overlooked."""
        return tuple(self.manifest["notes"])

    @property
    def svg(self) -> str:
        """The picture. Raises UsageError where none was made."""
        if (path := self.paths.get("model.svg")) is None:
            raise UsageError("has no picture", where=str(self.folder), hint="add 'svg' to the formats")
        return path.read_text(encoding="utf-8")

    def _rows(self, table: str) -> Rows:
        if f"{table}.parquet" not in self.paths:
            hint = "add 'parquet' to the formats" + (", and 'onnx'" if table == "nodes" else "")
            raise UsageError(f"has no table of {table}", where=str(self.folder), hint=hint)
        return Catalogue([str(self.folder)]).sql(f"SELECT * FROM {table}")

    def __repr__(self) -> str:
        files = ", ".join(self.paths)
        return "\n".join([f"{self.name}: {self.status} in {self.folder}: {files}", *self._lines()])

    def _lines(self) -> list[str]:
        about = self.manifest
        size = f"{about['layers']:,} layers, {about['params']:,} parameters, {format_bytes(about['weight_bytes'])}"
        verdict = verification_lines(self.verification) if "model.onnx" in self.paths else []
        return [f"{size}; weights: {about['weights']}", *verdict, *(f"note: {note}" for note in self.notes)]

    def _repr_html_(self) -> str:
        sizes = {record["name"]: format_bytes(record["nbytes"]) for record in self.manifest["files"]}
        rows = "".join(f"<tr><td>{html.escape(name)}</td><td>{size}</td></tr>" for name, size in sizes.items())
        head = f"<b>{html.escape(self.name)}</b> in <code>{html.escape(str(self.folder))}</code>"
        said = "<br>".join(map(html.escape, self._lines()))
        return f"<div>{head}<br>{said}<table>{rows}</table>{self._picture()}</div>"

    def _picture(self) -> str:
        """As an image, so that nothing in it can reach the notebook's page."""
        if (svg := self._repr_svg_()) is None:
            return ""
        data = base64.b64encode(svg.encode()).decode()
        return f'<img alt="{html.escape(self.name)}" style="max-width:100%" src="data:image/svg+xml;base64,{data}">'

    def _repr_svg_(self) -> str | None:
        path = self.paths.get("model.svg")
        if path is None or not path.exists() or path.stat().st_size > LARGEST_PICTURE_BYTES:
            return None
        return self.svg


class Inspection(Exported):
    """What `export-model inspect` prints, as `str()` and in a notebook, with the tables behind it."""

    def __init__(self, outcome: Outcome, lines: Iterable[Styled], place: TemporaryDirectory[str] | None) -> None:
        super().__init__(outcome)
        self._styled = [[(text, dict(style)) for text, style in line] for line in lines]
        # Removed with this object.
        self._place = place

    @cached_property
    def text(self) -> str:
        return "\n".join("".join(text for text, _ in line) for line in self._styled)

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        lines = ("".join(_span(text, style) for text, style in line) for line in self._styled)
        text = "\n".join(lines)
        return f'<pre style="line-height:1.25;white-space:pre;overflow-x:auto">{text}</pre>'


def _span(text: str, style: dict[str, Any]) -> str:
    css = []
    if style.get("bold"):
        css.append("font-weight:bold")
    if style.get("dim"):
        css.append("opacity:.6")
    if colour := style.get("fg"):
        css.append(f"color:{COLOURS.get(str(colour), colour)}")
    return f'<span style="{";".join(css)}">{html.escape(text)}</span>' if css else html.escape(text)
