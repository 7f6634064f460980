"""What a row of a TensorFlow graph costs: one operation, or several with a common name.

Rows of several operations say which these are (`MatMul+BiasAdd+Relu`) and nothing about the tensors between them. They
are counted where those can only have the shape of the output: a product at the start, and then what keeps the shape.
"""

from __future__ import annotations

from exporter.costs.counting import ACTIVATION_FLOPS, BATCH_NORM, NOTHING, Operations, Sizes, count, product
from exporter.costs.layer_formulas import Formula, LayerCall, per_output

JOIN = "+"
# Operations on one element, of what has one operand that flows; the other is made of weights, with one axis at most.
FUNCTIONS = {"Relu": "relu", "Relu6": "relu6", "LeakyRelu": "leaky_relu", "Sigmoid": "sigmoid", "Tanh": "tanh"}
FUNCTIONS |= {"Elu": "elu", "Selu": "selu", "Softplus": "softplus", "Softsign": "softsign", "Softmax": "softmax"}
KEEPS_SHAPE = {operation: ACTIVATION_FLOPS[function] for operation, function in FUNCTIONS.items()}
KEEPS_SHAPE |= {"BiasAdd": 1, "FusedBatchNormV3": BATCH_NORM, "Identity": 0, "Cast": 0}
KEEPS_SHAPE |= dict.fromkeys(("Erf", "Rsqrt", "Sqrt", "Square", "Exp", "Neg"), 1)
WITH_WEIGHTS = {"Mul": 1, "AddV2": 1, "Add": 1, "Sub": 1, "RealDiv": 1, "Maximum": 1, "Minimum": 1}


def _kernel(call: LayerCall, rank: int) -> Sizes:
    """The only weight of that rank. Raises ValueError."""
    (found,) = (shape for shape in call.weights if len(shape) == rank)
    return found


def _convolution(call: LayerCall) -> Operations:
    """A kernel is (height, width, inputs per group, outputs)."""
    return product(call.outputs[0], count(_kernel(call, 4)[:3]))


def _depthwise(call: LayerCall) -> Operations:
    """A kernel is (height, width, inputs, multiplier)."""
    return product(call.outputs[0], count(_kernel(call, 4)[:2]))


def _separable(call: LayerCall) -> Operations | None:
    """A depthwise convolution, and one of single positions, before which the image has the size of the output."""
    depthwise, pointwise = (shape for shape in call.weights if len(shape) == 4)
    between = count(depthwise[2:])
    if pointwise[:3] != (1, 1, between):
        return None
    positions = count(call.outputs[0][:-1])
    return product((positions, between), count(depthwise[:2])) + product((positions, pointwise[3]), between)


def _matmul(call: LayerCall) -> Operations:
    """Of two activations, or of one and a kernel."""
    flipped = bool(call.config.get("transpose_a") or call.config.get("adj_x"))
    return product(call.outputs[0], call.inputs[0][-2 if flipped else -1])


def _pooling(call: LayerCall) -> Operations:
    return Operations(other=count(tuple(call.config["ksize"])) * call.output)


def _merged(call: LayerCall) -> Operations:
    """One input means that the other is made of weights."""
    return Operations(other=max(1, len(call.inputs) - 1) * call.output)


def _nothing(_: LayerCall) -> Operations:
    return NOTHING


FREE = """
    Reshape ConcatV2 StridedSlice GatherV2 Identity Cast Shape Pack Fill PadV2
"""
SEPARABLE = ["DepthwiseConv2dNative", "Conv2D"]
PRODUCTS: dict[str, Formula] = {
    "Conv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "MatMul": _matmul,
    "BatchMatMulV2": _matmul,
}
# Operations that do not have the name of one of keras.ops, or have other settings.
SINGLE: dict[str, Formula] = {
    **PRODUCTS,
    **dict.fromkeys(("MaxPool", "AvgPool"), _pooling),
    **dict.fromkeys((*WITH_WEIGHTS, "AddN"), _merged),
    **dict.fromkeys(FREE.split(), _nothing),
    **{operation: per_output(flops) for operation, flops in KEEPS_SHAPE.items() if flops},
    "SquaredDifference": per_output(2),
}


def _several(call: LayerCall) -> Operations | None:
    operations = call.class_name.split(JOIN)
    # With more nodes than types, it is not known of which type there are several.
    if len(call.outputs) != 1 or len(call.inputs) != 1 or call.config.get("nodes") != len(operations):
        return None
    products, rest = _leading_products(call, operations)
    flat = all(len(shape) <= 1 or (products and len(shape) in (2, 4)) for shape in call.weights)
    flops = KEEPS_SHAPE | WITH_WEIGHTS if flat else KEEPS_SHAPE
    if products is None or not all(operation in flops for operation in rest):
        return None
    return products + Operations(other=sum(flops[operation] for operation in rest) * call.output)


def _leading_products(call: LayerCall, operations: list[str]) -> tuple[Operations | None, list[str]]:
    """What the first operations multiply, and the others. None where the shapes do not show it."""
    first, *rest = operations
    if [first, *rest[:1]] == SEPARABLE:
        return _separable(call), rest[1:]
    if first in PRODUCTS:
        # The settings of a row of several say nothing of a transposed operand.
        is_plain = len(call.inputs[0]) != 2 or sorted(_kernel(call, 2)) == sorted(
            (call.inputs[0][1], call.outputs[0][1])
        )
        return PRODUCTS[first](call) if is_plain else None, rest
    return NOTHING if call.inputs == call.outputs else None, operations


def is_of_graph(class_name: str) -> bool:
    """Whether the class is that of a row whose formula is here: some are called as a layer of Keras is."""
    return class_name in SINGLE or JOIN in class_name


def graph_operations(call: LayerCall) -> Operations | None:
    """None where the row's operations are not known or their shapes are not certain."""
    if call.class_name in SINGLE:
        return SINGLE[call.class_name](call)
    return _several(call)
