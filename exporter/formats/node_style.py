"""How one layer looks: its kind, its colours, and the short texts about shapes, parameters and settings.

Colours are light fills under near-black text (contrast above 10:1) with a dark border of the same hue; the kind is
also in the text, so that nothing is said by colour alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from exporter.records import Layer, Shape

FONT = "DejaVu Sans"
INK = "#1b1b1b"
FAINT_INK = "#555555"
# A nested model's configuration can be megabytes of JSON, and nothing of it is shown.
LONGEST_CONFIG = 20_000
# What `trait` looks at.
TRAIT_SETTINGS = frozenset(
    {"kernel_size", "pool_size", "strides", "dilation_rate", "num_heads", "activation", "recurrent_activation"}
)
# In a chain these are not what the box is about.
FOLLOWED_BY = {"normalisation", "activation", "dropout", "shape"}


@dataclass(frozen=True)
class Style:
    """Fill and border as `#rrggbb`; `title` is for the legend."""

    title: str
    fill: str
    border: str


STYLES = {
    "input": Style("input", "#ffffff", "#1b1b1b"),
    "convolution": Style("convolution", "#cfe2f8", "#1f5fa8"),
    "dense": Style("dense", "#dad3f5", "#5b3fa6"),
    "normalisation": Style("normalisation", "#e2f0cf", "#567a1a"),
    "activation": Style("activation", "#fde2c4", "#a85500"),
    "pooling": Style("pooling", "#c9eded", "#0f7474"),
    "merge": Style("merge", "#f9d2d5", "#b3202f"),
    "shape": Style("shape", "#e8e3da", "#6b6150"),
    "sequence": Style("attention, recurrent", "#f6d4ee", "#9a2279"),
    "embedding": Style("embedding", "#fff0b3", "#826600"),
    "dropout": Style("dropout", "#e9e9e9", "#616161"),
    "other": Style("other", "#f6f6f6", "#707070"),
}

# The first pattern that is found in the class name decides; Keras operations carry their class names too.
PATTERNS = (
    ("input", r"^InputLayer$"),
    ("sequence", r"Attention|LSTM|GRU|RNN|Bidirectional|TimeDistributed|Transformer|(En|De)coderBlock"),
    ("normalisation", r"Norm"),
    ("shape", r"ZeroPad|Crop|UpSampl|Resiz|Reshap|Flatten|Permute|RepeatVector|Transpose$(?<!Conv\dDTranspose)"),
    ("convolution", r"Conv"),
    ("embedding", r"Embedding"),
    ("dense", r"Dense|MatMul|Matmul|Einsum|Gemm"),
    ("pooling", r"Pool|^(Reduce)?(Mean|Max)$"),
    ("dropout", r"Drop|Noise|StochasticDepth|Regulariz|^Random|^Identity$"),
    ("activation", r"Activation|R[eE]?LU|Relu|ELU|Elu|Softmax|Sigmoid|Tanh|Silu|Swish|Gelu|Softplus"),
    ("merge", r"^(Add|Subtract|Multiply|Divide|Average|Maximum|Minimum|Concatenate|Dot|Stack|TrueDivide)$"),
    ("merge", r"^(Concat|Sub|Mul|Div)$"),
    ("shape", r"^(Pad|GetItem|ExpandDims|Squeeze|Cast|Slice|Split|BroadcastTo|Tile|Rescaling|CategoryEncoding)$"),
    ("shape", r"^(Gather|Unsqueeze)$"),
    # TensorFlow's operations, and those of TensorFlow Lite.
    ("merge", r"^(AddV2|AddN|ConcatV2|RealDiv|Pack)$"),
    ("shape", r"^(StridedSlice|GatherV2|MirrorPad|PadV2|Unpack)$"),
    ("activation", r"^Prelu$"),
    ("convolution", r"^(CONV_|DEPTHWISE_CONV|TRANSPOSE_CONV)"),
    ("dense", r"^(FULLY_CONNECTED|BATCH_MATMUL)$"),
    ("normalisation", r"_NORMALIZATION$"),
    ("pooling", r"_POOL_|^(MEAN|REDUCE_MAX)$"),
    ("embedding", r"^EMBEDDING_LOOKUP"),
    ("activation", r"^(LOGISTIC|TANH|SOFTMAX|LOG_SOFTMAX|GELU|HARD_SWISH)$"),
    ("merge", r"^(ADD|ADD_N|SUB|MUL|DIV|MAXIMUM|MINIMUM|CONCATENATION|PACK)$"),
    ("shape", r"^(RESHAPE|TRANSPOSE|PAD|PADV2|MIRROR_PAD|SLICE|STRIDED_SLICE|SPLIT|SPLIT_V|SQUEEZE|EXPAND_DIMS|CAST)$"),
    ("shape", r"^(TILE|BROADCAST_TO|GATHER|SHAPE|UNPACK|RESIZE_\w+|SPACE_TO_DEPTH|DEPTH_TO_SPACE)$"),
)
COMPILED = tuple((kind, re.compile(pattern)) for kind, pattern in PATTERNS)
PADDING = re.compile(r"ZeroPadding")


def kind(layer: Layer) -> str:
    """A key of `STYLES`."""
    return kind_of_class(layer.class_name)


@lru_cache(maxsize=1000)
def kind_of_class(class_name: str) -> str:
    return next((name for name, pattern in COMPILED if pattern.search(class_name)), "other")


def settings(layer: Layer) -> dict[str, Any]:
    """The layer's configuration; empty where it is not the JSON of an object or too long to be one layer's."""
    if len(layer.config) > LONGEST_CONFIG:
        return {}
    try:
        config = json.loads(layer.config or "{}")
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def numbers(config: dict[str, Any], key: str) -> tuple[int, ...]:
    """A setting that is one or more whole numbers, such as `strides`; empty if it is anything else."""
    value = config.get(key)
    values: list[Any] = value if isinstance(value, list) else [value]
    return tuple(values) if all(isinstance(item, int) for item in values) else ()


def trait(layer: Layer) -> str:
    """The layer in a few words: `Conv2D 3×3 /2`. Two layers with different words are never folded together."""
    config = settings(layer)
    words = [layer.class_name]
    words += ["×".join(map(str, size)) for key in ("kernel_size", "pool_size") if (size := numbers(config, key))]
    if numbers(config, "strides") != numbers(config, "pool_size"):
        words += step(config, "strides", "/")
    words += step(config, "dilation_rate", "dilated ")
    words += [f"{heads[0]} heads" for heads in [numbers(config, "num_heads")] if heads]
    return " ".join(words + function_name(layer, config))


def step(config: dict[str, Any], key: str, sign: str) -> list[str]:
    """`/2` for strides of 2 in each direction; nothing for 1 or unknown."""
    values = numbers(config, key)
    if set(values) <= {1}:
        return []
    return [sign + (str(values[0]) if len(set(values)) == 1 else "×".join(map(str, values)))]


def function_name(layer: Layer, config: dict[str, Any]) -> list[str]:
    """The activation function inside a layer, where there is one."""
    name = config.get("activation")
    if not isinstance(name, str) or name == "linear" or "recurrent_activation" in config:
        return []
    return [] if name.lower() == layer.class_name.lower() else [f"· {name}"]


def label(layer: Layer) -> str:
    """`trait`, with `Activation · relu` shortened to `relu`."""
    text = trait(layer)
    return text.removeprefix("Activation · ").replace("BatchNormalization", "BatchNorm")


def span(values: Sequence[int | None]) -> str:
    """One dimension over all copies of a layer: `64`, `64…256`, or `?` where it is dynamic."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "?"
    low, high = min(known), max(known)
    return str(low) if low == high else f"{low}…{high}"


def shape_text(shapes: Sequence[Shape | None]) -> str:
    """The shapes of one tensor in all copies of a layer, without the batch dimension: `56×56×64`."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes) or len({len(shape) for shape in known}) > 1:
        return "?"
    return "×".join(span(column) for column in list(zip(*known, strict=True))[1:]) or "scalar"


def output_text(layers: Sequence[Layer]) -> str:
    """What the copies of a layer deliver, `56×56×64 float32` and the number of more; empty without calls."""
    outputs = layers[0].outputs
    if not outputs:
        return "? shape" if layers[0].calls else ""
    firsts = [layer.outputs[0].shape if layer.outputs else None for layer in layers]
    more = f" + {len(outputs) - 1} more" if len(outputs) > 1 else ""
    return f"{shape_text(firsts)} {outputs[0].dtype or '?'}{more}"


def amount(number: int) -> str:
    """`640`, `16.4 k`, `2.36 M`, `1.2 G`."""
    for limit, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}" if number < 999.5 * limit else f"{number / limit:.0f}{unit}"
    return str(number)


def params_text(counts: Sequence[int]) -> str:
    """Parameters of each of the copies: `16.4 k params`; empty for none."""
    low, high = min(counts), max(counts)
    if high == 0:
        return ""
    return f"{amount(low)} params" if low == high else f"{amount(low)}…{amount(high)} params"


def tensors_text(layer: Layer, side: str) -> str:
    specs = layer.inputs if side == "inputs" else layer.outputs
    return "?" if specs is None else ", ".join(f"{shape_text([spec.shape])} {spec.dtype or '?'}" for spec in specs)


def tooltip(layers: Sequence[Layer]) -> str:
    """Everything about a layer in a few lines; of folded copies the first, and how many more there are."""
    layer = layers[0]
    more = f" (first of {len(layers)}, last {layers[-1].namespace})" if len(layers) > 1 else ""
    facts = [
        f"{layer.namespace}{more}",
        f"{layer.class_name}: {tensors_text(layer, 'inputs')} → {tensors_text(layer, 'outputs')}",
        f"{layer.params_total:,} parameters, {'trainable' if layer.trainable else 'frozen'}"
        + (f", called {layer.calls} times" if layer.calls > 1 else ""),
    ]
    config = ", ".join(
        f"{key}={value}" for key, value in settings(layer).items() if isinstance(value, str | int | float)
    )
    return "\n".join([*facts, shortened(config, 300)] if config else facts)


def shortened(text: str, length: int) -> str:
    """At most `length` characters, the middle left out: the ends of a name tell the most."""
    half = (length - 1) // 2
    return text if len(text) <= length else f"{text[:half]}…{text[-half:]}"
