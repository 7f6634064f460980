"""What one call of a TensorFlow Lite operator costs; definitions in `tensorflow/lite/kernels`.

The shapes of kernels are in the setting `constants`, by the place of the input. `exporter.costs.counting` says what is
counted.
"""

from __future__ import annotations

from exporter.costs.counting import ACTIVATION_FLOPS, LERP, NOTHING, RMS_NORM, Operations, Sizes, count, product
from exporter.costs.layer_formulas import Formula, LayerCall, per_input, per_output

# What the option `fused_activation_function` puts behind an operator.
FUSED_FLOPS = {"NONE": 0, "RELU": 1, "RELU6": 2, "RELU_N1_TO_1": 2, "TANH": 1}


def _left(call: LayerCall) -> Sizes:
    """The first operand, which may be a constant, too."""
    constant = call.config.get("constants", {}).get("0")
    return tuple(constant["shape"]) if constant else call.inputs[0]


def _kernel(call: LayerCall) -> Sizes:
    """Raises LookupError for one that is computed."""
    return tuple(call.config["constants"]["1"]["shape"])


def _finished(call: LayerCall, products: Operations, bias: str) -> Operations:
    """With the bias, an input that may be left out, and the activation."""
    flops = FUSED_FLOPS[call.config.get("fused_activation_function", "NONE")] + (bias in call.config["constants"])
    return products + Operations(other=flops * call.output)


def _convolution(call: LayerCall) -> Operations:
    """A kernel is (outputs, height, width, inputs of a group)."""
    return _finished(call, product(call.outputs[0], count(_kernel(call)[1:])), "2")


def _depthwise(call: LayerCall) -> Operations:
    """A kernel is (1, height, width, outputs)."""
    return _finished(call, product(call.outputs[0], count(_kernel(call)[1:3])), "2")


def _volume(call: LayerCall) -> Operations:
    """A kernel is (depth, height, width, inputs, outputs)."""
    return _finished(call, product(call.outputs[0], count(_kernel(call)[:4])), "2")


def _transposed(call: LayerCall) -> Operations:
    """A kernel is (outputs, height, width, inputs); the shape of the output may be an input, too."""
    image = next(sizes for sizes in call.inputs if len(sizes) == 4)
    return _finished(call, product(image, count(_kernel(call)[:3])), "3")


def _dense(call: LayerCall) -> Operations:
    """A kernel is (outputs, inputs)."""
    return _finished(call, product(call.outputs[0], _kernel(call)[1]), "2")


def _batch_matmul(call: LayerCall) -> Operations:
    return product(call.outputs[0], _left(call)[-2 if call.config.get("adj_x") else -1])


def _pooling(call: LayerCall) -> Operations:
    window = call.config["filter_height"] * call.config["filter_width"]
    return Operations(other=(window + FUSED_FLOPS[call.config["fused_activation_function"]]) * call.output)


def _gelu(call: LayerCall) -> Operations:
    name = "gelu_tanh" if call.config.get("approximate") else "gelu"
    return Operations(other=ACTIVATION_FLOPS[name] * call.output)


def _arithmetic(call: LayerCall) -> Operations:
    flops = 1 + FUSED_FLOPS[call.config.get("fused_activation_function", "NONE")]
    return Operations(other=flops * call.output)


def _nothing(_: LayerCall) -> Operations:
    return NOTHING


ELEMENTWISE = """
    ABS NEG SIGN SQRT RSQRT SQUARE EXP LOG SIN COS FLOOR CEIL ROUND POW ATAN2 FLOOR_DIV FLOOR_MOD MAXIMUM MINIMUM EQUAL
    NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGICAL_OR LOGICAL_NOT BITWISE_XOR RIGHT_SHIFT SELECT
    SELECT_V2 WHERE CUMSUM
"""
REDUCTIONS = "SUM MEAN REDUCE_MAX REDUCE_MIN REDUCE_PROD REDUCE_ANY REDUCE_ALL ARG_MAX ARG_MIN"
# Input layers, too, which have no settings here.
FREE = """
    InputLayer RESHAPE TRANSPOSE CONCATENATION SPLIT SPLIT_V SLICE STRIDED_SLICE PAD PADV2 MIRROR_PAD GATHER GATHER_ND
    PACK UNPACK SQUEEZE EXPAND_DIMS SHAPE RANK CAST BITCAST TILE BROADCAST_TO BROADCAST_ARGS SPACE_TO_DEPTH
    DEPTH_TO_SPACE SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND FILL ZEROS_LIKE RANGE RESIZE_NEAREST_NEIGHBOR REVERSE_V2
    REVERSE_SEQUENCE EMBEDDING_LOOKUP ONE_HOT SCATTER_ND DYNAMIC_UPDATE_SLICE MATRIX_DIAG
"""
ACTIVATIONS = {
    "RELU": "relu",
    "RELU6": "relu6",
    "RELU_N1_TO_1": "relu6",
    "RELU_0_TO_1": "relu6",
    "LOGISTIC": "sigmoid",
    "TANH": "tanh",
    "ELU": "elu",
    "LEAKY_RELU": "leaky_relu",
    "PRELU": "prelu",
    "HARD_SWISH": "hard_swish",
    "SOFTMAX": "softmax",
    "LOG_SOFTMAX": "log_softmax",
}

LITE: dict[str, Formula] = {
    **dict.fromkeys(ELEMENTWISE.split(), per_output(1)),
    **dict.fromkeys(REDUCTIONS.split(), per_input(1)),
    **dict.fromkeys(FREE.split(), _nothing),
    **{op: per_output(ACTIVATION_FLOPS[name]) for op, name in ACTIVATIONS.items()},
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), _arithmetic),
    **dict.fromkeys(("MAX_POOL_2D", "AVERAGE_POOL_2D"), _pooling),
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "CONV_3D": _volume,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _batch_matmul,
    "GELU": _gelu,
    "SQUARED_DIFFERENCE": per_output(2),
    "L2_NORMALIZATION": per_output(RMS_NORM),
    "RESIZE_BILINEAR": per_output(3 * LERP),
    # × scale, + zero point, rounding and two bounds, or − zero point, × scale.
    "QUANTIZE": per_output(5),
    "DEQUANTIZE": per_output(2),
}
