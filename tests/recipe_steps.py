"""What a step of a recipe can be: layers and operations of Keras, the ranks that they take and their settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from keras import layers, ops

FLOAT, TOKENS = "float32", "int32"
# What the second tensor has in common with the first: all sizes, all but the last one, or only their number.
SAME, SAME_BUT_LAST, SAME_RANK = "same", "same but last", "same rank"


@dataclass(frozen=True)
class Kind:
    """`make(**settings)` gives something to call with `inputs` tensors of `dtype`; the batch counts in `ranks`."""

    make: Callable[..., Callable[..., Any]]
    ranks: tuple[int, ...]
    settings: Mapping[str, st.SearchStrategy[Any]]
    inputs: int = 1
    like: str = SAME
    dtype: str = FLOAT


KINDS: dict[str, Kind] = {}


def layer(name: str, *ranks: int, dtype: str = FLOAT, **settings: st.SearchStrategy[Any]) -> None:
    KINDS[name] = Kind(getattr(layers, name), ranks, settings, dtype=dtype)


def merging(name: str, *ranks: int, like: str = SAME, **settings: st.SearchStrategy[Any]) -> None:
    """A layer that takes a list of tensors."""

    def make(**given: Any) -> Callable[..., Any]:
        made = getattr(layers, name)(**given)
        return lambda *tensors: made(list(tensors))

    KINDS[name] = Kind(make, ranks, settings, 2, like)


def function(
    name: str, call: Callable[..., Any], *ranks: int, inputs: int = 1, **settings: st.SearchStrategy[Any]
) -> None:
    KINDS[name] = Kind(lambda **given: lambda *tensors: call(*tensors, **given), ranks, settings, inputs)


def turned(x: Any, by: int) -> Any:
    """The axes behind the batch, moved round."""
    axes = list(range(1, len(x.shape)))
    by %= len(axes)
    return ops.transpose(x, [0, *axes[by:], *axes[:by]])


def regrouped(x: Any, first: int) -> Any:
    """All values of a sample in rows, `first` of them. Raises ValueError where that does not come out even."""
    size = math.prod(x.shape[1:])
    if size % first:
        raise ValueError(f"{size} values are no {first} equal rows")
    return ops.reshape(x, (-1, first, size // first))


def padded(x: Any, mode: str) -> Any:
    """Raises ValueError where there is nothing to reflect, which Keras finds out too late."""
    if mode != "constant" and x.shape[1] == 1:
        raise ValueError("one value has no neighbour")
    return ops.pad(x, [[0, 0], [1, 1], *[[0, 0]] * (len(x.shape) - 2)], mode)


one_of, flags = st.sampled_from, st.booleans()
ANY, IMAGES = (2, 3, 4), (3, 4)
SIZES, SMALL, ONE_OR_TWO = st.integers(1, 5), st.integers(1, 3), one_of([1, 2])
# Keras refuses many combinations, such as strides with dilation.
RARELY_TWO = one_of([1, 1, 1, 2])
PADDING = one_of(["valid", "same"])
ACTIVATIONS = """linear relu gelu swish tanh sigmoid softmax elu selu softplus relu6 hard_sigmoid hard_silu mish
    leaky_relu exponential softsign log_softmax"""
PLAIN = {"activation": one_of(["linear", "relu", "swish"]), "use_bias": flags}
WINDOW = {"kernel_size": SMALL, "strides": ONE_OR_TWO, "padding": PADDING} | PLAIN
POOL = {"pool_size": SMALL, "strides": one_of([None, 1, 2]), "padding": PADDING}
NORM = {"axis": one_of([-1, 1, (1, 2)]), "center": flags, "scale": flags}
AXIS = {"axis": st.integers(1, 3)}
REDUCED = AXIS | {"keepdims": flags}

# Weights.
layer("Dense", *ANY, units=SIZES, **PLAIN)
layer("Conv1D", 3, **WINDOW | {"padding": one_of(["valid", "same", "causal"])}, filters=SIZES, dilation_rate=RARELY_TWO)
layer("Conv2D", 4, **WINDOW, filters=SIZES, dilation_rate=RARELY_TWO, groups=RARELY_TWO)
layer("DepthwiseConv1D", 3, **WINDOW, depth_multiplier=ONE_OR_TWO)
layer("DepthwiseConv2D", 4, **WINDOW, depth_multiplier=ONE_OR_TWO)
layer("SeparableConv1D", 3, **WINDOW, filters=SIZES)
layer("SeparableConv2D", 4, **WINDOW, filters=SIZES)
layer("Conv1DTranspose", 3, **WINDOW, filters=SIZES)
layer("Conv2DTranspose", 4, **WINDOW, filters=SIZES)
layer("BatchNormalization", *ANY, **NORM | {"axis": one_of([-1, 1])})
layer("LayerNormalization", *ANY, **NORM)
layer("RMSNormalization", *ANY)
layer("GroupNormalization", *IMAGES, groups=ONE_OR_TWO)
layer("PReLU", *ANY)
layer("Embedding", 2, dtype=TOKENS, input_dim=st.just(7), output_dim=SIZES, mask_zero=flags)
layer("LSTM", 3, units=SMALL, return_sequences=flags, go_backwards=flags)
layer("GRU", 3, units=SMALL, return_sequences=flags, reset_after=flags)
ATTENTION = {"num_heads": ONE_OR_TWO, "key_dim": SMALL, "use_bias": flags}
KINDS["MultiHeadAttention"] = Kind(layers.MultiHeadAttention, (3,), ATTENTION, 2, SAME_RANK)

# No weights.
layer("Activation", *ANY, activation=one_of(ACTIVATIONS.split()))
layer("ReLU", *ANY, max_value=one_of([None, 1.0]), negative_slope=one_of([0.0, 0.1]), threshold=one_of([0.0, 0.5]))
layer("Softmax", *ANY, axis=one_of([-1, 1]))
layer("Rescaling", *ANY, scale=one_of([2.0, 0.5]), offset=one_of([0.0, -1.0]))
layer("Dropout", *ANY, rate=st.just(0.5))
layer("SpatialDropout2D", 4, rate=st.just(0.5))
for dims in (1, 2):
    for pooling in ("MaxPooling", "AveragePooling"):
        layer(f"{pooling}{dims}D", dims + 2, **POOL)
        layer(f"Global{pooling}{dims}D", dims + 2, keepdims=flags)
layer("ZeroPadding1D", 3, padding=one_of([1, (0, 1), (2, 0)]))
layer("ZeroPadding2D", 4, padding=one_of([1, (0, 1), ((0, 1), (1, 2))]))
layer("Cropping1D", 3, cropping=one_of([(0, 1), (1, 1)]))
layer("Cropping2D", 4, cropping=one_of([1, ((0, 1), (1, 0))]))
layer("UpSampling1D", 3, size=one_of([2, 3]))
layer("UpSampling2D", 4, size=one_of([2, (1, 3)]), interpolation=one_of(["nearest", "bilinear"]))
layer("Flatten", *ANY)
layer("RepeatVector", 2, n=SMALL)
layer("Permute", 3, dims=st.just((2, 1)))
layer("Reshape", 2, 3, target_shape=one_of([(1, -1), (-1, 1), (2, -1), (2, -1, 1)]))
for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"):
    merging(name, *ANY)
merging("Concatenate", *ANY, like=SAME_BUT_LAST)
merging("Dot", 3, axes=ONE_OR_TWO, normalize=flags)

# Operations.
function("turned", turned, *IMAGES, by=SMALL)
function("regrouped", regrouped, *ANY, first=SIZES)
function("x + number", lambda x, number: x + number, *ANY, number=one_of([1.0, -0.5]))
function("number * x", lambda x, number: number * x, *ANY, number=one_of([2.0, -1.0]))
function("1 - x", lambda x: 1.0 - x, *ANY)
function("1 / (1 + x²)", lambda x: 1.0 / (1.0 + ops.square(x)), *ANY)
function("where", lambda x: ops.where(x > 0, x, -0.5 * x), *ANY)
function("clip", lambda x: ops.clip(x, -0.5, 0.5), *ANY)
function("abs", ops.abs, *ANY)
for name in ("mean", "sum", "max", "min", "var", "logsumexp"):
    function(name, getattr(ops, name), *IMAGES, **REDUCED)
for name in ("squeeze", "flip", "cumsum"):
    function(name, getattr(ops, name), *ANY, **AXIS)
function("expand_dims", ops.expand_dims, 2, 3, axis=one_of([1, -1]))
function("x[:, 1:]", lambda x: x[:, 1:], *ANY)
function("x[:, 0]", lambda x: x[:, 0], *IMAGES)
function("x[..., ::2]", lambda x: x[..., ::2], *ANY)
function("split", lambda x, axis: ops.split(x, 2, axis)[1], *ANY, **AXIS)
function("repeat", lambda x, axis: ops.repeat(x, 2, axis), *ANY, **AXIS)
function("roll", lambda x, axis: ops.roll(x, 1, axis), *ANY, **AXIS)
function("take", lambda x, axis: ops.take(x, [0, 0], axis), *ANY, **AXIS)
function("tile", lambda x: ops.tile(x, [1, 2] + [1] * (len(x.shape) - 2)), *ANY)
function("padded", padded, *ANY, mode=one_of(["constant", "reflect", "symmetric"]))
function("a + b", lambda a, b: a + b, *ANY, inputs=2)
function("a * b", lambda a, b: a * b, *ANY, inputs=2)
function("a / (1 + |b|)", lambda a, b: a / (1.0 + ops.abs(b)), *ANY, inputs=2)
function("stack", lambda a, b, axis: ops.stack([a, b], axis), 2, 3, inputs=2, axis=one_of([1, -1]))
function("matmul", lambda a, b: ops.matmul(a, ops.swapaxes(b, -1, -2)), *IMAGES, inputs=2)
function("einsum", lambda a, b: ops.einsum("bij,bkj->bik", a, b), 3, inputs=2)
