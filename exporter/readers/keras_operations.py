"""The tensors that operations of `keras.ops` give that stand in a graph of layers.

The formulas are those of each class's `compute_output_spec` in Keras 3.15; a test compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from exporter.readers import Unexplained
from exporter.readers import keras_operation_images as images
from exporter.readers import keras_operation_kinds as kinds
from exporter.readers import keras_operation_shapes as shapes
from exporter.readers.keras_calls import Ref
from exporter.readers.keras_operation import Config, Operation
from exporter.readers.keras_operation_kinds import Kind
from exporter.readers.keras_operation_shapes import ShapeOf
from exporter.readers.keras_shapes import Spec

# A file may say any number.
MOST_OUTPUTS = 100_000


def operation_specs(class_name: str, config: Config, arguments: Sequence[Any], inputs: Sequence[Spec]) -> list[Spec]:
    """All outputs of a call. Raises Unexplained."""
    if not inputs:
        raise Unexplained(f"the output of {class_name}")
    call = Operation(config, tuple(arguments), tuple(inputs))
    if class_name in SEVERAL:
        return SEVERAL[class_name](call)
    if class_name not in SINGLE:
        raise Unexplained(f"the output of {class_name}")
    shape, kind = SINGLE[class_name]
    return [(shape(call), kind(call))]


def operation_outputs(class_name: str, config: Config, calls: Sequence[Sequence[Ref]]) -> int:
    """How many tensors a call gives. Raises Unexplained, for more than a graph has, too."""
    count = _output_count(class_name, config, calls)
    if not 0 < count <= MOST_OUTPUTS:
        raise Unexplained(f"a {class_name} into {count} tensors")
    return count


def _output_count(class_name: str, config: Config, calls: Sequence[Sequence[Ref]]) -> int:
    if class_name in COUNTS:
        return COUNTS[class_name]
    if class_name in SPLITS:
        parts = config.get("indices_or_sections")
        if not isinstance(parts, (int, list)):
            raise Unexplained("a Split into unknown parts")
        return len(parts) + 1 if isinstance(parts, list) else parts
    if class_name == "SVD":
        return 3 if config.get("compute_uv", True) else 1
    if class_name == "Unstack":
        return _count_unstacked(config, calls)
    if class_name == "Meshgrid":
        return len(calls[0])
    return 1


def _count_unstacked(config: Config, calls: Sequence[Sequence[Ref]]) -> int:
    shape, axis, count = calls[0][0].shape, int(config.get("axis") or 0), config.get("num")
    found = count if count is not None or shape is None else shape[axis]
    if found is None:
        raise Unexplained("an Unstack into unknown parts")
    return int(found)


def _split(call: Operation) -> list[Spec]:
    return _split_along(call, call.axis(default=0))


def _split_along(call: Operation, axis: int) -> list[Spec]:
    parts, size = call.config["indices_or_sections"], call.shape[axis]
    if isinstance(parts, list):
        if size is None or not parts:
            raise Unexplained("a Split of an unknown size at places")
        ends = [0, *parts, size]
        sizes: list[int | None] = [end - start for start, end in pairwise(ends)]
    else:
        sizes = [None if size is None else size // parts] * parts
    return [((*call.shape[:axis], each, *call.shape[axis + 1 :]), call.dtype) for each in sizes]


def _unstacked(call: Operation) -> list[Spec]:
    axis = call.axis(default=0)
    shape = (*call.shape[:axis], *call.shape[axis + 1 :])
    return [(shape, call.dtype)] * int(call.config.get("num") or call.shape[axis] or 0)


def _largest(call: Operation) -> list[Spec]:
    shape = (*call.shape[:-1], int(call.config["k"]))
    return [(shape, call.dtype), (shape, "int32")]


def _moments(call: Operation) -> list[Spec]:
    renamed = Operation({**call.config, "axis": call.config["axes"]}, call.arguments, call.inputs)
    return [(shapes.reduced(renamed), call.dtype)] * 2


def _waves(call: Operation) -> list[Spec]:
    size = call.config.get("fft_length") or call.shape[-1]
    return [((*call.shape[:-1], None if size is None else int(size) // 2 + 1), call.dtype)] * 2


def _both(call: Operation) -> list[Spec]:
    return list(call.inputs[:2])


COUNTS = {
    **dict.fromkeys(("CTCDecode", "Eig", "Eigh", "FFT", "FFT2", "Histogram", "IFFT2", "LuFactor", "Moments", "Qr"), 2),
    **dict.fromkeys(("RFFT", "STFT", "Slogdet", "TopK"), 2),
}
SPLITS = ("ArraySplit", "Dsplit", "Hsplit", "Split", "Vsplit")
SEVERAL: dict[str, Callable[[Operation], list[Spec]]] = {
    **dict.fromkeys(("FFT", "FFT2", "IFFT2"), _both),
    "Hsplit": lambda call: _split_along(call, min(1, len(call.shape) - 1)),
    "Moments": _moments,
    "RFFT": _waves,
    "Split": _split,
    "TopK": _largest,
    "Unstack": _unstacked,
    "Vsplit": lambda call: _split_along(call, 0),
}
_SAME = """
    BitwiseInvert BitwiseNot NanToNum Tril Triu Trunc Relu Relu6 Sigmoid SparseSigmoid Softplus Softsign SoftShrink
    SparsePlus Silu Squareplus LogSigmoid LeakyRelu HardSigmoid HardSilu Elu Selu Gelu Celu TanhShrink HardTanh
    HardShrink Threshold Rsqrt Absolute Abs Conjugate Conj Copy Round Sign Negative Flip Fliplr Flipud Roll Softmax
    LogSoftmax RMSNorm LayerNorm BatchNorm Erf Erfinv Sparsemax StopGradient GaussianBlur ElasticTransform RGBToHSV
    HSVToRGB AffineTransform PerspectiveTransform Cholesky CholeskyInverse Inv ScatterUpdate SliceUpdate
"""
_FRACTIONS = """
    Angle Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Ceil Cos Cosh Floor Log Log10 Log1p Log2 Sin Sinc Sinh Sqrt Tan
    Tanh
"""
_TESTED = "Isfinite Isinf Isnan Isneginf Isposinf Isreal LogicalNot Signbit"
_COMPARED = """
    Equal Greater GreaterEqual Isclose Less LessEqual LogicalAnd LogicalOr LogicalXor NotEqual
"""
_JOINED = "Add FloorDivide Fmax Fmin Maximum Minimum Multiply Power Subtract"


def _rows(names: str, shape: ShapeOf, kind: Kind) -> dict[str, tuple[ShapeOf, Kind]]:
    return dict.fromkeys(names.split(), (shape, kind))


SINGLE: dict[str, tuple[ShapeOf, Kind]] = {
    **_rows(_SAME, shapes.same, kinds.same),
    **_rows(_FRACTIONS, shapes.same, kinds.fraction),
    **_rows("Exp Exp2 Expm1 Fabs", shapes.same, kinds.real),
    **_rows("Clip Square", shapes.same, kinds.counted),
    **_rows("Normalize Reciprocal", shapes.same, kinds.default),
    **_rows("EmptyLike FullLike OnesLike ZerosLike Cast SaturateCast ConvertToTensor", shapes.same, kinds.given),
    **_rows(_TESTED, shapes.same, kinds.truth),
    "Erfc": (shapes.same, kinds.inexact),
    "Digitize": (shapes.same, kinds.index),
    **_rows(_COMPARED, shapes.all_broadcast, kinds.truth),
    **_rows(_JOINED, shapes.all_broadcast, kinds.joined),
    **_rows("Divide DivideNoNan TrueDivide Logaddexp Logaddexp2", shapes.all_broadcast, kinds.divided),
    **_rows("Fmod Mod", shapes.all_broadcast, kinds.counted_jointly),
    "Arctan2": (shapes.all_broadcast, kinds.divided_arrays),
    "Where": (shapes.all_broadcast, kinds.chosen),
    **_rows("Amax Amin Max Min Ptp", shapes.reduced, kinds.same),
    **_rows("All Any", shapes.reduced, kinds.truth),
    **_rows("Argmax Argmin CountNonzero", shapes.reduced, kinds.index),
    **_rows("Norm Std", shapes.reduced, kinds.real),
    **_rows("Average Nanmean Nanmedian Nanstd Nanvar Var", shapes.reduced, kinds.inexact),
    **_rows("Nansum Sum", shapes.reduced, kinds.summed),
    "Logsumexp": (shapes.reduced, kinds.default),
    "Mean": (shapes.reduced, kinds.mean),
    "Median": (shapes.reduced, kinds.fraction),
    "Prod": (shapes.reduced, kinds.multiplied),
    **_rows("Cumprod Cumsum", shapes.cumulated, kinds.accumulated),
    "Argsort": (shapes.flat_without_axis, kinds.index),
    "Sort": (shapes.flat_without_axis, kinds.same),
    "DotProductAttention": (shapes.same, kinds.of_first_three),
    "InTopK": (shapes.same, kinds.truth),
    "Slice": (shapes.sliced, kinds.same),
    "Append": (shapes.concatenated, kinds.joined),
    "BroadcastTo": (shapes.given_shape, kinds.same),
    "Concatenate": (shapes.concatenated, kinds.joined),
    "Diff": (shapes.differences, kinds.same),
    "Einsum": (shapes.einsum, kinds.product),
    "ExpandDims": (shapes.expanded, kinds.same),
    "GetItem": (shapes.item, kinds.same),
    "Glu": (shapes.halved, kinds.same),
    "Hstack": (lambda call: shapes.joined_along(call, 1), kinds.joined),
    "Matmul": (shapes.product, kinds.product),
    "Moveaxis": (shapes.moved, kinds.same),
    "OneHot": (shapes.one_hot, lambda call: str(call.config.get("dtype") or "float32")),
    "Outer": (shapes.outer, kinds.joined),
    "Pad": (shapes.padded, kinds.same),
    "Ravel": (shapes.flat, kinds.same),
    "Repeat": (shapes.repeated, kinds.same),
    "Reshape": (shapes.reshaped, kinds.same),
    "Rot90": (shapes.turned, kinds.same),
    "Size": (shapes.scalar, kinds.index),
    "Squeeze": (shapes.squeezed, kinds.same),
    "Stack": (shapes.stacked, kinds.joined),
    "Swapaxes": (shapes.swapped, kinds.same),
    "Take": (shapes.taken, kinds.same),
    "TakeAlongAxis": (shapes.taken_along, kinds.same),
    "Tile": (shapes.tiled, kinds.same),
    "Transpose": (shapes.transposed, kinds.same),
    "Vdot": (shapes.scalar, kinds.joined),
    "Vstack": (lambda call: shapes.joined_along(call, 0), kinds.joined),
    **_rows("Det Logdet", shapes.square_free, kinds.same),
    **_rows("AveragePool MaxPool", images.pooled, kinds.same),
    "CropImages": (images.cropped, kinds.same),
    "DepthToSpace": (images.spread, kinds.same),
    "ExtractSequences": (images.sequences, kinds.same),
    "PadImages": (images.padded, kinds.same),
    "RGBToGrayscale": (images.gray, kinds.same),
    "Resize": (images.resized, kinds.same),
    "SpaceToDepth": (images.deepened, kinds.same),
}
# Operations that give one tensor, whose shape only what takes it says.
_OTHERS = """
    AdaptiveAveragePool AdaptiveMaxPool AllClose Arange Argpartition Array BinaryCrossentropy Bincount BitwiseAnd
    BitwiseLeftShift BitwiseOr BitwiseRightShift BitwiseXor CDist CTCLoss CategoricalCrossentropy Cbrt Conv
    ConvTranspose Corrcoef Correlate Cross Deg2rad DepthwiseConv Diag Diagflat Diagonal Dot Dstack
    ExtractPatches Fold Full Gcd Geomspace Heaviside Hypot I0 IRFFT ISTFT Imag Inner IsIn Kron Lcm Ldexp
    LeftShift Logspace Lstsq MapCoordinates MatrixRank MultiHot Nanargmax Nanargmin Nancumprod Nancumsum Nanmax Nanmin
    Nanpercentile Nanprod Nanquantile Nextafter PSNR Percentile Pinv Polar Quantile Rad2deg Real Rearrange RightShift
    SSIM ScaleAndTranslate Scatter SearchSorted SegmentMax SegmentMin SegmentProd SegmentReduction SegmentSum Select
    SeparableConv SobelEdges Solve SolveTriangular SparseCategoricalCrossentropy Tensordot Trace Trapezoid Unfold
    Vander View ViewAsComplex ViewAsReal
"""
OPERATIONS = frozenset({*SINGLE, *SEVERAL, *COUNTS, *SPLITS, "SVD", "Meshgrid", *_OTHERS.split()})
