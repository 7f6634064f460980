"""Single operations of TensorFlow through the conversion of a frozen graph, compared with TensorFlow itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tensorflow as tf
from conversion import fill

from exporter.records import Job, SourceOptions
from exporter.sources.graphs import graph_def


def compared(
    function: Callable[..., Any],
    *arrays: np.ndarray,
    folder: Path,
    opset: int = 18,
    is_open: bool = False,
    dtype: str = "keep",
) -> list[str]:
    """Computes the same in both; returns the types of the ONNX nodes. `is_open` leaves all sizes of the inputs open."""
    specs = [
        tf.TensorSpec([None] * array.ndim if is_open else array.shape, tf.as_dtype(array.dtype), f"x{number}")
        for number, array in enumerate(arrays)
    ]
    concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    path = folder / "graph.pb"
    path.write_bytes(concrete.graph.as_graph_def().SerializeToString())
    ends = SourceOptions(
        inputs=tuple(each.name for each in concrete.inputs), outputs=tuple(each.name for each in concrete.outputs)
    )
    job = Job(str(path), "", "ops", "", ("onnx",), "", "", opset=opset, reading=ends, dtype=dtype)
    structure = graph_def.open_source(job, "").structure(job)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    content = fill(structure).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
    names = [value.name for value in structure.model.graph.input]
    found = session.run(None, dict(zip(names, arrays, strict=True)))
    wanted = tf.nest.flatten(concrete(*map(tf.constant, arrays)))
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.dtype, ours.shape) == (theirs.dtype.as_numpy_dtype, theirs.shape)
        if ours.dtype.kind == "f":
            is_half = dtype == "float16" or ours.dtype == np.float16
            np.testing.assert_allclose(ours, theirs, rtol=1e-2 if is_half else 1e-4, atol=1e-2 if is_half else 1e-5)
        else:
            np.testing.assert_array_equal(ours, theirs)
    return [node.op_type for node in structure.model.graph.node]
