"""A Keras model as plain records: what its config says, before anything is worked out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.readers.keras_calls import Ref, Tensor
from exporter.readers.keras_quantised import OwnWeight
from exporter.records import Shape


@dataclass(slots=True)
class RawLayer:
    """One entry of a model's `layers`. `calls` has the tensors that go into each call; operations are no layers.

    `built` is the shape that the layer was built with, None where the file does not say. `config` has the few settings
    that shapes depend on, `text` all of them. `weights` are its own, None where only the file of weights may say which.
    `outputs` is the number of tensors that a call gives, `with_scores` says whether attention scores are among them. Of
    an operation `arguments` are those of its call, with marks for tensors. A layer has layers `inside` it, or is a
    `model`; of one that is inside of another, `stored` is the group of its weights below its owner's, and `is_made`
    says whether its owner makes it. Of an object that stands in several models, the later entries are the `same` as the
    first one. So many weights of the layer in the file are `lent` to another, which has them in its own group, too.
    """

    name: str
    class_name: str
    is_layer: bool
    trainable: bool
    text: str
    config: Mapping[str, Any] = field(default_factory=dict)
    calls: list[tuple[Ref, ...]] = field(default_factory=list)
    built: Shape | None = None
    weights: list[OwnWeight] | None = field(default_factory=list)
    outputs: int = 1
    with_scores: bool = False
    arguments: tuple[Any, ...] = ()
    inside: list[RawLayer] = field(default_factory=list)
    model: RawModel | None = None
    stored: str = ""
    is_made: bool = False
    same: RawLayer | None = None
    lent: int = 0

    @property
    def key(self) -> int:
        """That of the object which this entry stands for."""
        return id(self.same or self)


@dataclass(slots=True)
class RawModel:
    """`outputs` are those of the graph, with the key of each where the model gives them as a dictionary.

    `is_scope` says whether the paths of its layers' weights start with its name.
    """

    name: str
    class_name: str
    trainable: bool
    layers: list[RawLayer] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[tuple[str, Tensor]] = field(default_factory=list)
    is_scope: bool = False
