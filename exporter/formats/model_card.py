"""`model.md`: a model on one page of Markdown, for pull requests and model cards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from exporter.files import write_lines
from exporter.formats import model_table
from exporter.formats.block_tree import Sums, block_tree, summed
from exporter.formats.dot_labels import clean
from exporter.formats.layer_table import Row
from exporter.formats.mermaid_graph import flowchart
from exporter.formats.node_style import amount
from exporter.formats.outline import Line, fitted
from exporter.memory import format_bytes
from exporter.records import Material, TensorSpec, Verification

# More rows are no table that one reads.
MOST_ROWS = 60
# In a code span these need care, and inside a table's cell Markdown's rules for them differ from program to program.
AWKWARD = set("`|\\")


def write(material: Material, folder: Path) -> tuple[str, ...]:
    """Raises OutputError."""
    write_lines(folder / "model.md", lines(material))
    return ()


def lines(material: Material) -> Iterator[str]:
    yield f"# {code(material.job.name)}"
    yield ""
    yield from table(("", ""), list(_facts(material)))
    yield ""
    yield "## Blocks"
    yield ""
    yield from _blocks(material)
    yield ""
    drawn = flowchart(material.graph)
    if drawn:
        yield "## Graph"
        yield ""
        yield from ("```mermaid", *drawn, "```")


def _facts(material: Material) -> Iterator[tuple[str, str]]:
    about = next(model_table.rows(material))
    params, trainable = about["params"], about["params_trainable"]
    dtypes = ", ".join(entry["dtype"] for entry in about["weights_by_dtype"])
    yield "source", code(about["source"])
    yield "weights", code(about["weights"])
    yield "inputs", _specs(material.graph.inputs)
    yield "outputs", _specs(material.graph.outputs)
    yield "layers", f"{about['layers']:,}"
    yield "parameters", f"{params:,} ({trainable:,} trainable, {params - trainable:,} not)"
    yield "weight bytes", f"{format_bytes(about['weight_bytes'])} {dtypes}".rstrip()
    if about["macs"] is not None:
        yield "operations", _operations(about)
    if about["peak_activation_bytes"] is not None:
        yield "activations", f"{format_bytes(about['peak_activation_bytes'])} at the peak"
    if material.nodes is not None:
        yield "ONNX", f"opset {about['opset']}, {about['nodes']:,} nodes"
        if material.verification is not None:
            yield "verification", _verdict(material.verification)


def _operations(about: Row) -> str:
    missing = about["layers_without_cost"]
    without = f"; {missing:,} layers are not counted" if missing else ""
    sizes = f"batch of {about['cost_batch_size']}, other dynamic dimensions {about['cost_dimension']}"
    return f"{amount(about['macs'])} MACs, {amount(about['flops'] or 0)} FLOPs ({sizes}{without})"


def _specs(specs: Sequence[TensorSpec]) -> str:
    return "<br>".join(f"{code(spec.name)} {_shape(spec)} {spec.dtype or '?'}" for spec in specs) or "?"


def _shape(spec: TensorSpec) -> str:
    """With the batch, which differs from input to input in some models."""
    if spec.shape is None:
        return "?"
    return "×".join("?" if size is None else str(size) for size in spec.shape) or "scalar"


def _verdict(verification: Verification) -> str:
    reason = f": {code(verification.reason)}" if verification.reason else ""
    worst = max((output.max_abs for output in verification.outputs), default=None)
    difference = f", largest difference {worst:.2g}" if worst is not None else ""
    return f"**{verification.status}**{difference}{reason}"


def _blocks(material: Material) -> Iterator[str]:
    entries = block_tree(material.graph, material.costs)
    total = summed(entries)
    rows = [_row(line, total) for line in fitted(entries, MOST_ROWS, None)]
    titles = ("block or layer", "kind", "output", "params", "share", "MACs")
    yield from table(titles, rows, right=3)


def _row(line: Line, total: Sums) -> tuple[str, ...]:
    entry, sums = line.entry, line.entry.sums
    indent = "&emsp;" * (len(line.branch) // 3)
    times = f" **×{entry.times}**" if entry.times > 1 else ""
    name = f"… {line.left_out:,} more" if line.left_out else f"{code(entry.name)}{times}"
    share = f"{100 * sums.params / total.params:.1f} %" if sums.params and total.params else ""
    known = amount(sums.macs) if sums.macs or not sums.macs_unknown else "?"
    macs = f"≥ {known}" if sums.macs and sums.macs_unknown else known
    what = code(entry.what) if entry.what else ""
    return indent + name, what, entry.output, f"{sums.params:,}", share, macs


def table(titles: Sequence[str], rows: Sequence[Sequence[str]], right: int | None = None) -> Iterator[str]:
    """A table whose columns are right-aligned from the place `right` on."""
    yield _cells(titles)
    yield _cells(["---" if right is None or place < right else "---:" for place in range(len(titles))])
    yield from map(_cells, rows)


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def code(text: str) -> str:
    """A text in which nothing is Markdown, a mention, a reference to an issue, or an address: as a code span."""
    text = " ".join(clean(text).split()) or " "
    if AWKWARD.isdisjoint(text):
        return f"`{text}`"
    signs = (sign if sign.isalnum() or sign == " " else f"&#{ord(sign)};" for sign in text)
    return f"<code>{''.join(signs)}</code>"
