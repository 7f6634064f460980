"""What one call of a plain Keras layer or operation costs: products, activations, norms, pooling, elementwise ones.

The formulas follow the `call` methods of Keras 3.15, at inference. `exporter.costs.counting` says what is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from exporter.costs.counting import (
    ACTIVATION_FLOPS,
    BATCH_NORM,
    LAYER_NORM,
    LERP,
    NOTHING,
    RMS_NORM,
    Operations,
    Sizes,
    count,
    einsum_macs,
    product,
)


@dataclass(frozen=True, slots=True)
class LayerCall:
    """Concrete facts of one call; `input_dtypes` is empty where they are not known, `weights` are the layer's own."""

    class_name: str
    config: Mapping[str, Any]
    inputs: tuple[Sizes, ...]
    outputs: tuple[Sizes, ...]
    input_dtypes: tuple[str | None, ...] = ()
    weights: tuple[Sizes, ...] = ()

    @property
    def output(self) -> int:
        """Elements of the first output."""
        return count(self.outputs[0])


Formula = Callable[[LayerCall], Operations | None]


def activation(setting: Any, elements: int) -> Operations:
    """An activation function as a layer's config has it: a name, None, a layer, or a function of the user's."""
    if not isinstance(setting, Mapping):
        flops = ACTIVATION_FLOPS.get("linear" if setting is None else str(setting))
        return Operations(other=None if flops is None else flops * elements)
    name, config = str(setting.get("class_name")), setting.get("config")
    found = None
    if isinstance(config, Mapping) and name in PLAIN:
        found = PLAIN[name](LayerCall(name, config, ((elements,),), ((elements,),)))
    return found or Operations(other=None)


def _finished(call: LayerCall, products: Operations, has_bias: bool) -> Operations:
    """A product with the bias and the activation that Keras puts behind it."""
    return products + Operations(other=call.output * has_bias) + activation(call.config.get("activation"), call.output)


def _quantised(call: LayerCall) -> Operations:
    """Dynamic quantisation of the inputs (|x|, largest, × scale, round, two bounds) and scaling of the outputs."""
    policy = call.config.get("dtype")
    if not isinstance(policy, Mapping) or policy.get("class_name") not in ("QuantizedDTypePolicy", "Int4DTypePolicy"):
        return NOTHING
    is_int8 = str(policy["config"].get("mode")).startswith("int8")
    return Operations(other=6 * count(call.inputs[0]) + call.output if is_int8 else None)


def _dense(call: LayerCall) -> Operations:
    products = product(call.outputs[0], call.inputs[0][-1])
    return _finished(call, products, bool(call.config.get("use_bias", True))) + _quantised(call)


def _einsum_dense(call: LayerCall) -> Operations | None:
    equation = call.config["equation"]
    # The indices of the kernel are in the input (those that are summed) or in the output.
    macs = einsum_macs(equation.split(",")[0] + "," + equation.split("->")[1], (call.inputs[0], call.outputs[0]))
    if macs is None:
        return None
    return _finished(call, Operations(macs), call.config.get("bias_axes") is not None) + _quantised(call)


def _channels(call: LayerCall) -> int:
    return call.inputs[0][1 if call.config.get("data_format") == "channels_first" else -1]


def _window(call: LayerCall, setting: str = "kernel_size") -> int:
    """Positions of the window, in as many dimensions as the input has."""
    size = call.config[setting]
    return count(tuple(size)) if isinstance(size, list) else int(size) ** (len(call.inputs[0]) - 2)


def _convolution(call: LayerCall) -> Operations:
    products = product(call.outputs[0], _window(call) * _channels(call) // int(call.config.get("groups", 1)))
    return _finished(call, products, bool(call.config["use_bias"]))


def _reversible_embedding(call: LayerCall) -> Operations:
    """Looks up, or is called in reverse and multiplies with the table."""
    tokens, features = int(call.config["input_dim"]), int(call.config["output_dim"])
    is_reverse = (call.inputs[0][-1:], call.outputs[0][-1]) == ((features,), tokens)
    return product(call.outputs[0], features) if is_reverse else NOTHING


def _depthwise(call: LayerCall) -> Operations:
    return _finished(call, product(call.outputs[0], _window(call)), bool(call.config["use_bias"]))


def _separable(call: LayerCall) -> Operations:
    between = _channels(call) * int(call.config["depth_multiplier"])
    positions = call.output // int(call.config["filters"])
    products = product((positions, between), _window(call)) + product(call.outputs[0], between)
    return _finished(call, products, bool(call.config["use_bias"]))


def _transposed(call: LayerCall) -> Operations:
    """Each element of the input is multiplied with the kernel; what is cropped from the output counts as well."""
    products = product(call.inputs[0], _window(call) * int(call.config["filters"]))
    return _finished(call, products, bool(call.config["use_bias"]))


def _matmul(call: LayerCall) -> Operations | None:
    first, output = call.inputs[0], call.outputs[0]
    # With one input the other operand is a constant, on the right if all but the last axis stay.
    if len(call.inputs) == 1 and first[:-1] != output[:-1]:
        return None
    return product(output, first[-1])


def _einsum(call: LayerCall) -> Operations | None:
    equation = str(call.config["subscripts"])
    fits = equation.split("->")[0].count(",") + 1 == len(call.inputs)
    macs = einsum_macs(equation, call.inputs) if fits else None
    return None if macs is None else Operations(macs)


def _dot(call: LayerCall) -> Operations | None:
    """The merging layer (batch first) or `keras.ops.dot`, which sums over the last axis of the first."""
    axes = call.config.get("axes")
    if axes is None:
        return product(call.outputs[0], call.inputs[0][-1])
    axis = axes[0] if isinstance(axes, list) else int(axes)
    normalised = 3 * sum(map(count, call.inputs)) if call.config.get("normalize") else 0
    return product(call.outputs[0], call.inputs[0][axis]) + Operations(other=normalised)


def _convolution_op(call: LayerCall) -> Operations | None:
    if len(call.inputs) != 2:
        return None
    kernel = call.inputs[1]
    return product(call.outputs[0], count(kernel[:-2] if call.class_name == "DepthwiseConv" else kernel[:-1]))


def _activation_layer(call: LayerCall) -> Operations:
    return activation(call.config["activation"], call.output)


def _rectifier(call: LayerCall) -> Operations:
    config = call.config
    more = (config.get("max_value") is not None, bool(config.get("negative_slope")), bool(config.get("threshold")))
    return Operations(other=(1 + sum(more)) * call.output)


def _gelu(call: LayerCall) -> Operations:
    # The default of keras.ops.gelu, which is not that of the activation.
    name = "gelu_tanh" if call.config.get("approximate", True) else "gelu"
    return activation(name, call.output)


def _layer_norm(call: LayerCall) -> Operations:
    scaled = bool(call.config.get("scale", True)) + bool(call.config.get("center", True))
    return Operations(other=(LAYER_NORM + scaled) * call.output)


def _pooling(call: LayerCall) -> Operations:
    return Operations(other=_window(call, "pool_size") * call.output)


def _merged(call: LayerCall) -> Operations:
    """An operation on two operands, or a merging layer with several; one input means that the other is a constant."""
    return Operations(other=max(1, len(call.inputs) - 1) * call.output)


def _average(call: LayerCall) -> Operations:
    """The merging layer has several inputs, `keras.ops.average` has one (and weights)."""
    return Operations(other=len(call.inputs) * call.output if len(call.inputs) > 1 else count(call.inputs[0]))


def _interpolation(call: LayerCall) -> Operations:
    """Nearest neighbours are copied; a bilinear value takes three linear interpolations. Others are not known."""
    kind = call.config.get("interpolation", "nearest")
    flops = {"nearest": 0, "bilinear": 3 * LERP}.get(kind if not call.config.get("antialias") else "")
    return Operations(other=None if flops is None else flops * call.output)


def _nothing(_: LayerCall) -> Operations:
    return NOTHING


def per_output(flops: int) -> Formula:
    """So many operations for each element of the output."""
    return lambda call: Operations(other=flops * call.output)


def per_input(flops: int) -> Formula:
    """So many operations for each element of the first input, as in reductions."""
    return lambda call: Operations(other=flops * count(call.inputs[0]))


def _products() -> dict[str, Formula]:
    table: dict[str, Formula] = {"Dense": _dense, "EinsumDense": _einsum_dense}
    for rank in (1, 2, 3):
        table |= {f"Conv{rank}D": _convolution, f"Conv{rank}DTranspose": _transposed}
        table |= {f"DepthwiseConv{rank}D": _depthwise, f"SeparableConv{rank}D": _separable}
        table |= {f"MaxPooling{rank}D": _pooling, f"AveragePooling{rank}D": _pooling}
        table |= {f"GlobalMaxPooling{rank}D": per_input(1), f"GlobalAveragePooling{rank}D": per_input(1)}
    table |= {"Matmul": _matmul, "Einsum": _einsum, "Dot": _dot, "Conv": _convolution_op}
    table |= {"DepthwiseConv": _convolution_op}
    return table | {"MaxPool": _pooling, "AveragePool": _pooling}


def _activations() -> dict[str, Formula]:
    """Layers and operations that are an activation function."""
    named = {"ReLU": _rectifier, "Activation": _activation_layer, "Gelu": _gelu}
    same = "Relu6 Sigmoid Softplus Softsign Silu Elu Selu Celu Glu Threshold Softmax Tanh Relu"
    table = {name: per_output(ACTIVATION_FLOPS[name.lower()]) for name in same.split()}
    spelled = {"LeakyReLU": "leaky_relu", "LeakyRelu": "leaky_relu", "ELU": "elu", "Mish": "mish"}
    spelled |= {"LogSigmoid": "log_sigmoid", "HardSigmoid": "hard_sigmoid", "HardSilu": "hard_silu"}
    spelled |= {"LogSoftmax": "log_softmax", "TanhShrink": "tanh_shrink", "HardTanh": "hard_tanh"}
    spelled |= {"HardShrink": "hard_shrink", "SoftShrink": "soft_shrink", "Squareplus": "squareplus"}
    return table | {cls: per_output(ACTIVATION_FLOPS[name]) for cls, name in spelled.items()} | named


# Operations of keras.ops that do one thing to each element of their output.
ELEMENTWISE = """
    Absolute Fabs Negative Sign Signbit Reciprocal Sqrt Rsqrt Cbrt Square Exp Exp2 Expm1 Log Log10 Log1p Log2 Sin
    Cos Tan Sinh Cosh Arcsin Arccos Arctan Arcsinh Arccosh Arctanh Erf Erfc Erfinv Floor Ceil Round Trunc Isfinite
    Isinf Isnan LogicalNot BitwiseInvert BitwiseNot Divide TrueDivide DivideNoNan FloorDivide Mod Fmod Power Arctan2
    Hypot Equal NotEqual Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr LogicalXor BitwiseAnd BitwiseOr
    BitwiseXor BitwiseLeftShift BitwiseRightShift LeftShift RightShift Where Cumsum Cumprod Deg2rad Rad2deg Tril
    Triu
"""
REDUCTIONS = """
    Sum Mean Max Min Prod Amax Amin All Any Argmax Argmin CountNonzero Nansum Nanmax Nanmin
"""
# What copies, looks up, or does something in training only.
FREE = """
    InputLayer Identity Dropout AlphaDropout GaussianDropout GaussianNoise SpatialDropout1D SpatialDropout2D
    SpatialDropout3D ActivityRegularization StopGradient Embedding Reshape Flatten Permute RepeatVector Concatenate
    ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D Cast SaturateCast ConvertToTensor
    Copy GetItem ExpandDims Squeeze Transpose Swapaxes Moveaxis Ravel BroadcastTo Tile Repeat Stack Hstack Vstack
    Dstack Split ArraySplit Hsplit Vsplit Dsplit Unstack Take TakeAlongAxis Flip Fliplr Flipud Roll Rot90 Pad Diag
    Diagonal ZerosLike OnesLike FullLike EmptyLike Full Arange Size Ndim Slice SliceUpdate Scatter ScatterUpdate
    OneHot Meshgrid DepthToSpace SpaceToDepth View Real Imag Rearrange ExtractPatches PadImages CropImages
    StringLookup IntegerLookup UpSampling1D UpSampling3D StochasticDepth RandomBrightness RandomContrast RandomCrop
    RandomErasing RandomFlip RandomGrayscale RandomHue RandomRotation RandomSaturation RandomSharpness RandomShear
    RandomTranslation RandomZoom RandomColorJitter RandomColorDegeneration RandomElasticTransform RandomGaussianBlur
    RandomInvert RandomPerspective RandomPosterization RandAugment MixUp CutMix AugMix
"""

PLAIN: dict[str, Formula] = {
    **_products(),
    **_activations(),
    **dict.fromkeys(ELEMENTWISE.split(), per_output(1)),
    **dict.fromkeys(REDUCTIONS.split(), per_input(1)),
    **dict.fromkeys(FREE.split(), _nothing),
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Fmax", "Fmin"), _merged),
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "LayerNorm"), _layer_norm),
    **dict.fromkeys(("UpSampling2D", "Resizing", "Resize"), _interpolation),
    "Average": _average,
    "BatchNormalization": per_output(BATCH_NORM),
    "RMSNormalization": per_output(RMS_NORM + 1),
    "RMSNorm": per_output(RMS_NORM + 1),
    "UnitNormalization": per_output(RMS_NORM),
    "Normalize": per_output(RMS_NORM),
    "Normalization": per_output(2),
    "Rescaling": per_output(2),
    "Clip": per_output(2),
    # Of keras.applications: ConvNeXt and InceptionResNetV2.
    "LayerScale": per_output(1),
    "CustomScaleLayer": per_output(2),
    "Masking": per_output(3),
    "ReversibleEmbedding": _reversible_embedding,
    # Two rectifiers, −, ×, +.
    "PReLU": per_output(5),
    "Logsumexp": per_input(4),
    # Mean, −, square, sum.
    "Var": per_input(4),
    "Std": per_input(4),
    "Moments": per_input(4),
}
