"""The latency of two ONNX files of one model in ONNX Runtime."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, NotImplemented

WARM_UP_RUNS = 3
# The default size of the networks that take images of any size (`MobileNetV3`).
OPEN_SIZE = 224


@dataclass(frozen=True)
class Latency:
    """Medians over the runs; `difference` is the largest one between outputs, relative to the largest magnitude."""

    our_seconds: float
    their_seconds: float
    difference: float

    @property
    def ratio(self) -> float:
        return self.our_seconds / self.their_seconds


class RefusedError(Exception):
    """ONNX Runtime does not load the other tool's file."""


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def latencies(ours: Path, theirs: Path, repeat: int) -> Latency:
    """One image at the default size, in turn through both, so that a slow minute of the machine meets both.

    Raises RefusedError when ONNX Runtime does not load theirs.
    """
    try:
        sessions = [session(ours), session(theirs)]
    except (Fail, InvalidGraph, NotImplemented) as error:
        if str(ours) in str(error):
            raise
        raise RefusedError(type(error).__name__) from error
    (shape,) = {image_shape(s) for s in sessions}
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    outputs = [run_once(s, image)[1] for s in sessions]
    seconds: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP_RUNS + repeat):
        for s, of_session in zip(sessions, seconds, strict=True):
            taken, _ = run_once(s, image)
            if number >= WARM_UP_RUNS:
                of_session.append(taken)
    difference = np.max(np.abs(outputs[0] - outputs[1])) / np.max(np.abs(outputs[1]))
    return Latency(median(seconds[0]), median(seconds[1]), float(difference))


def image_shape(of_model: onnxruntime.InferenceSession) -> tuple[int, ...]:
    """One image; the sizes that the model leaves open have names in place of numbers."""
    shape = of_model.get_inputs()[0].shape[1:]
    return 1, *(size if isinstance(size, int) else OPEN_SIZE for size in shape)


def run_once(of_model: onnxruntime.InferenceSession, image: np.ndarray) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    (output,) = of_model.run(None, {of_model.get_inputs()[0].name: image})
    return time.perf_counter() - start, output
