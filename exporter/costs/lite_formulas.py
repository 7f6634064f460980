"""What one operator of a TensorFlow Lite file costs, by its builtin's name.

Definitions: tensorflow/lite/kernels. Constants are not among the inputs; their shapes are in the settings, by the place
of the input. `exporter.costs.counting` says what is counted.
"""

from __future__ import annotations

from exporter.costs.counting import ACTIVATION_FLOPS, LERP, NOTHING, RMS_NORM, Operations, Sizes, count, product
from exporter.costs.layer_formulas import Formula, LayerCall, per_input, per_output

FUSED = {"NONE": 0, "RELU": 1, "RELU6": 2, "RELU_N1_TO_1": 2, "TANH": 1, "SIGN_BIT": 1}


def _operand(call: LayerCall, place: int) -> Sizes:
    """The shape of an input, which is a constant or the next of the activations. Raises LookupError."""
    constants = call.config.get("constants", {})
    if str(place) in constants:
        return tuple(constants[str(place)]["shape"])
    return call.inputs[sum(str(before) not in constants for before in range(place))]


def _has_constant(call: LayerCall, place: int) -> bool:
    return str(place) in call.config.get("constants", {})


def _finished(call: LayerCall, products: Operations, *, has_bias: bool = False) -> Operations:
    """A product with its bias and the activation that is fused with it."""
    flops = has_bias + FUSED[call.config.get("fused_activation_function", "NONE")]
    return products + Operations(other=flops * call.output)


def _convolution(call: LayerCall) -> Operations:
    """A kernel is (outputs, window …, inputs per group)."""
    products = product(call.outputs[0], count(_operand(call, 1)[1:]))
    return _finished(call, products, has_bias=_has_constant(call, 2))


def _depthwise(call: LayerCall) -> Operations:
    """A kernel is (1, height, width, outputs)."""
    products = product(call.outputs[0], count(_operand(call, 1)[1:3]))
    return _finished(call, products, has_bias=_has_constant(call, 2))


def _transposed(call: LayerCall) -> Operations:
    """Inputs are the shape of the output, the kernel (outputs, height, width, inputs), and what it is applied to."""
    products = product(_operand(call, 2), count(_operand(call, 1)[:3]))
    return _finished(call, products, has_bias=_has_constant(call, 3))


def _fully_connected(call: LayerCall) -> Operations:
    products = product(call.outputs[0], _operand(call, 1)[-1])
    return _finished(call, products, has_bias=_has_constant(call, 2))


def _batch_matmul(call: LayerCall) -> Operations:
    return product(call.outputs[0], _operand(call, 0)[-2 if call.config.get("adj_x") else -1])


def _pooling(call: LayerCall) -> Operations:
    window = int(call.config["filter_height"]) * int(call.config["filter_width"])
    return _finished(call, Operations(other=window * call.output))


def _elementwise(call: LayerCall) -> Operations:
    return _finished(call, Operations(other=call.output))


def _add_n(call: LayerCall) -> Operations:
    return Operations(other=(len(call.inputs) - 1) * call.output)


def _gelu(call: LayerCall) -> Operations:
    return Operations(other=ACTIVATION_FLOPS["gelu_tanh" if call.config.get("approximate") else "gelu"] * call.output)


def _nothing(_: LayerCall) -> Operations:
    return NOTHING


ELEMENTWISE = """
    ADD SUB MUL DIV POW MAXIMUM MINIMUM FLOOR_DIV FLOOR_MOD ABS NEG SIGN SQRT RSQRT SQUARE EXP LOG SIN COS FLOOR CEIL
    ROUND EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGICAL_OR LOGICAL_NOT SELECT SELECT_V2
    WHERE CUMSUM ATAN2 BITWISE_XOR RIGHT_SHIFT
"""
ACTIVATIONS = {
    "RELU": "relu",
    "RELU6": "relu6",
    "RELU_N1_TO_1": "hard_tanh",
    "RELU_0_TO_1": "hard_tanh",
    "LOGISTIC": "sigmoid",
    "TANH": "tanh",
    "HARD_SWISH": "hard_swish",
    "ELU": "elu",
    "LEAKY_RELU": "leaky_relu",
    "PRELU": "prelu",
    "SOFTMAX": "softmax",
    "LOG_SOFTMAX": "log_softmax",
}
REDUCTIONS = "MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD REDUCE_ANY REDUCE_ALL ARG_MAX ARG_MIN"
FREE = """
    RESHAPE SQUEEZE EXPAND_DIMS TRANSPOSE CONCATENATION PACK UNPACK SPLIT SPLIT_V SLICE STRIDED_SLICE GATHER GATHER_ND
    SCATTER_ND EMBEDDING_LOOKUP PAD PADV2 MIRROR_PAD TILE BROADCAST_TO CAST SHAPE RANK FILL ZEROS_LIKE ONE_HOT RANGE
    REVERSE_V2 REVERSE_SEQUENCE DEPTH_TO_SPACE SPACE_TO_DEPTH BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND
    RESIZE_NEAREST_NEIGHBOR MATRIX_DIAG DYNAMIC_UPDATE_SLICE
"""

LITE: dict[str, Formula] = {
    **dict.fromkeys(ELEMENTWISE.split(), _elementwise),
    **{name: per_output(ACTIVATION_FLOPS[function]) for name, function in ACTIVATIONS.items()},
    **dict.fromkeys(REDUCTIONS.split(), per_input(1)),
    **dict.fromkeys(FREE.split(), _nothing),
    **dict.fromkeys(("CONV_2D", "CONV_3D"), _convolution),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _pooling),
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "ADD_N": _add_n,
    "GELU": _gelu,
    "SQUARED_DIFFERENCE": per_output(2),
    "L2_NORMALIZATION": per_output(RMS_NORM),
    # Three linear interpolations.
    "RESIZE_BILINEAR": per_output(3 * LERP),
    # As `QuantizeLinear` and `DequantizeLinear` of ONNX are counted.
    "QUANTIZE": per_output(5),
    "DEQUANTIZE": per_output(2),
}
