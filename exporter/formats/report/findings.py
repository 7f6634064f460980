"""What in a model deserves a look, as sentences: a check that failed, weights, outputs that nothing takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from exporter.records import Layer, Material
from exporter.suspicions import suspicions

# Of each kind; a page is no log file.
MOST_LINES = 12


def findings(material: Material) -> list[str]:
    """The most serious come first."""
    found = [*_about_verification(material), *suspicions(_Rows(material), MOST_LINES, more="")]
    return [*found, *_limited(list(unused_outputs(material))), *_about_costs(material), *_about_weights(material)]


def _about_verification(material: Material) -> Iterator[str]:
    verification = material.verification
    if verification is not None and verification.status == "mismatch":
        outputs = [output for output in verification.outputs if not output.max_abs <= output.limit]
        worst = ", ".join(f"{output.output} by {output.max_abs:.3g} (allowed {output.limit:.3g})" for output in outputs)
        yield f"The ONNX file and its source disagree: {worst or verification.reason}"
    elif verification is not None and verification.status == "skipped":
        yield f"The ONNX file was not checked against its source: {verification.reason}"


def _about_weights(material: Material) -> Iterator[str]:
    if "random" in material.weights:
        yield f"The weights are not trained ones: {material.weights}"


def _about_costs(material: Material) -> Iterator[str]:
    if material.costs is not None and material.costs.layers_without_cost:
        number = material.costs.layers_without_cost
        yield f"The operations of {number:,} layers are unknown; they are missing in all sums"


class _Rows(Collection[dict[str, Any]]):
    """The weights with their statistics as rows that are made when they are looked at; empty without `--stats`."""

    def __init__(self, material: Material) -> None:
        self.statistics = material.statistics
        self.weights = material.graph.weights if material.statistics else ()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for weight in self.weights:
            about = {"tensor": weight.name, "shape": weight.shape, "dtype": weight.dtype}
            if weight.name in self.statistics:
                yield about | vars(self.statistics[weight.name])

    def __len__(self) -> int:
        return len(self.weights)

    def __contains__(self, row: object) -> bool:
        return any(row == mine for mine in self)


def unused_outputs(material: Material) -> Iterator[str]:
    """Outputs of outermost layers that no layer takes and that are no outputs of the model.

    An output of the model is known by its layer's name. Inside of nested models it is not, so that nothing is said.
    """
    kept = {spec.name for spec in material.graph.outputs}
    taken: dict[str, set[int]] = {}
    for edge in material.graph.edges:
        taken.setdefault(edge.source, set()).add(edge.source_output)
    for layer in material.graph.layers:
        if layer.depth == 0 and layer.calls and layer.outputs and not _is_kept(layer, kept):
            unused = [place for place in range(len(layer.outputs)) if place not in taken.get(layer.namespace, set())]
            yield from _sentence(layer, unused)


def _is_kept(layer: Layer, kept: set[str]) -> bool:
    return layer.namespace in kept or any(spec.name in kept for spec in layer.outputs or ())


def _sentence(layer: Layer, unused: list[int]) -> Iterator[str]:
    total = len(layer.outputs or ())
    if len(unused) == total:
        yield f"{layer.namespace} ({layer.class_name}): nothing takes its output"
    elif unused:
        yield f"{layer.namespace} ({layer.class_name}): nothing takes {len(unused)} of its {total} outputs"


def _limited(lines: list[str]) -> list[str]:
    more = len(lines) - MOST_LINES
    return lines if more <= 0 else [*lines[:MOST_LINES], f"… and {more} more like it"]
