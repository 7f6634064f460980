"""What the fill of a layer says: its class, its share of parameters or operations, or the dtype that it delivers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from exporter.formats.node_style import Style, kind
from exporter.formats.pictures.costs import Shares
from exporter.formats.pictures.themes import Theme
from exporter.records import Layer

# Bounds of the shares that have a fill of their own, and what the legend calls them.
BOUNDS = (0.0, 0.001, 0.01, 0.03, 0.1)
SPANS = ("none", "under 0.1 %", "0.1 to 1 %", "1 to 3 %", "3 to 10 %", "10 % and more")
WHAT = {"params": "parameters", "macs": "MACs"}
# Each family of dtypes borrows the look of a kind of layer.
DTYPE_LOOKS = {
    "float32": "convolution",
    "float64": "dense",
    "float16": "activation",
    "bfloat16": "embedding",
    "float8": "merge",
    "int": "normalisation",
    "uint": "pooling",
    "bool": "shape",
    "string": "sequence",
    "complex": "dropout",
}
UNKNOWN = "unknown"

Colouring = Callable[[Sequence[Layer]], Style]


def colouring(choice: str, theme: Theme, shares: Shares) -> Colouring:
    """The style of a row (a layer with its folded copies) by one of `COLOURINGS`."""
    if choice == "dtype":
        return lambda row: dtype_style(theme, row)
    if choice in WHAT:
        measure = shares.params if choice == "params" else shares.macs
        return lambda row: share_style(theme, measure(row), WHAT[choice])
    return lambda row: theme.kinds[kind(row[0])]


def legend(choice: str, theme: Theme, rows: Iterable[Sequence[Layer]], look: Colouring) -> list[Style]:
    """The styles that are in the picture, in an order of their own."""
    found = {look(row) for row in rows}
    if choice == "class":
        return merged([style for style in theme.kinds.values() if style in found])
    if choice in WHAT:
        samples = (0.0, *(bound + BOUNDS[1] / 2 for bound in BOUNDS), None)
        return [style for share in samples if (style := share_style(theme, share, WHAT[choice])) in found]
    return sorted(found, key=lambda style: style.title)


def merged(styles: Iterable[Style]) -> list[Style]:
    """Styles that look the same as one: on paper there are fewer looks than kinds of layers."""
    titles: dict[tuple[str, str], list[str]] = {}
    for style in styles:
        titles.setdefault((style.fill, style.border), []).append(style.title)
    return [Style(", ".join(words), fill, border) for (fill, border), words in titles.items()]


def share_style(theme: Theme, share: float | None, what: str) -> Style:
    if share is None:
        return Style(f"{what} {UNKNOWN}", theme.background, theme.kinds["other"].border)
    if share == 0:
        return Style(f"no {what}", theme.box, theme.frame)
    level = sum(share >= bound for bound in BOUNDS) - 1
    return Style(f"{SPANS[level + 1]} of {what}", theme.levels[level], theme.level_border)


def dtype_style(theme: Theme, row: Sequence[Layer]) -> Style:
    outputs = row[0].outputs
    name = (outputs[0].dtype if outputs else None) or UNKNOWN
    family = next((family for family in DTYPE_LOOKS if name.startswith(family)), "")
    look = theme.kinds[DTYPE_LOOKS.get(family, "other")]
    return Style(name, look.fill, look.border)
