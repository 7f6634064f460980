"""The shape of what a Keras layer gives, from its settings and the shapes of what goes in.

The formulas are those of each class's `compute_output_shape` in Keras 3.15 (a test compares them); a dynamic dimension
stays one. Needed for the outputs of a model alone: all other shapes stand in the config of what takes the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.readers import Unexplained
from exporter.readers.keras_quantised import policy_name
from exporter.records import Shape

Size = int | None
# Shape and dtype of a tensor.
Spec = tuple[Shape, str]
_SETTINGS = """
    axes axis batch_shape cropping data_format dilation_rate dims dtype equation filters depth_multiplier height
    keepdims kernel_size lora_rank n output_dim output_padding output_shape output_size padding pool_size size strides
    target_shape units width pad_to_aspect_ratio crop_to_aspect_ratio
"""
SETTINGS = frozenset(_SETTINGS.split())


@dataclass(frozen=True)
class Called:
    """The first call of a layer: its settings, and the shapes of what goes in."""

    config: Mapping[str, Any]
    inputs: tuple[Shape, ...]

    @property
    def first(self) -> Shape:
        return self.inputs[0]

    @property
    def channels_first(self) -> bool:
        return self.config.get("data_format") == "channels_first"

    @property
    def spatial(self) -> list[int]:
        """The axes that are neither the batch nor the channels."""
        return list(range(2, len(self.first)) if self.channels_first else range(1, len(self.first) - 1))

    def setting(self, name: str) -> list[Any]:
        """One value for each spatial axis."""
        value = self.config[name]
        return list(value) if isinstance(value, list) else [value] * len(self.spatial)

    def resized(self, sizes: Sequence[Size], channels: Size = None) -> Shape:
        """The input's shape with other spatial sizes and, if given, another number of channels."""
        shape = list(self.first)
        for axis, size in zip(self.spatial, sizes, strict=True):
            shape[axis] = size
        if channels is not None:
            shape[1 if self.channels_first else -1] = channels
        return tuple(shape)

    def sizes(self, each: Callable[..., int], *settings: str) -> list[Size]:
        """`each(size, setting, …)` for the spatial axes."""
        rows = zip((self.first[axis] for axis in self.spatial), *map(self.setting, settings), strict=True)
        return [None if size is None else each(size, *values) for size, *values in rows]


def windows(call: Called, window: str, dilation: str = "") -> list[Size]:
    """What a sliding window leaves of the spatial axes."""
    same = call.config["padding"] in ("same", "causal")

    def size(size: int, width: int, stride: int, spread: int = 1) -> int:
        return -(-size // stride) if same else (size - (width - 1) * spread - 1) // stride + 1

    return call.sizes(size, window, "strides", *([dilation] if dilation else []))


def _convolution(call: Called) -> Shape:
    return call.resized(windows(call, "kernel_size", "dilation_rate"), int(call.config["filters"]))


def _depthwise(call: Called) -> Shape:
    channels = call.first[1 if call.channels_first else -1]
    multiplier = int(call.config["depth_multiplier"])
    return call.resized(windows(call, "kernel_size", "dilation_rate"), channels and channels * multiplier)


def _transposed(call: Called) -> Shape:
    same, given = call.config["padding"] == "same", call.config.get("output_padding")
    extra = [None] * len(call.spatial) if given is None else call.setting("output_padding")
    rows = zip(call.spatial, *map(call.setting, ("kernel_size", "strides", "dilation_rate")), extra, strict=True)
    sizes = [_size_before(call.first[axis], *settings, same=same) for axis, *settings in rows]
    return call.resized(sizes, int(call.config["filters"]))


def _size_before(size: Size, width: int, stride: int, spread: int, extra: Size, *, same: bool) -> Size:
    """Keras's `_get_output_shape_given_tf_padding`."""
    reach = (width - 1) * spread + 1
    if size is None:
        return None
    if same:
        return size * stride if extra is None else (size - 1) * stride + reach % 2 + extra
    return (size - 1) * stride + reach + (max(reach, stride) - reach if extra is None else extra)


def _pooling(call: Called) -> Shape:
    return call.resized(windows(call, "pool_size"))


def _global_pooling(call: Called) -> Shape:
    spatial = call.spatial
    if call.config.get("keepdims"):
        return call.resized([1] * len(spatial))
    return tuple(size for axis, size in enumerate(call.first) if axis not in spatial)


def _margins(call: Called, setting: str, sign: int) -> Shape:
    """Padding or cropping by so much before and after."""
    values = call.config[setting]
    pairs = [values] if len(call.spatial) == 1 and values and not isinstance(values[0], list) else values
    sizes = [call.first[axis] for axis in call.spatial]
    return call.resized([size and size + sign * sum(pair) for size, pair in zip(sizes, pairs, strict=True)])


def _upsampled(call: Called) -> Shape:
    if len(call.first) == 3:
        return call.resized([size and size * int(call.config["size"]) for size in call.first[1:2]])
    return call.resized(call.sizes(lambda size, factor: size * factor, "size"))


def _resized(call: Called) -> Shape:
    if len(call.inputs) > 1:
        raise Unexplained("images that are resized with their labels")
    return call.resized([int(call.config["height"]), int(call.config["width"])])


def _flatten(call: Called) -> Shape:
    sizes = call.first[1:]
    return (call.first[0], None if None in sizes else math.prod(size for size in sizes if size is not None))


def _reshaped(call: Called) -> Shape:
    target, given = list(call.config["target_shape"]), call.first[1:]
    if -1 in target:
        known = math.prod(size for size in target if size != -1)
        total = None if None in given else math.prod(size for size in given if size is not None)
        target[target.index(-1)] = None if total is None or not known else total // known
    return (call.first[0], *target)


def _merged(call: Called) -> Shape:
    """The inputs of an elementwise merge: broadcast, but for the batch (`Merge.compute_output_shape`)."""
    shape = call.first[1:]
    for other in call.inputs[1:]:
        shape = _broadcast(shape, other[1:])
    batches = {each[0] for each in call.inputs} - {None}
    return (batches.pop() if len(batches) == 1 else None, *shape)


def _broadcast(one: Shape, other: Shape) -> Shape:
    """Keras's rule, in which a dynamic size wins over a known one. Raises Unexplained for what does not fit."""
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    sizes = list(longer[: len(longer) - len(shorter)])
    for a, b in zip(longer[len(sizes) :], shorter, strict=True):
        if a is None or b is None:
            sizes.append(None)
        elif a == b or 1 in (a, b):
            sizes.append(max(a, b))
        else:
            raise Unexplained("a merge of shapes that do not fit")
    return tuple(sizes)


def _einsum(call: Called) -> Shape:
    """What the layer's settings say, without the sizes that the input might add, and what an ellipsis stands for.

    Keras has the axes of one on the left in reverse (`_analyze_split_string` inserts each before the last).
    """
    sizes, letters = call.config["output_shape"], str(call.config["equation"]).partition(",")[0]
    elided = len(call.first) - len(letters.replace("...", ""))
    before = call.first[1:elided][::-1] if letters.startswith("...") else ()
    behind = call.first[len(call.first) - elided :] if letters.endswith("...") else ()
    return (call.first[0], *before, *(sizes if isinstance(sizes, list) else [sizes]), *behind)


def _adaptive(call: Called) -> Shape:
    return call.resized([int(size) for size in call.setting("output_size")])


def _concatenated(call: Called) -> Shape:
    axis = int(call.config.get("axis", -1))
    shape = list(call.first)
    for other in call.inputs[1:]:
        rest = [*other[:axis], *other[axis:][1:]], [*shape[:axis], *shape[axis:][1:]]
        if len(other) != len(shape) or rest[0] != rest[1]:
            raise Unexplained("a concatenation of different shapes")
    sizes = [other[axis] for other in call.inputs]
    shape[axis] = None if None in sizes else sum(size for size in sizes if size is not None)
    return tuple(shape)


DIMENSIONS = ("1D", "2D", "3D")
_SAME = """
    Activation ActivityRegularization AlphaDropout BatchNormalization Dropout ELU GaussianDropout GaussianNoise
    GroupNormalization LayerNormalization LeakyReLU Masking PReLU RMSNormalization ReLU Rescaling
    Softmax SpatialDropout1D SpatialDropout2D SpatialDropout3D UnitNormalization
    Equalization Normalization RandomGrayscale
"""
# Those that may be given a structure of tensors, and give one of the same shapes.
_PASSING = """
    AugMix AutoContrast ContrastLimitedAdaptiveHistogramEqualization CutMix MixUp RandAugment RandomBrightness
    RandomColorDegeneration RandomColorJitter RandomContrast RandomElasticTransform RandomErasing RandomFlip
    RandomGaussianBlur RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
    RandomSharpness RandomShear RandomTranslation RandomZoom Solarization Identity
"""
PASSING = frozenset(_PASSING.split())
# Those that give numbers of the kind that they are given; others give what they compute in.
KEEPING = ("Equalization", "Flatten", "Identity", "Permute", "RandomGrayscale", "Reshape")
SHAPES: dict[str, Callable[[Called], Shape]] = {
    **dict.fromkeys((*_SAME.split(), *PASSING), lambda call: call.first),
    **dict.fromkeys(("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract"), _merged),
    **{f"Conv{size}": _convolution for size in DIMENSIONS},
    **{f"Conv{size}Transpose": _transposed for size in DIMENSIONS},
    **{f"{kind}Pooling{size}": _pooling for kind in ("Average", "Max") for size in DIMENSIONS},
    **{f"Global{kind}Pooling{size}": _global_pooling for kind in ("Average", "Max") for size in DIMENSIONS},
    **{f"ZeroPadding{size}": lambda call: _margins(call, "padding", 1) for size in DIMENSIONS},
    **{f"Cropping{size}": lambda call: _margins(call, "cropping", -1) for size in DIMENSIONS},
    **{f"UpSampling{size}": _upsampled for size in DIMENSIONS},
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _convolution),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("CenterCrop", "RandomCrop", "Resizing"), _resized),
    **{f"Adaptive{kind}Pooling{size}": _adaptive for kind in ("Average", "Max") for size in DIMENSIONS},
    "Concatenate": _concatenated,
    "Dense": lambda call: (*call.first[:-1], int(call.config["units"])),
    "EinsumDense": _einsum,
    "Embedding": lambda call: (*call.first, int(call.config["output_dim"])),
    "Flatten": _flatten,
    "Permute": lambda call: (call.first[0], *(call.first[axis] for axis in call.config["dims"])),
    "RepeatVector": lambda call: (call.first[0], int(call.config["n"]), call.first[1]),
    "Reshape": _reshaped,
}


def input_spec(config: Mapping[str, Any]) -> Spec:
    """Of an input layer."""
    return tuple(config["batch_shape"]), str(config["dtype"])


def output_spec(class_name: str, config: Mapping[str, Any], inputs: Sequence[Spec]) -> Spec:
    """The only output of a layer. Raises Unexplained."""
    if class_name not in SHAPES or not inputs:
        raise Unexplained(f"the output of {class_name}")
    shape = SHAPES[class_name](Called(config, tuple(shape for shape, _ in inputs)))
    return shape, output_dtype(class_name, config, inputs[0][1])


def output_dtype(class_name: str, config: Mapping[str, Any], given: str) -> str:
    """What the layer computes in: Keras casts floating inputs to that, and gives it out."""
    # Before 2.1 Keras did not write it.
    name = policy_name(config.get("dtype", "float32"))
    if class_name in KEEPING and "float" not in given:
        return given
    return name.removeprefix("mixed_")
