"""What Keras's layers of categories, of text and of pairs give: their shapes, and dtypes that are not what goes in.

The formulas are those of each class's `compute_output_spec` in Keras 3.15; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_quantised import policy_name
from exporter.readers.keras_shapes import Spec
from exporter.records import Shape

Config = Mapping[str, Any]
Inputs = Sequence[Spec]
_SETTINGS = """
    axes bin_boundaries expand_dims fft_length frame_length frame_step input_dim max_number max_tokens mode
    num_bins num_mel_bins num_tokens output_mode output_sequence_length pad_to_max_tokens ragged sequence_stride
    sparse split vocabulary_dtype vocabulary_size
"""
REVERSIBLE, REVERSED = "ReversibleEmbedding", "reverse"
BOXES, BOXED = "MaxNumBoundingBoxes", "boxed"
SETTINGS = frozenset(_SETTINGS.split())
# What Keras gives by default, where a layer does not follow its own dtype; another can be set, but no file says so.
FLOATX = "float32"


def _computed(config: Config) -> str:
    return policy_name(config.get("dtype", FLOATX)).removeprefix("mixed_")


def _encoded(shape: Shape, mode: str, depth: int) -> Shape:
    """One-hot rows take the place of a last axis of one, others that of the last axis."""
    if mode == "one_hot" and not (len(shape) > 1 and shape[-1] == 1):
        return (*shape, depth)
    return (*shape[:-1], depth)


def _lookup(config: Config, inputs: Inputs) -> Spec:
    shape, mode = inputs[0][0], config["output_mode"]
    if mode == "int":
        # Inverted, Keras says so of the indices all the same.
        return shape, "int64"
    depth = config["max_tokens"] if config.get("pad_to_max_tokens") else config["vocabulary_size"]
    return _encoded(shape, mode, int(depth)), FLOATX


def _text(config: Config, inputs: Inputs) -> Spec:
    shape = inputs[0][0]
    if config.get("ragged"):
        raise Unexplained("a ragged tensor")
    if config["output_mode"] == "int":
        return (shape[0], config["output_sequence_length"]), "int64"
    if config.get("split") is not None:
        shape = (*shape, None)
    elif len(shape) <= 1:
        shape = (*shape, 1)
    return _lookup(config, [(shape, "string")])


def _categories(config: Config, inputs: Inputs) -> Spec:
    return _encoded(inputs[0][0], config["output_mode"], int(config["num_tokens"])), _computed(config)


def _hashed(config: Config, inputs: Inputs) -> Spec:
    shape = inputs[0][0]
    if config["output_mode"] == "int":
        return shape, _computed(config)
    return (*shape[:-1], int(config["num_bins"])), _computed(config)


def _crossed(config: Config, inputs: Inputs) -> Spec:
    shape = inputs[0][0]
    if config["output_mode"] == "int":
        return shape, _computed(config)
    is_wide = config["output_mode"] == "one_hot" and shape[-1] != 1
    return (*(shape if is_wide else shape[:-1]), int(config["num_bins"])), _computed(config)


def _bins(config: Config, inputs: Inputs) -> Spec:
    shape, mode, bounds = inputs[0][0], config["output_mode"], config.get("bin_boundaries")
    if mode == "int":
        return shape, "int32"
    depth = len(bounds) + 1 if bounds is not None else int(config["num_bins"])
    if mode == "one_hot":
        return _encoded(shape, mode, depth), _computed(config)
    return ((shape[0], *shape[2:], depth) if len(shape) > 1 else (depth,)), _computed(config)


def _dot(config: Config, inputs: Inputs) -> Spec:
    (one, _), (other, _) = inputs
    axes = config["axes"]
    if isinstance(axes, int):
        axes = [axes % len(one), axes % len(other)] if axes < 0 else [axes, axes]
    rest = [size for axis, size in enumerate(one) if axis != axes[0] % len(one)]
    rest += [size for axis, size in enumerate(other) if axis not in (0, axes[1] % len(other))]
    return tuple(rest if len(rest) > 1 else [*rest, 1]), _computed(config)


def _mel(config: Config, inputs: Inputs) -> Spec:
    *batch, length = inputs[0][0]
    stride = int(config["sequence_stride"])
    frames = None if length is None else (length + stride + 1) // stride
    return (*batch, int(config["num_mel_bins"]), frames), _computed(config)


def _spectrum(config: Config, inputs: Inputs) -> Spec:
    shape, first = inputs[0][0], config["data_format"] == "channels_first"
    batch, samples, channels = (shape[0], shape[2], shape[1]) if first else shape
    width = int(config["frame_length"])
    stride = config["frame_step"] or width // 2
    size = config["fft_length"] or 1 << max(0, width - 1).bit_length()
    waves = (size // 2 + 1) * (2 if config["mode"] == "stft" else 1)
    frames = None
    if samples is not None:
        frames = -(-samples // stride) if config["padding"] == "same" else (samples - width) // stride + 1
    if config["expand_dims"]:
        return ((batch, channels, frames, waves) if first else (batch, frames, waves, channels)), _computed(config)
    joined = None if channels is None else channels * waves
    return ((batch, joined, frames) if first else (batch, frames, joined)), _computed(config)


ENCODINGS: dict[str, Callable[[Config, Inputs], Spec]] = {
    "CategoryEncoding": _categories,
    "Discretization": _bins,
    "Dot": _dot,
    "HashedCrossing": _crossed,
    "Hashing": _hashed,
    "IntegerLookup": _lookup,
    "MelSpectrogram": _mel,
    "STFTSpectrogram": _spectrum,
    "StringLookup": _lookup,
    "TextVectorization": _text,
}


def encoding_spec(class_name: str, config: Config, inputs: Inputs) -> Spec:
    """The only output of such a layer. Raises Unexplained."""
    if config.get("sparse"):
        raise Unexplained("a sparse tensor")
    return ENCODINGS[class_name](config, inputs)


def boxes_specs(config: Config, inputs: Inputs, call: int) -> list[Spec]:
    """Of a layer that fills up lists of boxes, which are the first two of its tensors where they are marked as such."""
    shapes = [shape for shape, _ in inputs]
    if config[BOXED][call]:
        count = int(config["max_number"])
        shapes[:2] = [(shape[0], count, *shape[2:]) for shape in shapes[:2]]
    return [(shape, _computed(config)) for shape in shapes]


def boxed_calls(nodes: Any) -> list[bool]:
    """Whether each call is given boxes by that name."""
    return [bool(node["args"]) and "bounding_boxes" in node["args"][0] for node in nodes]


def reversible_spec(config: Config, inputs: Inputs, call: int) -> Spec:
    """Of an embedding that gives rows for indices, or numbers for each index when it is called in reverse."""
    shape, _ = inputs[0]
    if config[REVERSED][call]:
        return (*shape[:-1], int(config["input_dim"])), _computed(config)
    return (*shape, int(config["output_dim"])), _computed(config)


def reversed_calls(nodes: Any) -> list[bool]:
    """Whether each call of such an embedding is in reverse."""
    return [bool(node["kwargs"].get("reverse")) for node in nodes]
