"""What opened sources have in common whose graph has its weights in it, and in whose place there are no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from exporter.lazy import LazyArray
from exporter.records import Job, ModelGraph, TensorSpec
from exporter.sources.input_shapes import input_specs


@dataclass
class OpenedGraphFile:
    """What `exporter.sources.opened.Opened` says, but for `structure`."""

    is_random: ClassVar[bool] = False
    stand_in: ClassVar[str] = ""

    graph: ModelGraph
    weights: str
    notes: tuple[str, ...]
    values: Mapping[str, LazyArray]

    def inputs(self, job: Job) -> tuple[TensorSpec, ...]:
        """The inputs with the shapes that the job asks for. Raises UsageError."""
        return input_specs(self.graph, job)

    def finish_checks(self) -> None:
        """All sizes and offsets have been checked before anything was read."""
