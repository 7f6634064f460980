"""Operations that tf2onnx converts into something else, on the inputs that show it, against TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from exporting import export_here
from operations import compared

from exporter.errors import UnsupportedError

raw = tf.raw_ops
SLOW = pytest.mark.slow
NUMBERS = np.random.default_rng(0)
DIVIDENDS, DIVISORS = (
    each.reshape(-1) for each in np.meshgrid([-100, -7, -6, -1, 0, 1, 5, 6, 7, 100], [-7, -3, -1, 1, 2, 3])
)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Those of a test do not depend on what ran before it."""
    NUMBERS.bit_generator.state = np.random.default_rng(0).bit_generator.state


def normal(*shape: int) -> np.ndarray:
    return NUMBERS.standard_normal(shape).astype("float32")


@pytest.mark.parametrize("dtype", ["int32", *(pytest.param(each, marks=SLOW) for each in ("int8", "int64"))])
def test_whole_numbers_below_zero(tmp_path: Path, dtype: str) -> None:
    def arithmetic(x: Any, y: Any) -> Any:
        shifts = tf.abs(y)
        results = [raw.FloorDiv(x=x, y=y), raw.FloorMod(x=x, y=y), raw.TruncateDiv(x=x, y=y)]
        results += [raw.RightShift(x=x, y=shifts), raw.LeftShift(x=x, y=shifts)]
        if dtype != "int8":
            results += [raw.Mod(x=x, y=y), raw.TruncateMod(x=x, y=y), tf.add_n([x, y, x])]
        return results

    compared(arithmetic, DIVIDENDS.astype(dtype), DIVISORS.astype(dtype), folder=tmp_path)


def test_remainders_of_fractions(tmp_path: Path) -> None:
    values = np.array([-np.inf, -7.5, -3, -0.3, 0, 0.3, 3, 7.5], "float32")
    divisors = np.array([-np.inf, -3, -0.1, 0.1, 0.5, 3, np.inf], "float32")
    x, y = (each.reshape(-1) for each in np.meshgrid(values, divisors))
    compared(lambda x, y: [raw.FloorMod(x=x, y=y), raw.Mod(x=x, y=y)], x, y, folder=tmp_path)


def test_buckets_and_old_names(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        return raw.Bucketize(input=x, boundaries=[0.0, 1.0, 2.0]), raw.Inv(x=x), tf.math.log1p(tf.abs(x))

    compared(function, np.array([[-1, 0.5, 1], [2, 3, np.nan]], "float32"), folder=tmp_path)


@pytest.mark.slow
def test_where_numbers_would_be_sorted_in(tmp_path: Path) -> None:
    def function(numbers: Any, values: Any) -> Any:
        whole = tf.cast(numbers, tf.int32), tf.cast(values, tf.int32)
        return [tf.searchsorted(*each, side=side) for each in ((numbers, values), whole) for side in ("left", "right")]

    values = np.array([[0, 1, 2.5, 3, 9], [0, 1, 2, 2, 3]], "float32")
    compared(function, np.array([[1, 2, 2, 3], [2, 2, 2, 2]], "float32"), values, folder=tmp_path)


@pytest.mark.slow
def test_what_is_scattered_to_one_place_adds_up(tmp_path: Path) -> None:
    indices = np.array([[1], [1], [3], [1]], "int32")

    def function(indices: Any, rows: Any) -> Any:
        return tf.scatter_nd(indices, rows, [5, 3]), tf.scatter_nd(indices, tf.cast(rows * 9, tf.int32), [5, 3])

    compared(function, indices, normal(4, 3), folder=tmp_path)
    with pytest.raises(UnsupportedError, match="--opset 16"):
        compared(function, indices, normal(4, 3), folder=tmp_path, opset=15)
    compared(lambda rows: tf.scatter_nd([[1], [0]], rows, [3, 2]), normal(2, 2), folder=tmp_path, opset=15)


@pytest.mark.slow
def test_gathers_that_count_from_the_end(tmp_path: Path) -> None:
    def function(x: Any, index: Any) -> Any:
        return tf.gather(x, index, batch_dims=-1), tf.gather(x, index[:, 0], axis=-1, batch_dims=1)

    compared(function, normal(3, 4, 5), NUMBERS.integers(0, 5, (3, 4, 2)).astype("int32"), folder=tmp_path)


def test_slices_whose_ends_are_computed(tmp_path: Path) -> None:
    def function(x: Any, start: Any, size: Any) -> Any:
        masked = tf.strided_slice(x, start + 1, size + 3, [1, 2, 1], begin_mask=3, end_mask=1)
        return tf.slice(x, start, size), masked

    arrays = normal(4, 5, 6), np.array([0, 2, 1], "int32"), np.array([-1, 2, -1], "int32")
    compared(function, *arrays, folder=tmp_path)


@SLOW
def test_sequences_along_any_axis(tmp_path: Path) -> None:
    def function(x: Any, lengths: Any) -> Any:
        return [
            tf.reverse_sequence(x, lengths, seq_axis=seq, batch_axis=batch)
            for seq, batch in ((2, 0), (0, 1), (1, 2), (2, 1))
        ]

    compared(function, normal(3, 3, 3, 2), np.array([1, 0, 3], "int64"), folder=tmp_path)


@pytest.mark.slow
def test_matrices_of_a_batch(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        parts = [tf.linalg.band_part(x, *sides) for sides in ((1, 0), (-1, 0), (0, -1), (2, 1))]
        return *parts, tf.eye(tf.shape(x)[1], batch_shape=[2]) + x[0, 0, 0]

    x = normal(2, 4, 4)
    x[:, 3, 0], x[:, 0, 3] = np.nan, np.inf
    x[0, 0, 0] = 1
    compared(function, x, folder=tmp_path, is_open=True)


@pytest.mark.parametrize("condition", [np.array(False), np.array([True, False, True])])
def test_what_is_not_chosen_does_not_count(tmp_path: Path, condition: np.ndarray) -> None:
    infinite = np.full((3, 4), np.inf, "float32")
    infinite[0] = np.nan
    compared(lambda c, x, y: raw.Select(condition=c, x=x, y=y), condition, infinite, normal(3, 4), folder=tmp_path)


SEGMENTS = [tf.math.segment_sum, tf.math.segment_mean, tf.math.segment_prod, tf.math.segment_max, tf.math.segment_min]
UNSORTED = [
    tf.math.unsorted_segment_sum,
    tf.math.unsorted_segment_mean,
    tf.math.unsorted_segment_prod,
    tf.math.unsorted_segment_max,
    tf.math.unsorted_segment_min,
]


@pytest.mark.slow
@pytest.mark.parametrize("is_open", [False, pytest.param(True, marks=SLOW)])
def test_segments_without_rows(tmp_path: Path, is_open: bool) -> None:
    def function(x: Any, numbers: Any) -> Any:
        whole = tf.cast(x * 9, tf.int32)
        return [
            segment(each, numbers) for segment in SEGMENTS for each in ([x] if "mean" in str(segment) else [x, whole])
        ]

    compared(function, normal(5, 3), np.array([0, 0, 1, 3, 3], "int32"), folder=tmp_path, is_open=is_open)


@pytest.mark.slow
@pytest.mark.parametrize("numbers", [[2, 0, 2, -1, 1], [[2, 0, 0], [1, -1, 4], [1, 1, 1], [2, 2, 0], [-1, 3, 3]]])
def test_segments_in_any_order(tmp_path: Path, numbers: Any) -> None:
    def function(x: Any, numbers: Any) -> Any:
        return [segment(x, numbers, 5) for segment in UNSORTED]

    compared(function, normal(5, 3, 2), np.array(numbers, "int32"), folder=tmp_path)


@SLOW
def test_segments_of_chosen_rows(tmp_path: Path) -> None:
    def function(x: Any, rows: Any, numbers: Any) -> Any:
        segments = (tf.sparse.segment_sum, tf.sparse.segment_mean, tf.sparse.segment_sqrt_n)
        return [segment(x, rows, numbers, count) for segment in segments for count in (None, 6)]

    arrays = normal(6, 3), np.array([5, 0, 0, 2, 1], "int32"), np.array([0, 0, 1, 3, 3], "int32")
    compared(function, *arrays, folder=tmp_path)


IMAGE = normal(2, 5, 7, 3)
RESIZES: dict[str, Callable[[Any, Any], Any]] = {
    "area": lambda x, size: [raw.ResizeArea(images=x, size=size, align_corners=each) for each in (False, True)],
    "cubic": lambda x, size: [
        raw.ResizeBicubic(images=x, size=size),
        raw.ResizeBicubic(images=x, size=size, align_corners=True),
        raw.ResizeBicubic(images=x, size=size, half_pixel_centers=True),
    ],
    "kernels": lambda x, size: [
        tf.image.resize(x, size, kernel) for kernel in ("lanczos3", "lanczos5", "gaussian", "mitchellcubic")
    ],
    "antialias": lambda x, size: [
        tf.image.resize(x, size, kernel, antialias=True) for kernel in ("bilinear", "bicubic", "lanczos3")
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("size", [(3, 11), *(pytest.param(each, marks=SLOW) for each in ((1, 1), (4, 20)))])
@pytest.mark.parametrize("name", RESIZES)
def test_resizes_that_onnx_has_not(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    compared(lambda x: RESIZES[name](x, np.array(size, "int32")), IMAGE, folder=tmp_path)


@SLOW
def test_an_older_cubic_that_only_enlarges(tmp_path: Path) -> None:
    """Up to what TensorFlow's table of 1024 coefficients rounds: these sizes hit its entries."""
    compared(lambda x: raw.ResizeBicubic(images=x, size=[10, 14]), IMAGE, folder=tmp_path)


def test_an_area_of_an_image_of_unknown_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="--input-shape"):
        compared(lambda x: raw.ResizeArea(images=x, size=[3, 3]), IMAGE, folder=tmp_path, is_open=True)


def test_the_nearest_pixel_of_a_crop(tmp_path: Path) -> None:
    boxes = np.array([[0, 0, 1, 1], [0.1, 0.2, 0.7, 0.9]], "float32")
    index = np.array([0, 1], "int32")

    def function(x: Any, boxes: Any, index: Any) -> Any:
        return tf.image.crop_and_resize(x, boxes, index, (4, 5), method="nearest")

    compared(function, IMAGE, boxes, index, folder=tmp_path)


@pytest.mark.slow
def test_numbers_that_are_no_class(tmp_path: Path) -> None:
    def function(index: Any) -> Any:
        marked = [tf.one_hot(index, 4, 2.0, -1.0, axis=axis) for axis in (-1, 0, 1)]
        return *marked, *(tf.one_hot(index[0], 4, dtype=each) for each in (tf.float32, tf.int64, tf.uint8, tf.float64))

    compared(function, np.array([[0, 3, -1], [4, 1, -100]], "int32"), folder=tmp_path)


@pytest.mark.slow
def test_permutations_and_stitches(tmp_path: Path) -> None:
    def function(order: Any, x: Any) -> Any:
        return tf.math.invert_permutation(order), tf.dynamic_stitch([[0, 3], [2, 1]], [x, x + 1])

    compared(function, np.array([2, 0, 3, 1], "int32"), normal(2, 3), folder=tmp_path)
    with pytest.raises(UnsupportedError, match="fills a place twice"):
        compared(lambda x: tf.dynamic_stitch([[0, 1], [1, 2]], [x, x]), normal(2, 3), folder=tmp_path)


@pytest.mark.slow
def test_dilated_convolutions_of_images_of_any_size(tmp_path: Path) -> None:
    kernel = normal(3, 2, 3, 4)

    def function(x: Any) -> Any:
        return tf.nn.conv2d(x, kernel, 1, "SAME", dilations=(3, 2)), tf.nn.conv2d(x, kernel, 2, "SAME")

    compared(function, IMAGE, folder=tmp_path, is_open=True)


def by_number(number: Any, x: Any) -> Any:
    """A branch in a branch, a loop in one, and one that is there twice."""
    inner = [lambda: x * 3, lambda: tf.cond(number > 4, lambda: x * 5, lambda: x * 7)]
    loop = lambda: tf.while_loop(lambda i, y: i < number, lambda i, y: (i + 1, y * 2), [0, x])[1]  # noqa: E731
    return tf.switch_case(number, [lambda: x, lambda: tf.switch_case(number * 2 - 3, inner), loop])


@pytest.mark.parametrize("number", [1, *(pytest.param(each, marks=SLOW) for each in (0, 2, 7, -1))])
def test_branches_by_number(tmp_path: Path, number: int) -> None:
    compared(by_number, np.array(number, "int32"), normal(3), folder=tmp_path)


@SLOW
@pytest.mark.parametrize("count", [1, 6])
def test_any_number_of_branches(tmp_path: Path, count: int) -> None:
    def function(number: Any, x: Any) -> Any:
        branches = [lambda factor=factor: (x * factor, x[:1]) for factor in range(count)]
        return [tf.switch_case(number + shift, branches) for shift in (-9, 0, 1, 9)]

    compared(function, np.array(count // 2, "int32"), normal(3), folder=tmp_path)


class Chooser(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tables = [tf.Variable(normal(4, 3)) for _ in range(3)]

    @tf.function(
        input_signature=[tf.TensorSpec((2, 4), tf.float32, name="x"), tf.TensorSpec((), tf.int32, name="number")]
    )
    def __call__(self, x: Any, number: Any) -> Any:
        return {"y": tf.switch_case(number, [lambda table=table: x @ table for table in self.tables])}


@SLOW
def test_variables_of_branches_by_number(tmp_path: Path) -> None:
    tf.saved_model.save(Chooser(), str(tmp_path / "saved"))
    outcome = export_here(tmp_path / "saved", tmp_path / "out")
    assert outcome.error is None, outcome.error
    assert outcome.verification is not None
    assert (outcome.verification.status, outcome.verification.reason) == ("passed", "")


@pytest.mark.slow
def test_round_trips_through_eight_bits(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        trip = tf.quantization.quantize_and_dequantize_v2
        whole = trip(x, -1.0, 2.0, range_given=True), trip(x, 0.0, 2.0, signed_input=False, range_given=True)
        return *whole, trip(x, -2.0, 1.0, narrow_range=True, range_given=True)

    compared(function, normal(3, 4) * 3, folder=tmp_path)


@pytest.mark.parametrize(("option", "why"), [({"num_bits": 4}, "4 bits"), ({"round_mode": "HALF_UP"}, "halves up")])
def test_round_trips_that_onnx_has_not(tmp_path: Path, option: dict[str, Any], why: str) -> None:
    def function(x: Any) -> Any:
        return tf.quantization.quantize_and_dequantize_v2(x, -1.0, 2.0, range_given=True, **option)

    with pytest.raises(UnsupportedError, match=why):
        compared(function, normal(3, 4), folder=tmp_path)


@pytest.mark.parametrize(("given", "dtype"), [("float32", "float16"), ("float16", "keep")])
def test_what_is_scattered_in_half_precision(tmp_path: Path, given: str, dtype: str) -> None:
    """ONNX Runtime has no kernel that adds it up."""

    def function(indices: Any, rows: Any) -> Any:
        return tf.scatter_nd(indices, rows, [5, 3]), tf.math.segment_mean(rows, [0, 0, 2, 2])

    arrays = np.array([[1], [1], [3], [1]], "int32"), normal(4, 3).astype(given)
    compared(function, *arrays, folder=tmp_path, dtype=dtype)
