"""What differences between outputs mean. Arithmetic only: nothing here knows Keras or ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import ml_dtypes  # noqa: F401 (teaches NumPy the name bfloat16)
import numpy as np

from exporter.records import OutputDifference, Verification

# JSON knows no infinity.
LARGEST = float(np.finfo(np.float64).max)
# An output that varies by less than this part of its magnitude is a constant for all that a comparison can say.
SMALLEST_SPREAD = 1e-6


def compare(
    names: Sequence[str],
    expected: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    atol: float,
    rtol: float,
    samples: int = 1,
) -> Verification:
    """`passed` when every output has the source's shape and stays within its limit.

    Where the first axis of an output counts the `samples`, each has a limit of its own: one with large values does not
    excuse another.
    """
    expected, found = (list(map(comparable, arrays)) for arrays in (expected, found))
    if [array.shape for array in expected] != [array.shape for array in found]:
        shapes = f"{[list(array.shape) for array in found]} instead of {[list(array.shape) for array in expected]}"
        return Verification("mismatch", f"the outputs have the shapes {shapes}")
    rows = tuple(_worst(*item, atol, rtol, samples) for item in zip(names, expected, found, strict=True))
    worst = [row for row in rows if not row.max_abs <= row.limit]
    if worst:
        reason = "; ".join(f"{row.output} differs by {row.max_abs:.3g}, allowed is {row.limit:.3g}" for row in worst)
        return Verification("mismatch", reason, outputs=rows)
    if expected and not any(array.size for array in expected):
        return Verification("passed", "the source's outputs are empty, so this says nothing", outputs=rows)
    constant = expected and all(array.size > 1 and _spread(array) < SMALLEST_SPREAD for array in expected)
    return Verification(
        "passed", "the source's output hardly varies, so this says little" if constant else "", outputs=rows
    )


def judge(
    names: Sequence[str],
    expected: Sequence[np.ndarray],
    found: Sequence[np.ndarray],
    moved: Sequence[np.ndarray],
    atol: float,
    rtol: float,
) -> Verification:
    """The verdict on a mismatch, given what the source makes of perturbed inputs (`moved`).

    Deep untrained networks can be chaotic: their own output changes beyond any limit when the input changes by one
    part in a million, and then no two correct implementations agree. Samples (the first axis, where all outputs have
    the same number) in which that is so are left out; if none is left, nothing can be concluded.
    """
    samples = (
        range(len(expected[0])) if len({array.shape[:1] for array in expected}) == 1 and expected[0].ndim else (...,)
    )
    verdicts = []
    for sample in samples:
        parts = [[array[sample] for array in arrays] for arrays in (expected, found, moved)]
        if compare(names, parts[0], parts[2], atol, rtol).status == "passed":
            verdicts.append(compare(names, parts[0], parts[1], atol, rtol))
    chaotic = "the source's own output changes beyond the limit when its input changes by one part in a million"
    if not verdicts:
        return Verification("skipped", f"{chaotic}: nothing can be concluded; trained weights would tell")
    worst = next((verdict for verdict in verdicts if verdict.status == "mismatch"), verdicts[0])
    left_out = len(samples) - len(verdicts)
    if worst.status == "passed" and left_out:
        return replace(worst, reason=f"{left_out} of {len(samples)} samples left out, in which {chaotic}")
    return worst


def _spread(array: np.ndarray) -> float:
    """The range of the values as a part of the largest magnitude; 0 for a constant."""
    if array.dtype.kind == "U":
        return float(len(np.unique(array)) > 1)
    values = array.astype(np.float64)
    values = values[np.isfinite(values)]
    magnitude = np.max(np.abs(values), initial=0.0)
    return float(np.ptp(values) / magnitude) if magnitude else 0.0


def _worst(
    name: str, expected: np.ndarray, found: np.ndarray, atol: float, rtol: float, samples: int
) -> OutputDifference:
    """The sample that comes closest to its limit, or exceeds it by most."""
    if samples == 1 or expected.shape[:1] != (samples,):
        return _difference(name, expected, found, atol, rtol)
    rows = [_difference(name, *pair, atol, rtol) for pair in zip(expected, found, strict=True)]
    worst = max(rows, key=lambda row: row.max_abs / row.limit if row.limit else row.max_abs)
    return replace(worst, shape=tuple(expected.shape))


def _difference(name: str, expected: np.ndarray, found: np.ndarray, atol: float, rtol: float) -> OutputDifference:
    if expected.dtype.kind == "U":
        # Text is the same or it is not.
        expected, found = np.zeros(expected.shape), np.asarray(expected != found)
    a, b = expected.astype(np.float64), found.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", over="ignore"):
        gaps = np.where(same, 0.0, np.abs(a - b))
    gaps = np.nan_to_num(gaps, nan=LARGEST, posinf=LARGEST)
    magnitude = float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0))
    largest = float(np.max(gaps, initial=0.0))
    relative = min(largest / magnitude, LARGEST) if magnitude else 0.0 if largest == 0 else LARGEST
    return OutputDifference(name, tuple(expected.shape), largest, relative, min(atol + rtol * magnitude, LARGEST / 2))


def comparable(array: np.ndarray) -> np.ndarray:
    """NumPy's files know no bfloat16, and text only of a fixed length; texts may be bytes."""
    if array.dtype.kind in "OS":
        texts = [each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in array.flat]
        return np.array(texts, dtype=str).reshape(array.shape)
    return array.astype(np.float32) if array.dtype.kind == "V" or array.dtype.name == "bfloat16" else array
