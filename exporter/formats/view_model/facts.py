"""What a box of the view says about its layer, as the texts that viewers show."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from exporter.formats.node_style import amount
from exporter.records import Layer, LayerCosts, Shape

# Netron shortens longer titles in the middle, and takes what is before a dot for a module.
LONGEST_TITLE = 21
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """Of one layer; empty text and None are unknown. `output` is a text such as `?×56×56×64 float32`."""

    class_name: str = ""
    output: str = ""
    params: int | None = None
    macs: int | None = None

    def texts(self) -> list[tuple[str, str]]:
        """As pieces of metadata, without what is unknown."""
        numbers = [("layer parameters", self.params), ("layer MACs", self.macs)]
        texts = [("layer class", self.class_name), ("layer output", self.output)]
        return [pair for pair in texts if pair[1]] + [
            (key, f"{value:,}") for key, value in numbers if value is not None
        ]

    def sentence(self) -> str:
        """`Conv2D → ?×56×56×64 float32, 36.9 k parameters, 116 M MACs`."""
        sizes = [(self.params, "parameters"), (self.macs, "MACs")]
        parts = [f"{self.class_name} → {self.output}"] if self.output else [self.class_name]
        return ", ".join([*filter(None, parts), *(f"{amount(size)} {unit}" for size, unit in sizes if size)])


NO_FACTS = LayerFacts()


def facts_of(layers: Sequence[Layer], costs: LayerCosts | None) -> dict[str, LayerFacts]:
    """By namespace, from what a source tells."""
    found = {}
    for layer in layers:
        outputs = [output_text(spec.shape, spec.dtype) for spec in layer.outputs or ()]
        cost = costs.layers.get(layer.namespace) if costs else None
        found[layer.namespace] = LayerFacts(
            layer.class_name, ", ".join(outputs), layer.params_total, cost.macs if cost else None
        )
    return found


def output_text(shape: Shape | Sequence[int | None] | None, dtype: str | None) -> str:
    sizes = "?" if shape is None else "×".join("?" if size is None else str(size) for size in shape) or "scalar"
    return f"{sizes} {dtype or '?'}"


def together(names: Sequence[str]) -> str:
    """All names of the copies of a node in one text: `layer_{0..23}/MatMul`, or one after the other."""
    if len(set(names)) <= 1:
        return names[0] if names else ""
    parts = NUMBER.split(names[0])
    if any(NUMBER.split(name) != parts for name in names[1:]):
        return ", ".join(names)
    columns = list(zip(*(NUMBER.findall(name) for name in names), strict=True))
    varying = [column for column in columns if len(set(column)) > 1]
    if len(varying) != 1 or any(str(int(text)) != text for text in varying[0]):
        return ", ".join(names)
    words = [column[0] if column is not varying[0] else f"{{{spans(column)}}}" for column in columns]
    return "".join(part + word for part, word in zip(parts, [*words, ""], strict=True))


def spans(texts: Sequence[str]) -> str:
    """`2..5,7` for 2, 3, 4, 5 and 7."""
    found: list[list[int]] = []
    for value in map(int, texts):
        if found and found[-1][1] + 1 == value:
            found[-1][1] = value
        else:
            found.append([value, value])
    return ",".join(str(low) if low == high else f"{low}..{high}" for low, high in found)


def stem(names: Sequence[str]) -> str:
    """What names have in common when the numbers in which they differ are left out: `layer` of `layer_0`, `layer_1`."""
    parts = NUMBER.split(names[0])
    if len(set(names)) == 1:
        return names[0]
    if any(NUMBER.split(name) != parts for name in names[1:]):
        return ""
    columns = list(zip(*(NUMBER.findall(name) for name in names), strict=True))
    words = [column[0] if len(set(column)) == 1 else "" for column in columns]
    text = "".join(part + word for part, word in zip(parts, [*words, ""], strict=True))
    return re.sub(r"[_\-.: ]{2,}", "_", text).strip("_-.: /")


def span_title(names: Sequence[str]) -> str:
    """A title for copies: `conv4_block2…23`, or what the names have in common where that gets too long."""
    text = together(names).replace("{", "").replace("}", "").replace("..", "…")
    if "," not in text and len(text) <= LONGEST_TITLE:
        return text
    same = takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return stem(names) or "".join(letters[0] for letters in same).rstrip("_-.: /")


def title(text: str, end: str = "") -> str:
    """The text, with an end that is kept, as Netron can show it whole."""
    text, room = text.replace(".", "_"), LONGEST_TITLE - len(end)
    half = (room - 1) // 2
    return (text if len(text) <= room else f"{text[:half]}…{text[half + 1 - room :]}") + end
