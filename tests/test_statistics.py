"""Statistics of tensors against NumPy on the whole array."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import hypothesis.extra.numpy as arrays_of
import keras
import ml_dtypes
import numpy as np
import pyarrow.parquet as pq
import pytest
from exporting import export_here
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.lazy import LazyArray
from exporter.records import TensorStatistics
from exporter.schema import TENSORS
from exporter.statistics import Surveyor
from exporter.tensor_statistics import HISTOGRAM_BINS, QUANTILES

FLOATS = ["float16", "float32", "float64", "bfloat16"]
REAL = [*FLOATS, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"]
RELATIVE_ERROR = 2.0**-8


def dtype_of(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def measured(array: np.ndarray, step: int = 7) -> TensorStatistics:
    flat = array.reshape(-1)
    pieces = (flat[start : start + step] for start in range(0, flat.size, step))
    with Surveyor() as surveyor:
        return surveyor.measure(pieces, array.shape, array.dtype)


# Squares of smaller numbers are zero in float64, so that deviation and norm may be, too (docs/statistics.md).
SQUARES_VANISH = 1e-154


def close(found: float | None, wanted: float, scale: float) -> bool:
    return found is not None and (found == wanted or abs(found - wanted) <= 1e-12 * scale + SQUARES_VANISH)


def check(array: np.ndarray, found: TensorStatistics) -> None:
    """Everything that NumPy can say about the array in memory."""
    wide = array.astype(np.longdouble).reshape(-1)
    finite = wide[np.isfinite(wide)]
    assert found.sha256 == hashlib.sha256(array.tobytes()).hexdigest()
    assert (found.zeros, found.nans, found.infs) == (
        int((wide == 0).sum()),
        int(np.isnan(wide).sum()),
        int(np.isinf(wide).sum()),
    )
    distinct = len(np.unique(wide))
    assert found.distinct == (distinct if distinct <= 256 else None)
    if not finite.size:
        assert found.min is found.max is found.mean is found.quantiles is found.histogram_counts is None
        return
    assert (found.min, found.max) == (float(finite.min()), float(finite.max()))
    magnitude = float(np.abs(finite).max())
    # Differences of long double, because float64 has no room for the squares of its own largest numbers.
    deviation = float(np.sqrt(np.mean((finite - finite.mean()) ** 2)))
    norm = np.sqrt(np.sum(finite**2))
    assert close(found.mean, float(finite.mean()), magnitude)
    assert close(found.std, deviation, magnitude)
    assert close(found.l2_norm, float(norm), magnitude * math.sqrt(finite.size))
    wanted = np.quantile(finite, QUANTILES, method="lower").astype(np.float64)
    assert found.quantiles is not None
    np.testing.assert_allclose(found.quantiles, wanted, rtol=RELATIVE_ERROR, atol=2.0**-133)
    assert found.histogram_edges is not None
    assert found.histogram_counts is not None
    assert len(found.histogram_edges) == len(found.histogram_counts) + 1
    assert sum(found.histogram_counts) == finite.size
    assert (found.histogram_edges[0], found.histogram_edges[-1]) == (found.min, found.max)


@pytest.mark.parametrize("name", REAL)
def test_random_elements(name: str) -> None:
    random = np.random.default_rng(0)
    check_both(((random.standard_normal((50, 41)) * 40) + 60).astype(dtype_of(name)))


def check_both(array: np.ndarray) -> None:
    check(array, measured(array))
    check(array, measured(array, step=max(array.size, 1)))


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0)])
def test_few_elements(name: str, shape: tuple[int, ...]) -> None:
    check_both(np.ones(shape, dtype_of(name)))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
        lambda dtype: arrays_of.arrays(dtype, st.integers(0, 40))
    ),
    st.integers(1, 50),
)
def test_odd_floats(array: np.ndarray, step: int) -> None:
    """Denormals, -0.0, infinities, NaN and numbers whose squares float64 cannot hold."""
    check(array, measured(array, step))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["int8", "int32", "int64", "uint64"]).flatmap(
        lambda dtype: arrays_of.arrays(dtype, st.integers(0, 40))
    ),
    st.integers(1, 50),
)
def test_odd_integers(array: np.ndarray, step: int) -> None:
    check(array, measured(array, step))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nan_with_a_single_bit_is_no_infinity(dtype: str) -> None:
    bits = np.dtype(dtype.replace("float", "uint"))
    infinity = np.array([np.inf, -np.inf, 1], dtype).view(bits)
    infinity[:1] += 1
    found = measured(infinity.view(dtype))
    assert (found.nans, found.infs, found.min) == (1, 1, 1.0)


def test_bfloat16_has_every_value_in_a_bucket() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    check(every, measured(every, 1000))


def test_cancellation_does_not_hurt_the_deviation() -> None:
    """The sum of squares would lose all digits at a mean of 1e8 with a deviation of 1."""
    array = 1e8 + np.random.default_rng(1).standard_normal(20_000)
    found = measured(array, 777)
    assert found.std == pytest.approx(float(np.std(array.astype(np.longdouble))), rel=1e-9)
    assert found.mean == pytest.approx(math.fsum(array) / array.size, rel=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "float64"])
def test_dead_filters(dtype: str) -> None:
    kernel = np.ones((3, 3, 4, 10), dtype)
    kernel[..., [2, 7]] = 0
    kernel[0, :, :, 3] = 0
    for step in (1, 7, 64, kernel.size):
        assert measured(kernel, step).dead_filters == 2
    assert measured(np.zeros((4, 5), dtype)).dead_filters == 5
    assert measured(np.zeros(5, dtype)).dead_filters is None


def test_dead_filters_of_negative_zeros() -> None:
    assert measured(np.full((4, 5), -0.0, np.float16)).dead_filters == 5


@pytest.mark.parametrize("count", [256, 257, 258])
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint16"])
def test_distinct_elements_up_to_the_limit(count: int, dtype: str) -> None:
    array = np.tile(np.arange(count), 5).astype(dtype)
    for step in (100, array.size):
        assert measured(array, step).distinct == (count if count <= 256 else None)


def test_distinct_counts_zeros_and_nan_once() -> None:
    array = np.array([0.0, -0.0, np.nan, -np.nan, 1, *np.arange(2, 255)], np.float32)
    assert measured(array, 300).distinct == 256


def test_the_histogram_is_numpys_when_values_are_exact() -> None:
    array = np.random.default_rng(2).integers(-128, 128, 5000).astype(np.int8)
    found = measured(array)
    counts, edges = np.histogram(array.astype(np.float64), HISTOGRAM_BINS)
    assert found.histogram_counts == tuple(counts)
    np.testing.assert_allclose(found.histogram_edges, edges)


def test_the_histogram_moves_only_elements_near_an_edge() -> None:
    array = np.random.default_rng(3).standard_normal(100_000).astype(np.float32)
    found = measured(array, 2**14)
    assert found.histogram_edges is not None
    assert found.histogram_counts is not None
    at_most = 2 * sum((np.abs(array - edge) <= RELATIVE_ERROR * abs(edge)).sum() for edge in found.histogram_edges)
    wanted = np.histogram(array, np.array(found.histogram_edges))[0]
    assert np.abs(wanted - found.histogram_counts).sum() <= at_most


def test_near_zeros() -> None:
    assert measured(np.array([1, 0, 1e-9, -1e-9, 1e-3], np.float32)).near_zeros == 2


def test_complex_numbers_are_only_counted() -> None:
    found = measured(np.array([0, 1j, np.nan, np.inf], np.complex64))
    assert (found.zeros, found.nans, found.infs) == (1, 1, 1)
    assert found.min is found.mean is found.distinct is found.quantiles is None


def test_of_a_dtype_without_buckets_only_the_digest_is_known() -> None:
    elements = np.arange(4).astype(ml_dtypes.float4_e2m1fn)
    sha256 = hashlib.sha256(elements.tobytes()).hexdigest()
    assert measured(elements) == TensorStatistics(sha256=sha256)


def test_a_tensor_is_never_in_memory_as_a_whole() -> None:
    """Only pieces of the asked size are made, each once."""
    made: list[int] = []

    def part(start: int, stop: int) -> np.ndarray:
        made.append(stop - start)
        return np.zeros(stop - start, np.float32)

    array = LazyArray((64, 2**16), np.float32, lambda: pytest.fail("made as a whole"), part=part)
    with Surveyor() as surveyor:
        surveyor.measure(array.pieces(2**16), array.shape, array.dtype)
    assert max(made) == 2**14
    assert sum(made) == array.size


def test_the_same_whatever_the_threads_do() -> None:
    array = np.random.default_rng(4).standard_normal(50_000).astype(np.float32)
    assert len({measured(array, 999) for _ in range(5)}) == 1


def test_every_column_is_in_the_schema() -> None:
    names = TENSORS.names
    assert names[names.index("min") :] == list(vars(TensorStatistics()))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    path = tmp_path_factory.mktemp("statistics") / "small.keras"
    model.save(path)
    return path


def rows(folder: Path) -> Iterator[dict[str, object]]:
    yield from pq.read_table(folder / "tensors.parquet").to_pylist()


@pytest.mark.parametrize("stats", [True, False])
@pytest.mark.slow
def test_an_export_writes_them_when_asked(archive: Path, tmp_path: Path, stats: bool) -> None:
    outcome = export_here(archive, tmp_path, formats=("parquet",), stats=stats)
    assert outcome.status == "done", outcome.error
    values = {weight.path: weight.numpy() for weight in keras.saving.load_model(archive).weights}
    for row in rows(Path(outcome.output_path)):
        sha256 = hashlib.sha256(values[str(row["tensor"])].tobytes()).hexdigest()
        assert row["sha256"] == (sha256 if stats else None)
        assert (row["mean"] is not None) is stats
