"""What the layers of one file have in common while they are read, and how a layer inside of another is handed on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_model import RawLayer

Config = Mapping[str, Any]
MODELS = ("Functional", "Sequential")


@dataclass(frozen=True, slots=True)
class Inner:
    """A layer inside of another: its entry as a config has it, and where the file keeps it below its owner.

    `is_made` is true when its owner makes it, so that the paths of its weights start with the owner's.
    """

    stored: str
    entry: dict[str, Any]
    is_made: bool


@dataclass
class Reading:
    """What the layers of one file have in common, in the order in which Keras would make them.

    In legacy files no layer says how it was built, and Keras builds those inside of others `in_place`. With `lenient`,
    what is not known is taken as the file has it.
    """

    lenient: bool = False
    in_place: bool = False
    shared: set[Any] = field(default_factory=set)
    made: Counter[str] = field(default_factory=Counter)
    objects: dict[Any, RawLayer] = field(default_factory=dict)
    unnumbered: dict[tuple[str, str], list[RawLayer]] = field(default_factory=dict)

    def known(self, entry: Any) -> RawLayer | None:
        """The first entry of the object which this one stands for, if there was one.

        Of an object that was first met in a model inside, Keras writes the number behind that only. Raises Unexplained.
        """
        key = entry.get("shared_object_id") if isinstance(entry, dict) else None
        if key is None or key in self.objects:
            return self.objects.get(key)
        candidates = self._unnumbered(entry)
        if len(candidates) > 1 or key in self.shared:
            raise Unexplained("a layer that may be one of several that are shared")
        if candidates:
            self.objects[key] = candidates[0]
        return candidates[0] if candidates else None

    def _unnumbered(self, entry: Mapping[str, Any]) -> list[RawLayer]:
        name = entry.get("name") or entry["config"].get("name")
        return self.unnumbered.get((str(entry.get("class_name")), str(name)), [])

    def remember(self, entry: Any, layer: RawLayer) -> None:
        key = entry.get("shared_object_id")
        if key is not None:
            self.objects[key] = layer
        else:
            self.unnumbered.setdefault((str(entry.get("class_name")), layer.name), []).append(layer)

    def is_new(self, entry: Any) -> bool:
        """Whether a layer inside of another has not been seen; one that stands in two places is a single one."""
        key = entry.get("shared_object_id") if isinstance(entry, dict) else None
        if key is None:
            return True
        known = key in self.shared or key in self.objects or self._unnumbered(entry)
        self.shared.add(key)
        return not known

    def is_repeated(self, entry: Mapping[str, Any]) -> bool:
        """Whether the object has been met inside of another layer."""
        return entry.get("shared_object_id") in self.shared

    def name(self, prefix: str) -> str:
        """The name that Keras makes up for a layer without one: `softmax`, `softmax_1` and so on."""
        number, self.made[prefix] = self.made[prefix], self.made[prefix] + 1
        return f"{prefix}_{number}" if number else prefix


def made_entry(class_name: str, config: Config) -> dict[str, Any]:
    """That of a layer which another one makes."""
    return {"module": "keras.layers", "class_name": class_name, "config": {"trainable": True, **config}}
