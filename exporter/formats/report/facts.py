"""The parts of the page that are plain text: totals, what was found, where everything comes from."""

from __future__ import annotations

import html
from collections.abc import Iterable

from exporter import __version__
from exporter.formats.dot_labels import clean
from exporter.formats.node_style import amount
from exporter.formats.report.findings import findings
from exporter.memory import format_bytes
from exporter.records import Material, TensorSpec, Verification

VERDICTS = {"passed": "passed", "mismatch": "mismatch", "skipped": "not checked"}
Pairs = Iterable[tuple[str, str, str]]


def text(value: object) -> str:
    """Any text as HTML text, or as an attribute in double quotes."""
    return html.escape(clean(str(value)))


def tiles(material: Material) -> str:
    """The numbers that one looks for first."""
    graph, costs = material.graph, material.costs
    params = sum(layer.params for layer in graph.layers)
    trainable = sum(layer.params_trainable for layer in graph.layers)
    nbytes = sum(weight.nbytes for weight in graph.weights)
    per_run = f"of one run, batch {costs.batch_size}" if costs else ""
    pairs = [
        ("Parameters", amount(params), f"{params:,}, of which {trainable:,} trainable"),
        ("Weights", format_bytes(nbytes), f"{len(graph.weights):,} tensors, {dtypes(material)}"),
        ("MACs", known(costs.macs if costs else None), per_run),
        ("Peak activations", known_bytes(costs.peak_activation_bytes if costs else None), per_run),
        ("Layers", f"{len(graph.layers):,}", f"{len(graph.edges):,} connections{nodes_text(material)}"),
        ("ONNX check", *verdict(material)),
    ]
    return "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}<small>{text(more)}</small></dd></div>"
        for name, value, more in pairs
    )


def known(value: int | None) -> str:
    return "unknown" if value is None else amount(value)


def known_bytes(value: int | None) -> str:
    return "unknown" if value is None else format_bytes(value)


def dtypes(material: Material) -> str:
    return ", ".join(sorted({weight.dtype for weight in material.graph.weights})) or "none"


def nodes_text(material: Material) -> str:
    return "" if material.nodes is None else f", {len(material.nodes):,} ONNX nodes"


def verdict(material: Material) -> tuple[str, str]:
    verification = material.verification
    if verification is None:
        return "none", "no ONNX file was made" if material.nodes is None else "the source is an ONNX file"
    return VERDICTS.get(verification.status, verification.status), difference(verification)


def difference(verification: Verification) -> str:
    largest = max((output.max_abs for output in verification.outputs), default=None)
    told = f"largest difference {largest:.2g} to the source, in ONNX Runtime" if largest is not None else ""
    return "; ".join(part for part in (told, verification.reason) if part)


def warnings(material: Material) -> str:
    """A list of sentences, or the one that there is nothing to say."""
    lines = "".join(f"<li>{text(line)}</li>" for line in findings(material))
    listed = f'<ul class="findings">{lines}</ul>' if lines else "<p>Nothing was found.</p>"
    if material.statistics:
        return listed
    return f"{listed}<p class=note>The weights were not looked at; the option --stats does that.</p>"


def interface(material: Material) -> str:
    """The model's inputs and outputs."""
    rows = [("Input", spec) for spec in material.graph.inputs] + [("Output", spec) for spec in material.graph.outputs]
    body = "".join(
        f"<tr><th scope=row>{kind}</th><td>{text(spec.name)}</td><td>{text(shape(spec))}</td>"
        f"<td>{text(spec.dtype or '?')}</td></tr>"
        for kind, spec in rows
    )
    head = "<tr><th scope=col>Inputs and outputs<th scope=col>Name<th scope=col>Shape<th scope=col>Type</tr>"
    return f"<table class=plain><thead>{head}</thead><tbody>{body}</tbody></table>"


def shape(spec: TensorSpec) -> str:
    if spec.shape is None:
        return "unknown"
    return " × ".join("?" if size is None else str(size) for size in spec.shape) or "scalar"


def provenance(material: Material) -> str:
    job, costs = material.job, material.costs
    facts = {
        "Model": material.graph.name,
        "Source": material.source,
        "Kind of source": job.kind,
        "SHA-256 of the source": job.source_digest,
        "Weights": material.weights,
        "ONNX opset": job.opset if material.nodes is not None else None,
        "Weights and arithmetic": None if job.dtype == "keep" else job.dtype,
        "Costs counted for": costs and f"batch {costs.batch_size}, {costs.dimension} for other dynamic dimensions",
        "export-model": __version__,
        **{name: version for name, version in material.versions.items() if version},
    }
    rows = "".join(
        f"<tr><th scope=row>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in facts.items() if value
    )
    return f"<table class=plain><tbody>{rows}</tbody></table>"


def subtitle(material: Material) -> str:
    name = material.graph.name
    own = f"{text(name)} · " if name != material.job.name else ""
    return f"{own}from {text(material.source)} · weights: {text(material.weights)}"
