"""A source that has described itself: what the worker needs of an opened model that is not converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from exporter.lazy import LazyArray
from exporter.records import Job, LayerCosts, ModelGraph, OnnxNode, StoredTensor, TensorSpec
from exporter.sources.input_shapes import input_specs


@dataclass(frozen=True)
class DescribedModel:
    """`weights` says where the values come from, `values` has them by the weight's name, unread.

    Of an ONNX file, `nodes` are its nodes, `stored` says where its initializers are, `opset` is its own, and
    `costs` are known. `checks` are to be made when the values have been read.
    """

    graph: ModelGraph
    weights: str
    values: Mapping[str, LazyArray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    nodes: tuple[OnnxNode, ...] | None = None
    stored: tuple[StoredTensor, ...] | None = None
    opset: int | None = None
    costs: LayerCosts | None = None
    checks: tuple[Callable[[], None], ...] = ()

    def inputs(self, job: Job) -> tuple[TensorSpec, ...]:
        """The inputs with the shapes that the job asks for. Raises UsageError."""
        return input_specs(self.graph, job)

    def finish_checks(self) -> None:
        """Raises SourceError when what was read is damaged."""
        for check in self.checks:
            check()
