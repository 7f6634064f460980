"""What one node of an ONNX graph costs, by its op; definitions at https://onnx.ai/onnx/operators."""

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
    SOFTMAX,
    Operations,
    Sizes,
    count,
    einsum_macs,
    product,
)


@dataclass(frozen=True)
class NodeCall:
    """`inputs` has None for an input that is left out, or whose shape is unknown."""

    attributes: Mapping[str, Any]
    inputs: tuple[Sizes | None, ...]
    outputs: tuple[Sizes, ...]

    @property
    def output(self) -> int:
        """Elements of the first output."""
        return count(self.outputs[0])

    def given(self, place: int) -> bool:
        return place < len(self.inputs) and self.inputs[place] is not None

    def shape(self, place: int) -> Sizes:
        """Raises TypeError when it is unknown."""
        sizes = self.inputs[place] if place < len(self.inputs) else None
        if sizes is None:
            raise TypeError(f"input {place} has no known shape")
        return sizes


Formula = Callable[[NodeCall], Operations | None]


def _matmul(call: NodeCall) -> Operations:
    return product(call.outputs[0], call.shape(0)[-1])


def _gemm(call: NodeCall) -> Operations:
    scaled = (call.attributes.get("alpha", 1.0) != 1.0) + (call.given(2) and call.attributes.get("beta", 1.0) != 1.0)
    summed = call.shape(0)[0 if call.attributes.get("transA") else 1]
    return product(call.outputs[0], summed) + Operations(other=(call.given(2) + scaled) * call.output)


def _convolution(kernel: int, bias: int | None) -> Formula:
    """`kernel` and `bias` are places of inputs; a kernel is (outputs, inputs per group, window …)."""

    def formula(call: NodeCall) -> Operations:
        has_bias = bias is not None and call.given(bias)
        return product(call.outputs[0], count(call.shape(kernel)[1:])) + Operations(other=has_bias * call.output)

    return formula


def _transposed(call: NodeCall) -> Operations:
    """A kernel is (inputs, outputs per group, window …)."""
    return product(call.shape(0), count(call.shape(1)[1:])) + Operations(other=call.given(2) * call.output)


def _einsum(call: NodeCall) -> Operations | None:
    equation = call.attributes["equation"].decode()
    macs = einsum_macs(equation, [call.shape(place) for place in range(len(call.inputs))])
    return None if macs is None else Operations(macs)


# Gates, vectors of bias, activations, other operations on an element of the state.
RECURRENT = {"LSTM": (4, 8, 5, 4), "GRU": (3, 6, 3, 5), "RNN": (1, 2, 1, 0)}


def _recurrent(op: str) -> Formula:
    gates, biases, activations, others = RECURRENT[op]

    def formula(call: NodeCall) -> Operations:
        steps, rows = call.shape(0)[:2]
        directions, features, units = call.shape(1)[0], call.shape(0)[2], call.shape(2)[2]
        if call.attributes.get("layout"):
            steps, rows = rows, steps
        state = directions * steps * rows * units
        # One sum of the two products for each gate. Biases of input and state are weights, and added once.
        added = gates + (biases // 2 if call.given(3) else 0)
        other = state * (added + activations + others)
        return Operations(state * gates * (features + units), other)

    return formula


def _gelu(call: NodeCall) -> Operations:
    name = "gelu_tanh" if call.attributes.get("approximate") == b"tanh" else "gelu"
    return Operations(other=ACTIVATION_FLOPS[name] * call.output)


def _norm(flops: int) -> Formula:
    """Scale and bias are inputs 1 and 2."""
    return lambda call: Operations(other=(flops + call.given(1) + call.given(2)) * call.output)


def _bounded(call: NodeCall) -> Operations:
    return Operations(other=(call.given(1) + call.given(2)) * call.output)


def _pooling(call: NodeCall) -> Operations:
    return Operations(other=count(tuple(call.attributes["kernel_shape"])) * call.output)


def _merged(call: NodeCall) -> Operations:
    return Operations(other=(len(call.inputs) - 1) * call.output)


def _resize(call: NodeCall) -> Operations:
    """A linear interpolation in d dimensions takes 2^d − 1 of one dimension; other kinds are not known."""
    mode = call.attributes.get("mode", b"nearest")
    resized = sum(before != after for before, after in zip(call.shape(0), call.outputs[0], strict=True))
    flops = {b"nearest": 0, b"linear": LERP * (2**resized - 1)}.get(mode)
    return Operations(other=None if flops is None else flops * call.output)


def _attention(call: NodeCall) -> Operations | None:
    """`Attention` of opset 23 on (batch, heads, positions, features); three dimensions are not told apart here."""
    query, key, value = call.shape(0), call.shape(1), call.shape(2)
    if len(query) != 4:
        return None
    scores = (*query[:3], key[2])
    other = Operations(other=count(query) + (SOFTMAX + call.given(3)) * count(scores))
    return product(scores, query[3]) + product((*query[:3], value[3]), key[2]) + other


def _per_output(flops: int) -> Formula:
    return lambda call: Operations(other=flops * call.output)


def _per_input(flops: int) -> Formula:
    return lambda call: Operations(other=flops * count(call.shape(0)))


def _nothing(_: NodeCall) -> Operations:
    return NOTHING


ELEMENTWISE = """
    Abs Neg Sign Reciprocal Sqrt Exp Log Sin Cos Tan Sinh Cosh Asin Acos Atan Asinh Acosh Atanh Erf Floor Ceil Round
    IsNaN IsInf Not BitwiseNot Add Sub Mul Div Pow Mod Equal Greater GreaterOrEqual Less LessOrEqual And Or Xor
    BitwiseAnd BitwiseOr BitwiseXor BitShift Where CumSum Trilu
"""
ACTIVATIONS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "LeakyRelu": "leaky_relu",
    "PRelu": "prelu",
    "ThresholdedRelu": "threshold",
    "Elu": "elu",
    "Selu": "selu",
    "Celu": "celu",
    "HardSigmoid": "hard_sigmoid",
    "HardSwish": "hard_swish",
    "Swish": "swish",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Mish": "mish",
    "Shrink": "soft_shrink",
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
}
REDUCTIONS = {"ReduceSum": 1, "ReduceMean": 1, "ReduceMax": 1, "ReduceMin": 1, "ReduceProd": 1, "ReduceL1": 2}
REDUCTIONS |= {"ReduceL2": 2, "ReduceSumSquare": 2, "ReduceLogSum": 1, "ReduceLogSumExp": 2, "ArgMax": 1, "ArgMin": 1}
FREE = """
    Identity Constant ConstantOfShape Cast CastLike Shape Size Reshape Flatten Squeeze Unsqueeze Transpose Concat
    Split Slice Gather GatherElements GatherND ScatterElements ScatterND Pad Expand Tile DepthToSpace SpaceToDepth
    Range OneHot EyeLike Dropout SequenceEmpty ReverseSequence NonZero
"""

TABLE: dict[str, Formula] = {
    **dict.fromkeys(ELEMENTWISE.split(), _per_output(1)),
    **dict.fromkeys(FREE.split(), _nothing),
    **{op: _per_output(ACTIVATION_FLOPS[name]) for op, name in ACTIVATIONS.items()},
    **{op: _per_input(flops) for op, flops in REDUCTIONS.items()},
    **{op: _recurrent(op) for op in RECURRENT},
    **dict.fromkeys(("Sum", "Max", "Min"), _merged),
    **dict.fromkeys(("MaxPool", "AveragePool"), _pooling),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _per_input(1)),
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul"), _matmul),
    "Mean": lambda call: Operations(other=len(call.inputs) * call.output),
    "Gemm": _gemm,
    "Conv": _convolution(1, 2),
    "ConvInteger": _convolution(1, None),
    "QLinearConv": _convolution(3, 8),
    "ConvTranspose": _transposed,
    "Einsum": _einsum,
    "Attention": _attention,
    "Gelu": _gelu,
    "Clip": _bounded,
    "Resize": _resize,
    "BatchNormalization": _per_output(BATCH_NORM),
    "LayerNormalization": _norm(LAYER_NORM),
    "InstanceNormalization": _norm(LAYER_NORM),
    "GroupNormalization": _norm(LAYER_NORM),
    "RMSNormalization": _norm(RMS_NORM),
    "LpNormalization": _per_output(RMS_NORM),
    "MeanVarianceNormalization": _per_output(LAYER_NORM),
    # − zero point, × scale, or the other way round with rounding and two bounds.
    "DequantizeLinear": _per_output(2),
    "QuantizeLinear": _per_output(5),
    "DynamicQuantizeLinear": _per_output(7),
}
FORMULAS: dict[tuple[str, str], Formula] = {("", op): formula for op, formula in TABLE.items()}
