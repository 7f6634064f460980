"""Keras files of every layout: each export agrees with Keras, holds the file's own bytes, and reads no weight early."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import onnx
import pyarrow.parquet
import pytest
from exporting import command, export_here, initializers, leftovers, manifest, metadata
from keras import layers
from keras.src.backend.common import global_state
from keras.src.legacy.saving import legacy_h5_format

from exporter.lazy import LazyArray
from exporter.records import Job
from exporter.sources import h5_values
from exporter.sources.graphs import crc
from exporter.sources.keras_models import archive_members, hollow, keras_2_config, keras_archive, keras_h5
from exporter.sources.keras_models.describe import weight_names
from exporter.sources.keras_models.hollow import HollowScope
from exporter.sources.keras_models.loading import bind_weights_file
from exporter.sources.opened import open_model

pytestmark = pytest.mark.slow

MOBILENET_FILE = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"


def fill(model: keras.Model, seed: int = 0) -> keras.Model:
    """Values that no initializer gives: moving means far from 0, variances far from 1."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.dtype.startswith("float") and "count" not in weight.name:
            value = generator.standard_normal(weight.shape) * 0.5
            weight.assign(np.abs(value) + 0.5 if "variance" in weight.name else value)
    return model


def functional() -> keras.Model:
    image = x = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(5, name="head")(x), name="functional")


def sequential() -> keras.Model:
    stack = [keras.Input((6,)), layers.Dense(7, activation="gelu"), layers.Dropout(0.5), layers.Dense(2)]
    return keras.Sequential(stack, name="sequential")


def nested() -> keras.Model:
    """A model inside a model, used twice, and one inside that."""
    inner_in = keras.Input((4,))
    core = keras.Sequential([layers.Dense(4, name="deep"), layers.BatchNormalization(name="bn")], name="core")
    inner = keras.Model(inner_in, layers.Dense(3, name="out")(core(inner_in)), name="inner")
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    joined = layers.Concatenate(name="join")([inner(a), inner(b)])
    return keras.Model({"a": a, "b": b}, [layers.Dense(2, name="head")(joined), joined], name="nested")


def normalized() -> keras.Model:
    normalization = layers.Normalization(name="norm")
    normalization.adapt(np.random.default_rng(0).standard_normal((64, 6)) * 3 + 2)
    features = keras.Input((6,), name="features")
    return keras.Model(features, layers.Dense(2, name="head")(normalization(features)), name="normalized")


def mixed() -> keras.Model:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = functional()
        model.name = "mixed"
        return model
    finally:
        keras.config.set_dtype_policy("float32")


def compiled() -> keras.Model:
    """With an optimizer's state and losses of the user's own in the file, which are none of our business."""
    model = sequential()
    model.compile("adam", loss=OwnLoss(), metrics=["mae"])
    model.fit(np.ones((4, 6)), np.ones((4, 2)), verbose=0)
    return model


class OwnLoss(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)


def attentive() -> keras.Model:
    words = keras.Input((7,), dtype="int32", name="words")
    x = layers.Embedding(11, 5, name="table")(words)
    return keras.Model(words, layers.MultiHeadAttention(2, 3, name="attention")(x, x), name="attentive")


MODELS: dict[str, Callable[[], keras.Model]] = {
    build.__name__: build for build in (functional, sequential, nested, normalized, mixed, compiled, attentive)
}
# Weights of these keep their bytes; every other one is transposed, or folded into a neighbour.
UNTOUCHED = {"functional": 2, "mixed": 2, "sequential": 4, "nested": 4, "normalized": 2, "attentive": 2}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> keras.Model:
    keras.utils.clear_session()
    return fill(MODELS[request.param]())


@pytest.fixture(scope="module")
def small() -> keras.Model:
    keras.utils.clear_session()
    return fill(functional())


def values(model: keras.Model) -> list[np.ndarray]:
    """The weights in the order in which an export lists them."""
    by_id = {id(weight): weight for weight in model.weights}
    return [keras.ops.convert_to_numpy(by_id[key].value) for key in weight_names(model)]


def check(folder: Path, outcome: Any, model: keras.Model) -> int:
    """The export agrees with Keras and with the model in memory; how many weights are there byte by byte."""
    assert outcome.error is None, outcome.error
    assert (outcome.status, outcome.verification.status) == ("done", "passed"), outcome.verification
    assert leftovers(folder) == []
    found = initializers(folder)
    rows = pyarrow.parquet.read_table(folder / "tensors.parquet").to_pylist()
    pairs = [pair for pair in zip(rows, values(model), strict=True) if pair[0]["transform"] == "none"]
    for row, wanted in pairs:
        assert found[row["initializer"]].dtype == wanted.dtype
        assert found[row["initializer"]].tobytes() == wanted.tobytes(), row["tensor"]
    return len(pairs)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_model(model: keras.Model, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"saved{suffix}"
    model.save(path)
    outcome = export_here(path, tmp_path / "out", formats=("onnx", "parquet"))
    assert check(tmp_path / "out" / "saved", outcome, model) == UNTOUCHED[model.name]
    assert outcome.weights == {".keras": "from the archive", ".h5": "from the file"}[suffix]


def test_a_compressed_archive_is_spooled_and_gives_the_same(small: keras.Model, tmp_path: Path) -> None:
    for name in ("plain", "packed"):
        (tmp_path / name).mkdir()
        small.save(tmp_path / name / "m.keras")
    repack(tmp_path / "packed" / "m.keras", lambda name, data: data, zipfile.ZIP_DEFLATED)
    outcomes = [
        export_here(tmp_path / name / "m.keras", tmp_path / name, formats=("onnx", "parquet"))
        for name in ("plain", "packed")
    ]
    for name, outcome in zip(("plain", "packed"), outcomes, strict=True):
        check(tmp_path / name / "m", outcome, small)
    assert outcomes[0].weights == "from the archive"
    assert "compressed there" in outcomes[1].weights
    plain, packed = (initializers(tmp_path / name / "m") for name in ("plain", "packed"))
    assert all(plain[name].tobytes() == packed[name].tobytes() for name in plain if "/" in name)


def repack(path: Path, change: Callable[[str, bytes], bytes | None], method: int = zipfile.ZIP_STORED) -> None:
    """Write the archive again, each member as `change(name, data)` gives it; None drops it."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            if (new := change(name, data)) is not None:
                archive.writestr(name, new)


def keras_2_file(path: Path, model: keras.Model) -> None:
    """The layout of Keras 2: another spelling of the config, weights as `layer/kernel:0` in a group for each layer."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.15.0", "tensorflow"
        file.attrs["model_config"] = json.dumps(KERAS_2_CONFIG)
        root = file.create_group("model_weights")
        root.attrs["keras_version"] = "2.15.0"
        root.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = root.create_group(layer.name)
            weights = layer.trainable_weights + layer.non_trainable_weights
            names = [f"{weight.path.split('/', 1)[-1]}:0" for weight in weights]
            names = [name if "/" in name else f"{layer.name}/{name}" for name in names]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, weights, strict=True):
                group[name] = keras.ops.convert_to_numpy(weight.value)


KERAS_2_INNER = {
    "name": "block",
    "trainable": True,
    "layers": [
        {
            "class_name": "InputLayer",
            "name": "block_input",
            "config": {"batch_input_shape": [None, 5], "dtype": "float32", "sparse": False, "name": "block_input"},
            "inbound_nodes": [],
        },
        {
            "class_name": "Dense",
            "name": "deep",
            "config": {"name": "deep", "trainable": True, "dtype": "float32", "units": 4, "activation": "relu"},
            "inbound_nodes": [[["block_input", 0, 0, {}]]],
        },
        {
            "class_name": "BatchNormalization",
            "name": "bn",
            "config": {"name": "bn", "dtype": "float32", "axis": [1], "momentum": 0.99, "epsilon": 0.001},
            "inbound_nodes": [[["deep", 0, 0, {}]]],
        },
    ],
    "input_layers": [["block_input", 0, 0]],
    "output_layers": [["bn", 0, 0]],
}
KERAS_2_CONFIG = {
    "class_name": "Functional",
    "config": {
        "name": "old",
        "trainable": True,
        "layers": [
            {
                "class_name": "InputLayer",
                "name": "x",
                "config": {"batch_input_shape": [None, 5], "dtype": "float32", "sparse": False, "name": "x"},
                "inbound_nodes": [],
            },
            {
                "class_name": "Functional",
                "name": "block",
                "config": KERAS_2_INNER,
                "inbound_nodes": [[["x", 0, 0, {}]]],
            },
            {
                "class_name": "Dense",
                "name": "dense",
                "config": {"name": "dense", "trainable": True, "dtype": "float32", "units": 3, "activation": "softmax"},
                "inbound_nodes": [[["block", 1, 0, {}]]],
            },
        ],
        "input_layers": [["x", 0, 0]],
        "output_layers": [["dense", 0, 0]],
    },
}


def old_model() -> keras.Model:
    x, inner = keras.Input((5,), name="x"), keras.Input((5,), name="block_input")
    normal = layers.BatchNormalization(name="bn")(layers.Dense(4, "relu", name="deep")(inner))
    block = keras.Model(inner, normal, name="block")
    return fill(keras.Model(x, layers.Dense(3, "softmax", name="dense")(block(x)), name="old"))


def test_a_file_of_keras_2(tmp_path: Path) -> None:
    keras.utils.clear_session()
    model = old_model()
    keras_2_file(tmp_path / "old.h5", model)
    with h5py.File(tmp_path / "old.h5") as file:
        assert "model_weights/dense/dense/kernel:0" in file
        assert len(file["model_weights/block"].attrs["weight_names"]) == 6
    outcome = export_here(tmp_path / "old.h5", tmp_path, formats=("onnx", "parquet"))
    assert check(tmp_path / "old", outcome, model) >= 2


def save_legacy_weights(model: keras.Model, path: Path) -> None:
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


@pytest.mark.parametrize("layout", ["keras 3", "legacy", "whole model"])
def test_weights_from_a_file_of_their_own(layout: str, small: keras.Model, tmp_path: Path) -> None:
    small.save(tmp_path / "m.keras")
    other = fill(keras.models.clone_model(small), seed=1)
    if layout == "keras 3":
        other.save_weights(weights := tmp_path / "other.weights.h5")
    elif layout == "legacy":
        save_legacy_weights(other, weights := tmp_path / "other.h5")
    else:
        other.save(weights := tmp_path / "other.h5")
    outcome = export_here(tmp_path / "m.keras", tmp_path, formats=("onnx", "parquet"), weights=str(weights))
    assert check(tmp_path / "m", outcome, other) == 2
    assert outcome.weights == f"from {weights.name}"
    assert metadata(tmp_path / "m")["export_model.weights"] == outcome.weights


@pytest.mark.parametrize("layout", ["keras 3", "legacy", "text", "foreign"])
def test_weights_that_do_not_fit(layout: str, small: keras.Model, tmp_path: Path) -> None:
    small.save(tmp_path / "m.keras")
    weights = tmp_path / "w.weights.h5"
    if layout == "keras 3":
        sequential().save_weights(weights)
    elif layout == "legacy":
        save_legacy_weights(sequential(), weights)
    elif layout == "text":
        weights.write_text("no HDF5")
    else:
        h5py.File(weights, "w").create_dataset("x", data=[1])
    outcome = export_here(tmp_path / "m.keras", tmp_path, weights=str(weights))
    assert outcome.error is not None
    assert outcome.error["type"] == "SourceError", outcome.error
    assert str(weights) in outcome.error["where"]
    assert outcome.error["hint"]
    assert not (tmp_path / "m").exists()


# Binding ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def scope() -> Iterator[HollowScope]:
    with HollowScope() as entered:
        yield entered


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the datasets that were read."""
    names: list[str] = []
    original = hollow.lazy_dataset

    def lazy_dataset(dataset: h5py.Dataset, *rest: Any) -> LazyArray:
        array, name = original(dataset, *rest), dataset.name

        def make() -> np.ndarray:
            names.append(name)
            return array.real()

        return LazyArray(array.shape, array.dtype, make)

    monkeypatch.setattr(hollow, "lazy_dataset", lazy_dataset)
    for method in ("__getitem__", "__array__"):
        monkeypatch.setattr(h5py.Dataset, method, lambda dataset, *rest: pytest.fail(f"{dataset.name} was read"))
    return names


def archive_job(path: Path, **fields: Any) -> Job:
    kind = "keras_archive" if path.suffix == ".keras" else "keras_h5"
    return Job(str(path), kind, "m", "", ("onnx",), "", "", **fields)


@pytest.mark.parametrize("kind", [".keras", ".h5", "weights", "legacy weights"])
def test_binding_reads_and_allocates_nothing(
    kind: str, small: keras.Model, scope: HollowScope, reads: list[str], tmp_path: Path
) -> None:
    path = tmp_path / f"m{kind if kind.startswith('.') else '.keras'}"
    with without_scope():
        small.save(path)
        small.save_weights(tmp_path / "w.weights.h5")
        save_legacy_weights(small, tmp_path / "w.h5")
    module = keras_h5 if kind == ".h5" else keras_archive
    reads.clear()
    if kind.startswith("."):
        model, _ = module.with_weights(archive_job(path), scope, str(tmp_path))
    else:
        model = module.without_weights(archive_job(path))
        bind_weights_file(model, str(tmp_path / ("w.h5" if "legacy" in kind else "w.weights.h5")), scope)
    assert reads == []
    assert all(variable._value is None for variable in model.variables)
    assert set(scope.bound) == {id(weight) for weight in model.weights}
    wanted = [keras.ops.convert_to_numpy(weight._value) for weight in small.weights]
    for index, (weight, value) in enumerate(zip(model.weights, wanted, strict=True)):
        assert scope.bound[id(weight)].real().tobytes() == value.tobytes()
        assert len(reads) == index + 1


class without_scope:  # noqa: N801 (reads as a statement)
    def __enter__(self) -> None:
        self.scope = global_state.get_global_attribute("stateless_scope")
        global_state.set_global_attribute("stateless_scope", None)

    def __exit__(self, *error: object) -> None:
        global_state.set_global_attribute("stateless_scope", self.scope)


def test_only_the_value_that_a_layer_computes_with_is_read(
    scope: HollowScope, reads: list[str], tmp_path: Path
) -> None:
    with without_scope():
        fill(normalized()).save(tmp_path / "m.keras")
    reads.clear()
    keras_archive.with_weights(archive_job(tmp_path / "m.keras"), scope, str(tmp_path))
    assert {name.split("/")[-3] for name in reads} == {"normalization"}


def test_bound_values_outlive_what_they_were_bound_from(small: keras.Model, scope: HollowScope, tmp_path: Path) -> None:
    """Keras closes the files of `keras.applications` after loading; a lazy array opens its file again."""
    with without_scope():
        save_legacy_weights(small, tmp_path / "w.h5")
        wanted = [keras.ops.convert_to_numpy(weight) for weight in small.weights]
    model = functional()
    with scope.listening():
        model.load_weights(tmp_path / "w.h5")
    found = [scope.bound[id(weight)].real() for weight in model.weights]
    assert [array.tobytes() for array in found] == [array.tobytes() for array in wanted]
    (tmp_path / "w.h5").unlink()
    with pytest.raises(Exception, match=r"w\.h5, dataset .*cannot be read"):
        scope.bound[id(model.weights[0])].real()


def test_half_precision_files_keep_their_numbers(scope: HollowScope, tmp_path: Path) -> None:
    """bfloat16 is stored as two opaque bytes; a float16 file may feed a float32 model."""
    with without_scope():
        model = keras.Sequential([keras.Input((2,)), layers.Dense(3, dtype="bfloat16")])
        fill(model).save(tmp_path / "m.keras")
        wanted = keras.ops.convert_to_numpy(model.layers[0].kernel)
        with h5py.File(tmp_path / "w.h5", "w") as file:
            file.attrs["layer_names"] = [b"dense"]
            group = file.create_group("dense")
            group.attrs["weight_names"] = [b"kernel", b"bias"]
            group["kernel"], group["bias"] = np.full((2, 3), 0.1, ">f2"), np.zeros(3, ">f2")
    loaded, _ = keras_archive.with_weights(archive_job(tmp_path / "m.keras"), scope, str(tmp_path))
    assert scope.bound[id(loaded.layers[0].kernel)].real().tobytes() == wanted.tobytes()
    plain = keras.Sequential([keras.Input((2,)), layers.Dense(3)])
    bind_weights_file(plain, str(tmp_path / "w.h5"), scope)
    found = scope.bound[id(plain.layers[0].kernel)].real()
    assert (found.dtype, found[0, 0]) == (np.float32, np.float32(np.float16(0.1)))


def test_a_wrong_shape_is_refused(scope: HollowScope) -> None:
    model = functional()
    with pytest.raises(ValueError, match=r"conv/kernel has shape \(3, 3, 3, 4\), the saved value \(3,\)"):
        scope.bind(model.weights[0], LazyArray.of(np.zeros(3, np.float32)))


def test_the_window_is_the_member(tmp_path: Path) -> None:
    """Any offset, any length, past the end; the local header may be longer than the directory says."""
    data = np.random.default_rng(0).bytes(100_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("before", b"x" * 37)
        with archive.open("model.weights.h5", "w", force_zip64=True) as member:
            member.write(data)
        archive.writestr("after", b"y" * 1000)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        window = archive_members.Window(str(tmp_path / "a.zip"), archive.getinfo("model.weights.h5"))
    plain = io.BytesIO(data)
    assert (window.readable(), window.seekable(), window.writable()) == (True, True, False)
    for offset, whence, count in [(0, 0, 10), (5, 1, 7), (-3, 2, 10), (0, 2, 1), (99_990, 0, 50), (200_000, 0, 5)]:
        assert window.seek(offset, whence) == plain.seek(offset, whence)
        assert window.read(count) == plain.read(count)
        assert window.tell() == plain.tell()
    assert window.seek(0) == 0
    assert window.read() == data
    window.seek(0)
    window.close()
    with pytest.raises(ValueError, match="closed"):
        window.read(1)


# Vocabularies -----------------------------------------------------------------------------------------------------


def test_damage_that_is_found_while_the_weights_are_written(
    small: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In large archives the sum is that of the pieces that the conversion reads."""
    monkeypatch.setattr(archive_members, "AT_ONCE_NBYTES", 0)
    monkeypatch.setattr(crc, "LEAST_NBYTES", 64)
    small.save(tmp_path / "m.keras")
    assert export_here(tmp_path / "m.keras", tmp_path).status == "done"
    content = bytearray((tmp_path / "m.keras").read_bytes())
    value = next(weight for weight in small.weights if "kernel" in weight.path).numpy().tobytes()
    content[content.index(value) + 1] ^= 1
    (tmp_path / "m.keras").write_bytes(content)
    outcome = export_here(tmp_path / "m.keras", tmp_path, verify=False)
    assert outcome.error is not None
    assert (outcome.error["type"], outcome.error["what"]) == ("SourceError", "is truncated or corrupt"), outcome.error
    assert "CRC" in outcome.error["why"]


@pytest.mark.parametrize("order", ["<f4", ">f4"])
@pytest.mark.parametrize("storage", [{}, {"chunks": (2, 3)}, {"compression": "gzip"}, {"fillvalue": 7}], ids=str)
def test_any_part_of_a_dataset(order: str, storage: dict[str, Any], tmp_path: Path) -> None:
    array = np.arange(60, dtype=order).reshape(5, 4, 3)[:, :, :3]
    with h5py.File(tmp_path / "w.h5", "w") as file:
        shape = storage.get("chunks") and (array.reshape(-1, 3).shape)
        data = None if "fillvalue" in storage else array.reshape(shape or array.shape)
        file.create_dataset("w", shape or array.shape, order, data=data, **storage)
        file.create_dataset("empty", (0, 4), order)
        file.create_dataset("number", (), order, data=5)
    with h5py.File(tmp_path / "w.h5", "r") as file:
        lazy = h5_values.lazy_dataset(file["w"])
        wanted = file["w"][()]
        assert h5_values.lazy_dataset(file["empty"]).real().shape == (0, 4)
        assert h5_values.lazy_dataset(file["number"]).real() == 5
    assert lazy.is_divisible
    np.testing.assert_array_equal(lazy.real(), wanted)
    for nbytes in (4, 12, 20, 1000):
        np.testing.assert_array_equal(np.concatenate(list(lazy.pieces(nbytes))), wanted.reshape(-1))


def test_assets_are_unpacked_without_the_weights(tmp_path: Path) -> None:
    """A vocabulary lies in the archive as a file; Keras would unpack everything into the temporary folder."""
    keras.utils.clear_session()
    words = keras.Input((1,), dtype="string", name="words")
    lookup = layers.StringLookup(name="lookup")
    lookup.adapt(np.array(["a", "b"]))
    keras.Model(words, layers.Embedding(3, 2, name="table")(lookup(words))).save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        assert any(name.startswith("assets/") for name in archive.namelist())
    outcome = export_here(tmp_path / "m.keras", tmp_path, formats=("parquet",))
    assert outcome.error is None
    names = pyarrow.parquet.read_table(tmp_path / "m" / "layers.parquet")["name"].to_pylist()
    assert names == ["words", "lookup", "table"]
    assert leftovers(tmp_path) == []


# Applications -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that holds weights for MobileNetV2, which Keras does not know the digest of."""
    keras.utils.clear_session()
    home = tmp_path_factory.mktemp("keras")
    (home / "models").mkdir()
    save_legacy_weights(fill_mildly(keras.applications.MobileNetV2(weights=None)), home / "models" / MOBILENET_FILE)
    return home


def fill_mildly(model: keras.Model) -> keras.Model:
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("moving_mean", "moving_variance"):
            weight.assign(keras.ops.convert_to_numpy(weight) + generator.uniform(0, 0.1, weight.shape))
    return model


@pytest.mark.parametrize("weights", ["imagenet", "auto"])
def test_pretrained_weights_from_the_cache(weights: str, keras_home: Path, tmp_path: Path) -> None:
    arguments = ["mobilenet_v2", "--weights", weights, "--to", "onnx", *(["--no-verify"] if weights == "auto" else [])]
    result = command(arguments, cwd=tmp_path, environment={"KERAS_HOME": str(keras_home)})
    assert result.status == 0, result.text
    folder = tmp_path / "outputs" / "mobilenetv2"
    assert manifest(folder)["weights"] == "imagenet"
    assert metadata(folder)["export_model.weights"] == "imagenet"
    assert "RANDOM" not in result.text
    if weights == "imagenet":
        assert manifest(folder)["verification"]["status"] == "passed"


def test_pretrained_weights_that_cannot_be_had(tmp_path: Path) -> None:
    environment = {"KERAS_HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    result = command(["mobilenet_v2", "--weights", "imagenet"], cwd=tmp_path, environment=environment)
    assert result.status == 4, result.text
    assert "the ImageNet weights cannot be had: URL fetch failure" in result.err
    assert "try: --weights random" in result.err
    assert "Traceback" not in result.text
    assert not (tmp_path / "outputs" / "mobilenetv2").exists()

    result = command(["mobilenet_v2", "--no-verify", "--to", "onnx"], cwd=tmp_path, environment=environment)
    assert result.status == 0, result.text
    folder = tmp_path / "outputs" / "mobilenetv2"
    assert "RANDOM WEIGHTS: the ImageNet weights cannot be had" in result.err
    assert "RANDOM WEIGHTS" in result.out
    receipt = manifest(folder)
    assert receipt["weights"] == metadata(folder)["export_model.weights"] == "random (seed 0)"
    assert receipt["notes"][0].startswith("RANDOM WEIGHTS: ")
    # The name that Keras gives it in a fresh process, whatever has been tried before.
    assert [entry.name for entry in onnx.load(folder / "model.onnx").graph.input] == ["input_layer"]
    assert str(tmp_path) not in json.dumps(receipt)


def test_a_broken_file_in_the_cache_is_named_as_the_reason(tmp_path: Path) -> None:
    (tmp_path / "home" / "models").mkdir(parents=True)
    (tmp_path / "home" / "models" / MOBILENET_FILE).write_bytes(b"\x89HDF\r\n\x1a\n" + os.urandom(5000))
    environment = {"KERAS_HOME": str(tmp_path / "home")}
    result = command(["mobilenet_v2", "--weights", "imagenet"], cwd=tmp_path, environment=environment)
    assert result.status == 4, result.text
    assert "if a download was cut short, delete its file" in result.err


def test_random_values_depend_on_seed_and_name_alone(tmp_path: Path, small: keras.Model) -> None:
    small.save(tmp_path / "m.keras")
    outcomes = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        export_here(tmp_path / "m.keras", tmp_path / name, weights="random", seed=seed, verify=False)
        found = initializers(tmp_path / name / "m")
        outcomes[name] = {key: value.tobytes() for key, value in found.items() if value.dtype == np.float32}
    assert outcomes["a"] == outcomes["b"] != outcomes["c"]


def test_random_weights_are_verified_against_the_same_values(tmp_path: Path, small: keras.Model) -> None:
    small.save(tmp_path / "m.keras")
    outcome = export_here(tmp_path / "m.keras", tmp_path, weights="random", seed=5)
    assert outcome.verification is not None
    assert (outcome.weights, outcome.verification.status) == ("random (seed 5)", "passed")


def test_open_model_refuses_a_model_that_was_never_built(tmp_path: Path) -> None:
    keras.utils.clear_session()
    keras.Sequential([layers.Dense(2)]).save(tmp_path / "m.keras")
    try:
        with pytest.raises(Exception, match="has no weights yet"):
            open_model(archive_job(tmp_path / "m.keras"), str(tmp_path))
    finally:
        global_state.set_global_attribute("stateless_scope", None)


def old_recurrent(path: Path) -> None:
    import tf_keras

    ids = tf_keras.Input((5,))
    y = tf_keras.layers.Embedding(10, 4)(ids)
    y = tf_keras.layers.Bidirectional(tf_keras.layers.GRU(3, return_sequences=True))(y)
    tf_keras.Model(ids, tf_keras.layers.Dense(2)(y), name="m").save(path)


def old_sequential(path: Path) -> None:
    import tf_keras

    norm = tf_keras.layers.BatchNormalization(beta_initializer="ones")
    tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3), norm, tf_keras.layers.Dense(2)]).save(path)


def old_functional(path: Path) -> None:
    """As Keras 2 itself wrote it, whose name `tf_keras` has not."""
    import tf_keras

    x = tf_keras.Input((4,))
    inner = tf_keras.Model(x, tf_keras.layers.Dense(4)(x), name="inner")
    tf_keras.Model(x, tf_keras.layers.Add()([inner(x), tf_keras.layers.BatchNormalization()(x)]), name="m").save(path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    assert contents["config.json"].count(b"tf_keras.src.engine.functional") == 2
    contents["config.json"] = contents["config.json"].replace(b"tf_keras.src", b"keras.src", 1)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("save", "suffix"), [(old_recurrent, ".h5"), (old_sequential, ".keras"), (old_functional, ".keras")]
)
def test_what_keras_2_saved(tmp_path: Path, save: Callable[[Path], None], suffix: str) -> None:
    """Settings that Keras 3 refuses, and inputs that are fractions although they are indices."""
    save(tmp_path / f"old{suffix}")
    outcome = export_here(tmp_path / f"old{suffix}", tmp_path / "out")
    assert outcome.error is None, outcome.error
    assert outcome.verification is not None
    assert (outcome.verification.status, outcome.verification.reason) == ("passed", "")


def test_settings_of_keras_2_are_changed_at_every_depth() -> None:
    inner = {"class_name": "GRU", "config": {"units": 3, "time_major": False}}
    norm = {"class_name": "BatchNormalization", "config": {"axis": [3]}}
    config = {"class_name": "Sequential", "config": {"layers": [{"class_name": "B", "config": {"layer": inner}}, norm]}}
    assert keras_2_config.modernise(config)
    assert (inner["config"], norm["config"]) == ({"units": 3}, {"axis": 3})
    assert not keras_2_config.modernise(config), "nothing is left to change"
    kept = {"class_name": "LSTM", "config": {"time_major": True, "axis": [1, 2]}}
    assert not keras_2_config.modernise(kept)
    assert kept["config"] == {"time_major": True, "axis": [1, 2]}
