"""Weights of every dtype: they keep it and their values, the result runs, and what a conversion loses is said."""

from __future__ import annotations

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as runtime
import pyarrow.parquet
import pytest
from conversion import Converted, convert, random_inputs, run_keras, run_onnx
from exporting import export_here, initializers
from keras import layers
from onnx import TensorProto, helper
from test_archives import values

from exporter.errors import UnsupportedError, UsageError
from exporter.lazy import LazyArray
from exporter.options import ExportOptions, checked
from exporter.sources.conversion import kernels
from exporter.sources.conversion.precision import Losses, StoredArray, stored_nbytes, value_grows

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
# Relative to the largest value of an output; half precision keeps 8 and 11 bits, in Keras's own result too.
TOLERANCE = {"bfloat16": 4e-2, "float16": 1e-2}


def image() -> keras.Model:
    """A kernel with a norm behind it, ops without float64 kernels, ops that overflow float16."""
    inputs = x = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Activation("gelu")(x)
    x = layers.AveragePooling2D(2)(x)
    x = layers.Activation("softplus")(x * 8.0)
    x = layers.UpSampling2D(interpolation="bilinear", name="up")(x)
    x = layers.GroupNormalization(2, name="groups")(x * 8.0)
    x = layers.GlobalMaxPooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, name="head")(x), name="image")


def words() -> keras.Model:
    """Attention by hand: Keras cannot load a quantised `MultiHeadAttention`."""
    inputs = keras.Input((7,), dtype="int32", name="words")
    x = layers.Embedding(40, 32, name="table")(inputs)
    query, key, value = (layers.EinsumDense("abc,cde->abde", (None, 4, 8), name=name)(x) for name in "qkv")
    weights = keras.ops.softmax(keras.ops.einsum("aecd,abcd->acbe", key, query) / math.sqrt(8))
    mixed = layers.EinsumDense("abcd,cde->abe", (None, 32), bias_axes="e", name="o")(
        keras.ops.einsum("acbe,aecd->abcd", weights, value)
    )
    x = layers.LayerNormalization(name="ln")(x + mixed)
    return keras.Model(inputs, layers.Dense(40, name="out")(x), name="words")


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def with_policy(policy: str, build: Callable[[], keras.Model]) -> Callable[[], keras.Model]:
    def built() -> keras.Model:
        keras.config.set_dtype_policy(policy)
        try:
            return build()
        finally:
            keras.config.set_dtype_policy("float32")

    return built


def fill(model: keras.Model, seed: int = 0) -> keras.Model:
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        value = generator.standard_normal(weight.shape) * 0.4
        positive = "variance" in weight.path or "gamma" in weight.path
        weight.assign(keras.ops.cast(np.abs(value) + 0.5 if positive else value, weight.dtype))
    return model


def quantised(mode: str) -> keras.Model:
    model = fill(words())
    model.quantize(mode)
    return model


def stored_dtypes(converted: Converted) -> dict[str, np.dtype]:
    """Of the initializers that are weights alone, by their names."""
    arrays = converted.structure.weights
    return {name: array.dtype for name, array in arrays.items() if name in {w.name for w in converted.graph.weights}}


def compared(build: Callable[[], keras.Model], tolerance: float, **settings: Any) -> Converted:
    keras.utils.clear_session(free_memory=False)
    real = fill(build())
    converted = convert(build, real, **settings)
    onnx.checker.check_model(converted.model, full_check=True)
    arrays = random_inputs(real.inputs)
    (expected,), (found,) = run_keras(real, arrays), run_onnx(converted, arrays)
    expected = expected.astype(np.float64)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())
    return converted


@pytest.mark.parametrize("build", [image, slow(words)])
@pytest.mark.parametrize(
    ("policy", "stored", "output"),
    [
        ("bfloat16", BFLOAT16, np.float32),
        slow("mixed_bfloat16", np.float32, np.float32),
        ("float16", np.float16, np.float16),
        slow("mixed_float16", np.float32, np.float16),
        ("float64", np.float64, np.float64),
    ],
)
@pytest.mark.slow
def test_weights_keep_their_dtype(policy: str, stored: Any, output: Any, build: Callable[[], keras.Model]) -> None:
    # Where only sums of vectors are float32 the difference is that of float32.
    tolerance = TOLERANCE.get(policy.removeprefix("mixed_"), 1e-5)
    converted = compared(with_policy(policy, build), tolerance)
    found = stored_dtypes(converted)
    assert set(found.values()) <= {np.dtype(stored), np.dtype(np.float32)}
    large = [name for name, array in converted.structure.weights.items() if array.size > 32 and name in found]
    assert large
    assert {found[name] for name in large} == {np.dtype(stored)}
    elem_type = converted.model.graph.output[0].type.tensor_type.elem_type
    assert helper.tensor_dtype_to_np_dtype(elem_type) == output


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", *map(slow, ("bfloat16", "float16", "float64"))])
@pytest.mark.parametrize("dtype", ["float16", slow("float32")])
@pytest.mark.parametrize("build", [image, slow(words)])
def test_conversion_to_another_dtype(build: Callable[[], keras.Model], dtype: str, policy: str) -> None:
    tolerance = max(TOLERANCE.get(policy, 1e-4), TOLERANCE.get(dtype, 0))
    converted = compared(with_policy(policy, build), tolerance, dtype=dtype)
    kinds = Counter(proto.data_type for proto in converted.model.graph.initializer)
    assert not kinds[TensorProto.BFLOAT16]
    assert not kinds[TensorProto.DOUBLE]
    if dtype == "float32":
        assert not kinds[TensorProto.FLOAT16]
    sizes = Counter[Any]()
    for array in converted.structure.weights.values():
        sizes[array.dtype] += array.size
    # The vectors of the norms stay float32.
    assert sizes[np.dtype(dtype)] >= 0.9 * sum(sizes.values())
    interface = [*converted.model.graph.input, *converted.model.graph.output]
    floats = {value.type.tensor_type.elem_type for value in interface} - {TensorProto.INT32}
    assert floats <= {TensorProto.FLOAT, TensorProto.FLOAT16 if dtype == policy == "float16" else TensorProto.FLOAT}


@pytest.mark.slow
def test_a_quantised_attention_keeps_int8() -> None:
    def build() -> keras.Model:
        policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
        for name in ("query", "key", "value", "attention_output"):
            policies[f"mha/{name}"] = keras.dtype_policies.get("int8_from_float32")
        inputs = keras.Input((7, 16), name="x")
        return keras.Model(inputs, layers.MultiHeadAttention(2, 8, name="mha", dtype=policies)(inputs, inputs))

    generator = np.random.default_rng(0)
    real = build()
    for weight in real.variables:
        if weight.dtype == "int8":
            weight.assign(generator.integers(-127, 128, weight.shape).astype("int8"))
        else:
            value = generator.standard_normal(weight.shape)
            weight.assign(127 / (np.abs(value) + 3) if "scale" in weight.path else value)
    converted = convert(build, real)
    assert Counter(stored_dtypes(converted).values())[np.dtype(np.int8)] == 4
    assert converted.ops.count("MatMulInteger") == 4
    arrays = random_inputs(real.inputs)
    (expected,), (found,) = run_keras(real, arrays), run_onnx(converted, arrays)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-2 * np.abs(expected).max())


@pytest.mark.slow
def test_float8_is_refused_with_the_layer() -> None:
    def build() -> keras.Model:
        inputs = keras.Input((4,), name="x")
        return keras.Model(inputs, layers.Dense(3, name="eight", dtype="float8_from_float32")(inputs))

    with pytest.raises(UnsupportedError, match=r"eight.*float8_e4m3fn"):
        convert(build)


def test_an_older_opset_for_int4_is_refused_with_the_opset_that_helps() -> None:
    def build() -> keras.Model:
        inputs = keras.Input((4,), name="x")
        policy = keras.dtype_policies.get("int4/-1_from_float32")
        return keras.Model(inputs, layers.Dense(3, name="four", dtype=policy)(inputs))

    with pytest.raises(UnsupportedError) as caught:
        convert(build, opset=17)
    assert "four" in caught.value.where
    assert caught.value.hint == "--opset 18"


def test_an_unknown_dtype() -> None:
    with pytest.raises(UsageError, match="keep, float32, float16"):
        checked(ExportOptions(dtype="float8"))


# From files that Keras has written, through the worker, verified against Keras.


@pytest.mark.slow
@pytest.mark.parametrize("build", [image, words])
@pytest.mark.parametrize("policy", ["bfloat16", "float16", "float64"])
def test_a_saved_model_of_another_dtype(policy: str, build: Callable[[], keras.Model], tmp_path: Path) -> None:
    keras.utils.clear_session()
    model = fill(with_policy(policy, build)())
    check_file(model, tmp_path, policy)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_saved_quantised_model(mode: str, tmp_path: Path) -> None:
    keras.utils.clear_session()
    model = quantised(mode)
    check_file(model, tmp_path, "int8")
    stored = [array.dtype for array in initializers(tmp_path / "out" / "m").values() if array.size > 1]
    assert stored.count(np.dtype(np.int8)) == sum(weight.dtype == "int8" for weight in model.variables)


def check_file(model: keras.Model, folder: Path, dtype: str) -> None:
    """Verified, and each weight that is stored as it was has the file's bytes; most bytes are."""
    model.save(folder / "m.keras")
    outcome = export_here(folder / "m.keras", folder / "out", formats=("onnx", "parquet"))
    assert outcome.error is None, outcome.error
    assert (outcome.status, outcome.verification.status) == ("done", "passed"), outcome.verification
    found = initializers(folder / "out" / "m")
    rows = pyarrow.parquet.read_table(folder / "out" / "m" / "tensors.parquet").to_pylist()
    kept = 0
    for row, wanted in zip(rows, values(model), strict=True):
        assert row["dtype"] == wanted.dtype.name
        if row["transform"] == "none":
            assert found[row["initializer"]].dtype == wanted.dtype
            assert found[row["initializer"]].tobytes() == wanted.tobytes(), row["tensor"]
        if row["transform"] == "layout" and row["tensor"].endswith("kernel"):
            assert sorted(found[row["initializer"]].tobytes()) == sorted(wanted.tobytes()), row["tensor"]
        kept += row["nbytes"] if row["transform"] in ("none", "layout") and row["dtype"] == dtype else 0
    # A float64 norm is folded into the kernel before it, as a float32 one is.
    if not (model.name == "image" and dtype == "float64"):
        assert kept >= 0.8 * sum(row["nbytes"] for row in rows if row["dtype"] == dtype)


@pytest.mark.slow
def test_what_float16_loses_is_counted(tmp_path: Path) -> None:
    keras.utils.clear_session()
    inputs = keras.Input((4,), name="x")
    model = keras.Model(inputs, layers.Dense(3, name="head")(inputs))
    kernel = np.full((4, 3), 0.5, np.float32)
    kernel[0, :2], kernel[1, 0] = 1e-9, 7e4
    model.set_weights([kernel, np.zeros(3, np.float32)])
    model.save(tmp_path / "m.keras")
    outcome = export_here(tmp_path / "m.keras", tmp_path / "out", dtype="float16", verify=False)
    assert outcome.error is None, outcome.error
    notes = " ".join(outcome.notes)
    assert "float32 → float16 keeps 11 of 24 bits" in notes
    assert "1 of head/kernel are above 65504 and became infinite" in notes
    assert "2 of head/kernel are below 6e-8 and became 0" in notes


# The parts.

# Without a kernel, and not what any conversion of a Keras model contains.
NEVER_CONVERTED = set(
    "Attention Col2Im Det GlobalLpPool Hardmax LpPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization"  # noqa: SIM905
    " MelWeightMatrix Multinomial Upsample".split()
)
NEVER_OF_WHOLE_NUMBERS = {"BitCast", "GridSample", "QuantizeLinear", "SplitToSequence"}
# Without a kernel, but made of other ops by ONNX Runtime, in float64 and without overflowing.
HAVE_FORMULAS = {"Elu", "HardSigmoid", "LeakyRelu", "PRelu", "Selu", "Softsign", "ThresholdedRelu"}


def lazy(array: np.ndarray) -> LazyArray:
    return LazyArray(array.shape, array.dtype, lambda: array)


@pytest.mark.parametrize("dtype", ["int8", "float16", "bfloat16", "float64"])
def test_a_stored_array_is_what_numpy_makes_of_its_value(dtype: str) -> None:
    real = np.random.default_rng(0).integers(-100, 100, (4, 6)).astype(dtype)
    stored = StoredArray(lazy(real))
    cast = stored.astype(np.float32).transpose(1, 0).reshape(2, 3, 4)[:, 1:]
    np.testing.assert_array_equal(cast.real(), real.astype(np.float32).T.reshape(2, 3, 4)[:, 1:])
    assert (cast.stored.dtype, cast.casts) == (real.dtype, (np.dtype(np.float32),))
    assert stored_nbytes(cast) == 16 * real.itemsize
    joined = np.concatenate([cast, cast], 0)
    assert isinstance(joined, StoredArray)
    assert joined.stored.dtype == real.dtype
    np.testing.assert_array_equal(joined.real(), np.concatenate([cast.real()] * 2))


def test_only_casts_that_lose_nothing_are_left_out() -> None:
    stored = StoredArray(lazy(np.array([1.0009765625, 3.0], np.float32)))
    through = stored.astype(np.float16).astype(np.float32)
    assert through.casts == (np.dtype(np.float16), np.dtype(np.float32))
    assert stored.astype(np.float64).astype(np.float32).casts == ()
    assert stored.astype(np.float64).astype(np.float16).casts == (np.dtype(np.float16),)


def test_a_fold_that_grows() -> None:
    kernel = StoredArray(lazy(np.zeros((64, 64), np.int8))).astype(np.float32)
    assert value_grows(np.multiply(kernel, np.float32(2)), [kernel])
    assert not value_grows(kernel.transpose(1, 0), [kernel])
    half = StoredArray(lazy(np.zeros((128, 128), BFLOAT16))).astype(np.float32)
    assert value_grows(np.multiply(half, np.float32(2)), [half])
    assert not value_grows(np.multiply(half[0], np.float32(2)), [half[0]])


def test_losses_are_counted_once_however_often_a_weight_is_made() -> None:
    array = np.array([1.0, 1e5, -1e6, 1e-10, 0.0, np.inf, 2.0, 3e5], np.float32)
    losses = Losses()
    weight = LazyArray(array.shape, array.dtype, lambda: array, part=lambda start, stop: array[start:stop])
    narrow = losses.narrowed(weight, "w")
    assert losses.notes() == ()
    for _ in range(2):
        pieces = np.concatenate(list(narrow.pieces(6)))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(pieces, array.astype(np.float16))
    assert losses.notes() == (
        "float16: 3 of w are above 65504 and became infinite",
        "float16: 1 of w are below 6e-8 and became 0",
    )


def lacking(dtype: str) -> set[str]:
    """The ops of ONNX for which ONNX Runtime has no kernel of a type that ONNX allows, by its registry."""
    registered: dict[str, set[str]] = {}
    for kernel in runtime.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider" and not kernel.domain:
            for parameter, types in kernel.type_constraints.items():
                registered.setdefault(f"{kernel.op_name} {parameter}", set()).update(types)
    found = set()
    for schema in onnx.defs.get_all_schemas():
        for constraint in schema.type_constraints if not schema.domain else ():
            types = registered.get(f"{schema.name} {constraint.type_param_str}")
            if types and f"tensor({dtype})" in constraint.allowed_type_strs and f"tensor({dtype})" not in types:
                found.add(schema.name)
    return found


def test_the_ops_without_float64_are_those_of_the_runtime() -> None:
    """By ONNX Runtime's registry of kernels, in which recurrent ones refuse float64 only when they run."""
    assert kernels.NO_FLOAT64_KERNEL - lacking("double") == {"GRU", "LSTM"}
    assert lacking("double") - kernels.NO_FLOAT64_KERNEL <= NEVER_CONVERTED | HAVE_FORMULAS


@pytest.mark.parametrize("kind", sorted(kernels.WHOLE))
def test_the_ops_without_whole_numbers_are_those_of_the_runtime(kind: int) -> None:
    dtype = kernels.NAMES[kind].removeprefix("tensor(").removesuffix(")")
    known = {op for op, kinds in kernels.NO_KERNEL.items() if kind in kinds}
    assert known - lacking(dtype) == set()
    assert lacking(dtype) - known <= NEVER_CONVERTED | NEVER_OF_WHOLE_NUMBERS
