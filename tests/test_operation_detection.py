"""Detectors, sparse tensors and training with quantisation in mind, on the inputs that tell ways of rounding apart."""

from __future__ import annotations

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


def halves(low: Any, high: Any, bits: int) -> np.ndarray:
    """Between two steps each, and beyond the range."""
    count = min(2**bits, 300)
    steps = (np.asarray(high) - np.asarray(low)) / (2**bits - 1)
    return (np.multiply.outer(np.arange(-3, count) + 0.5, steps) + low).astype("float32")


FAKES = [pytest.param(-6.0, 6.0, 8), *(pytest.param(*each, marks=SLOW) for each in ((-0.3, 1.7, 4), (2.0, 5.0, 16)))]


@pytest.mark.parametrize(("low", "high", "bits"), FAKES)
def test_halves_are_rounded_up(tmp_path: Path, low: float, high: float, bits: int) -> None:
    def function(x: Any) -> Any:
        fake = tf.quantization.fake_quant_with_min_max_vars
        return fake(x, low, high, bits), fake(x, low, high, bits, narrow_range=True)

    ops = compared(function, halves(low, high, bits), folder=tmp_path)
    # Runtimes look for these.
    assert ops.count("QuantizeLinear") == ops.count("DequantizeLinear") == (2 if bits == 8 else 0)


@SLOW
def test_halves_of_channels_are_rounded_up(tmp_path: Path) -> None:
    low, high = [-1.0, -2.0, 0.0], [0.7, 2.1, 2.8]

    def function(x: Any) -> Any:
        fake = tf.quantization.fake_quant_with_min_max_vars_per_channel
        return [fake(x, low, high, bits, narrow_range=narrow) for bits in (8, 4) for narrow in (False, True)]

    compared(function, halves(low, high, 8), folder=tmp_path)


def test_a_range_that_is_computed_is_refused(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        return tf.quantization.fake_quant_with_min_max_vars(x, tf.reduce_min(x), tf.reduce_max(x))

    with pytest.raises(UnsupportedError, match="range is computed"):
        compared(function, halves(-1, 1, 8), folder=tmp_path)


def boxes_and_scores() -> tuple[np.ndarray, np.ndarray]:
    """Two scores are alike, and some below zero."""
    generator = np.random.default_rng(0)
    boxes = generator.uniform(0, 1, (12, 4)).astype("float32")
    boxes[:, 2:] += boxes[:, :2]
    scores = generator.uniform(-0.5, 1, 12).astype("float32")
    scores[3] = scores[7]
    return boxes, scores


@SLOW
def test_boxes_that_overlap(tmp_path: Path) -> None:
    def function(boxes: Any, scores: Any) -> Any:
        options = {"boxes": boxes, "scores": scores, "max_output_size": 7, "iou_threshold": 0.3}
        first = raw.NonMaxSuppression(**options), raw.NonMaxSuppressionV2(**options)
        return *first, *tf.image.non_max_suppression_with_scores(boxes, scores, 5, 0.3, 0.2)

    compared(function, *boxes_and_scores(), folder=tmp_path)


@SLOW
def test_scores_that_sink_are_refused(tmp_path: Path) -> None:
    def function(boxes: Any, scores: Any) -> Any:
        return tf.image.non_max_suppression_with_scores(boxes, scores, 5, 0.3, 0.2, soft_nms_sigma=0.5)

    with pytest.raises(UnsupportedError, match="soft_nms_sigma"):
        compared(function, *boxes_and_scores(), folder=tmp_path)


def test_sparse_tensors_become_dense(tmp_path: Path) -> None:
    def function(places: Any, values: Any) -> Any:
        dense = raw.SparseToDense
        of_type = [
            dense(sparse_indices=places, output_shape=[5], sparse_values=each, default_value=tf.cast(1, each.dtype))
            for each in (values, tf.cast(values, tf.int8), tf.cast(values, tf.bool))
        ]
        rows = tf.stack([places, places], 1)
        one_value = dense(sparse_indices=rows, output_shape=[5, 4], sparse_values=values[0], default_value=-1.0)
        return *of_type, one_value, dense(sparse_indices=places[0], output_shape=[3], sparse_values=2, default_value=0)

    compared(function, np.array([1, 3], "int32"), np.array([0, 2.5], "float32"), folder=tmp_path)


def test_powers_of_whole_numbers_wrap_around(tmp_path: Path) -> None:
    x = np.array([0, 1, -3, 100, 2**31 - 1], "int32")
    compared(lambda x: [tf.pow(x, each) for each in (0, 1, 2, 13)], x, folder=tmp_path)


@SLOW
def test_rows_that_are_filled_are_in_their_places(tmp_path: Path) -> None:
    def function(values: Any) -> Any:
        sparse = tf.sparse.SparseTensor([[1, 0], [1, 2], [3, 1]], values, [5, 3])
        filled, is_empty = tf.sparse.fill_empty_rows(sparse, -1.0)
        return filled.indices, filled.values, is_empty

    compared(function, np.array([0.5, 2, 3], "float32"), folder=tmp_path)


@SLOW
def test_colours_do_not_go_beyond_their_ends(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).uniform(0, 1, (2, 4, 5, 3)).astype("float32")
    colours[0, 0, 0], colours[0, 0, 1], colours[0, 0, 2] = 0, 0.5, (1, 0, 0)
    adjust = tf.image.adjust_saturation
    compared(lambda x: [adjust(x, factor) for factor in (0.0, 0.5, 1.0, 4.0)], colours, folder=tmp_path)


@SLOW
@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_text_of_fractions_is_refused(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(UnsupportedError, match="other digits"):
        compared(tf.strings.as_string, np.array([0, 1]).astype(dtype), folder=tmp_path)


@SLOW
def test_chance_is_noted(tmp_path: Path) -> None:
    concrete = tf.function(lambda x: x + tf.random.uniform([3], seed=1)).get_concrete_function(tf.TensorSpec([3]))
    (tmp_path / "g.pb").write_bytes(concrete.graph.as_graph_def().SerializeToString())
    ends = {"inputs": (concrete.inputs[0].name,), "outputs": (concrete.outputs[0].name,)}
    outcome = export_here(tmp_path / "g.pb", tmp_path / "out", verify=False, **ends)
    assert outcome.error is None, outcome.error
    assert "RandomUniform: ONNX Runtime draws other numbers than TensorFlow, with any seed" in outcome.notes
