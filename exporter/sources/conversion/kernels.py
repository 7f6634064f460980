"""Types in which an op can run: where ONNX, or ONNX Runtime's CPU provider, has none for it, another one that can.

TensorFlow adds up int8, searches the largest uint16 and pads truth values; ONNX often has int32, int64 and floats
only. Sums, products and quotients of 8 and 16 bits are exact in 32, and a cast back wraps around as TensorFlow does.
"""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto, TensorProto

from exporter.errors import UnsupportedError

FLOAT, HALF, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE
INT8, UINT8, INT16, UINT16 = TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16
INT32, UINT32, INT64, UINT64 = TensorProto.INT32, TensorProto.UINT32, TensorProto.INT64, TensorProto.UINT64
BOOL = TensorProto.BOOL
# As ONNX's schemas spell them.
NAMES = {
    kind: f"tensor({name})"
    for kind, name in (
        (FLOAT, "float"), (HALF, "float16"), (DOUBLE, "double"), (BOOL, "bool"),
        (INT8, "int8"), (UINT8, "uint8"), (INT16, "int16"), (UINT16, "uint16"),
        (INT32, "int32"), (UINT32, "uint32"), (INT64, "int64"), (UINT64, "uint64"),
    )
}  # fmt: skip

# Ops that ONNX defines for float64 and ONNX Runtime 1.32 cannot run in it on the CPU: its registry of kernels says so,
# for recurrent ops the kernel itself does when it runs.
# fmt: off
NO_FLOAT64_KERNEL = frozenset((
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "AveragePool", "Conv", "ConvTranspose", "Cosh", "Erf",
    "Gelu", "GlobalAveragePool", "GlobalMaxPool", "GRU", "InstanceNormalization", "LRN", "LSTM", "NonZero",
    "OneHot", "Resize", "RNN", "Sinh", "Softplus", "Tan",
))
# fmt: on
SMALL = frozenset((INT8, UINT8, INT16, UINT16))
UNSIGNED_LARGE = frozenset((UINT32, UINT64))
_OTHERS = SMALL | UNSIGNED_LARGE
# The same of whole numbers and truth values, among the types that ONNX allows for the op.
NO_KERNEL: dict[str, frozenset[int]] = {
    **dict.fromkeys(("ArgMax", "ArgMin"), frozenset((INT16, UINT16, UINT32, UINT64))),
    **dict.fromkeys(("Clip", "Max", "Min", "Pad"), frozenset((INT16, UINT16))),
    **dict.fromkeys(
        ("DepthToSpace", "SpaceToDepth"), frozenset((INT16, UINT16, INT32, UINT32, INT64, UINT64, BOOL))
    ),
    **dict.fromkeys(("Einsum", "Trilu"), _OTHERS),
    **dict.fromkeys(
        ("CumSum", "ReduceL1", "ReduceL2",   "ReduceMax", "ReduceMean", "ReduceMin",
         "ReduceProd", "ReduceSum", "ReduceSumSquare"),
        UNSIGNED_LARGE,
    ),
    **dict.fromkeys(("Gemm", "PRelu"), frozenset((INT32, UINT32, INT64, UINT64))),
    "EyeLike": frozenset((INT8, UINT8, INT16, UINT16, UINT32, BOOL)),
    "NonZero": frozenset((INT8, INT16, UINT16, UINT32, UINT64)),
    "OneHot": _OTHERS | {BOOL},
    "Pow": _OTHERS,
    "Relu": frozenset((INT16, INT64)),
    "Resize": frozenset((INT16, UINT16, UINT32, INT64, UINT64, BOOL)),
    "TopK": frozenset((UINT16, UINT32, UINT64)),
    "Unique": frozenset((UINT8, INT16, UINT16, INT32, UINT32, UINT64, BOOL)),
    "Where": frozenset((INT16, UINT16, UINT64, BOOL)),
}  # fmt: skip
# What holds every number of a type, the most welcome first.
WIDER: dict[int, tuple[int, ...]] = {
    **dict.fromkeys(SMALL, (INT32, FLOAT)),
    BOOL: (INT32, UINT8, FLOAT),
    INT32: (INT64, DOUBLE),
    UINT32: (INT64, DOUBLE),
    HALF: (FLOAT,),
}
# ONNX Runtime's sums and products of 32 bits stop at the largest number instead of wrapping around.
SATURATING = frozenset(("ReduceProd", "ReduceSum"))
# Of these 64 bits without a sign have the same bits as those with one.
BITWISE = frozenset(("CumSum", "Einsum", "Pad", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Trilu", "Where"))
# Without a float16 kernel ONNX Runtime takes ONNX's own formula, if there is one, in which exp(12) is infinite.
OVERFLOWING = ("ReduceLogSumExp", "Softplus")
# Whole numbers, and truth values: what `detour` has a look at.
WHOLE = frozenset(NAMES) - {FLOAT, HALF, DOUBLE}


def wants_float32(node: NodeProto) -> bool:
    """Whether ONNX Runtime has no kernel for float16: `ScatterND` has one as long as it reduces nothing."""
    reduces = any(each.name == "reduction" and each.s != b"none" for each in node.attribute)
    return node.op_type in OVERFLOWING or (node.op_type == "ScatterND" and reduces)


def detour(node: NodeProto, kind: int, allowed: Sequence[str]) -> int | None:
    """The type for a parameter for which ONNX allows these, instead of the one that flows; None where that can stay.

    Raises UnsupportedError where ONNX allows none that would do.
    """
    if kind == DOUBLE:
        return FLOAT if node.op_type in NO_FLOAT64_KERNEL and NAMES[FLOAT] in allowed else None
    if kind == HALF and wants_float32(node):
        return FLOAT if NAMES[FLOAT] in allowed else None
    name = NAMES.get(kind)
    if name is None or not allowed:
        return None
    is_allowed = name in allowed
    if is_allowed and not _lacks(node.op_type, kind):
        return None
    return _wider(node, kind, allowed, is_allowed=is_allowed)


def _wider(node: NodeProto, kind: int, allowed: Sequence[str], *, is_allowed: bool) -> int | None:
    candidates = (INT64,) if kind == UINT64 and node.op_type in BITWISE else WIDER.get(kind, ())
    if node.op_type in SATURATING:
        candidates = (INT64, *candidates)
    can_run = (other for other in candidates if NAMES[other] in allowed and not _lacks(node.op_type, other))
    other = next(can_run, None)
    if other is not None or is_allowed:
        # What ONNX allows and ONNX Runtime has not, another runtime may have.
        return other
    raise UnsupportedError(
        f"ONNX has no {node.op_type} of {NAMES[kind][7:-1]}",
        where=f"node {node.name}",
        why="and no other type holds all its numbers",
        hint="--to parquet,dot,svg describes the model without converting it",
    )


def _lacks(op_type: str, kind: int) -> bool:
    """Whether ONNX Runtime has no kernel for what ONNX allows."""
    return op_type in NO_FLOAT64_KERNEL if kind == DOUBLE else kind in NO_KERNEL.get(op_type, ())
