"""What can be wrong with what comes in, one tiny file each: one message, a documented status, and nothing lost.

Each case runs through the command line twice: over a folder that holds an older result, and over nothing.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from exporting import command, leftovers, run_here
from keras import layers
from sampling import sampled

from exporter import cli, files

SHAPE = (4,)
WEIGHTS = "model.weights.h5"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sound files, which each case takes and spoils."""
    folder = tmp_path_factory.mktemp("good")
    keras.utils.clear_session()
    stack = [keras.Input(SHAPE, name="x"), layers.Dense(3, name="hidden"), layers.Dense(2, name="head")]
    model = keras.Sequential(stack, name="m")
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    model.save_weights(folder / "m.weights.h5")
    doubled = keras.Sequential([keras.Input(SHAPE, name="x"), layers.Lambda(lambda x: x * 2, name="double")])
    doubled.save(folder / "lambda.keras")
    doubled.save(folder / "lambda.h5")
    fixed = keras.Input(batch_shape=(3, 4), name="x")
    keras.Model(fixed, layers.Dense(2)(fixed)).save(folder / "fixed.keras")
    words = keras.Input((), dtype="string", name="words")
    looked_up = layers.TextVectorization(vocabulary=["a"], output_sequence_length=2, name="lookup")(words)
    keras.Model(words, layers.Embedding(3, 2, name="table")(looked_up)).save(folder / "words.keras")
    custom = keras.Sequential([keras.Input(SHAPE), Own(name="mine")])
    custom.save(folder / "custom.keras")
    custom.save(folder / "custom.h5")
    keras.Sequential([layers.Dense(2)]).save(folder / "unbuilt.keras")
    subclassed = OwnModel()
    subclassed(np.zeros((1, 4), np.float32))
    subclassed.save(folder / "subclassed.keras")
    # What registered them here is not there where a file is opened.
    keras.saving.get_custom_objects().clear()
    return folder


@keras.saving.register_keras_serializable("elsewhere")
class Own(layers.Layer):
    def call(self, x: Any) -> Any:
        return x + 1


class OwnModel(keras.Model):
    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.head = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.head(x)


# What spoils a file: each takes the folder of sound files and the path of the new one. ------------------------------

Spoil = Callable[[Path, Path], Any]


def content(data: bytes) -> Spoil:
    return lambda good, path: path.write_bytes(data)


def copy(name: str) -> Spoil:
    return lambda good, path: shutil.copy(good / name, path)


def cut(name: str, share: float) -> Spoil:
    def spoil(good: Path, path: Path) -> None:
        data = (good / name).read_bytes()
        path.write_bytes(data[: min(int(len(data) * share), len(data) - 1)])

    return spoil


def flip_in_weights(good: Path, path: Path) -> None:
    data = bytearray((good / "m.keras").read_bytes())
    with zipfile.ZipFile(good / "m.keras") as archive:
        info = archive.getinfo(WEIGHTS)
    data[info.header_offset + info.file_size // 2] ^= 1
    path.write_bytes(data)


def members(changes: dict[str, bytes | Callable[[bytes], bytes] | None]) -> Spoil:
    """The archive with other members; None leaves one out."""

    def spoil(good: Path, path: Path) -> None:
        with zipfile.ZipFile(good / "m.keras") as archive:
            data: dict[str, Any] = {name: archive.read(name) for name in archive.namelist()}
        for name, change in changes.items():
            data[name] = change(data[name]) if callable(change) else change
        write_archive(path, {name: value for name, value in data.items() if value is not None})

    return spoil


def write_archive(path: Path, data: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, value in data.items():
            archive.writestr(name, value)


def config(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    """The archive with a config that `change` has worked on, or returned."""

    def edit(text: bytes) -> bytes:
        data = json.loads(text)
        changed = change(data)
        return json.dumps(data if changed is None else changed).encode()

    return members({"config.json": edit})


def wider(data: dict[str, Any]) -> None:
    data["config"]["layers"][2]["config"]["units"] = 5


def deeper(text: bytes) -> bytes:
    """Sequential models in each other, deeper than anybody's stack."""
    head = b'{"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": ['
    return head * 400 + text + b"]}}" * 400


def deepest(text: bytes) -> bytes:
    return b'{"class_name": "Sequential", "config": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"


def bomb(name: str) -> Spoil:
    """A member of 300 MB of zeros, which takes 300 kB in the archive."""

    def spoil(good: Path, path: Path) -> None:
        with zipfile.ZipFile(good / "m.keras") as archive:
            data = {entry: archive.read(entry) for entry in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, value in data.items():
                if entry != name:
                    archive.writestr(entry, value)
            with archive.open(name, "w") as member:
                for _ in range(300):
                    member.write(bytes(10**6))

    return spoil


def weights_file(change: Callable[[h5py.File], Any]) -> Spoil:
    """The archive with a weights file that `change` has worked on."""

    def spoil(good: Path, path: Path) -> None:
        inner = path.with_suffix(".inner")
        shutil.copy(good / "m.weights.h5", inner)
        with h5py.File(inner, "a") as file:
            change(file)
        members({WEIGHTS: inner.read_bytes()})(good, path)
        inner.unlink()

    return spoil


def whole_file(change: Callable[[h5py.File], Any]) -> Spoil:
    """The `.h5` file after `change`."""

    def spoil(good: Path, path: Path) -> None:
        shutil.copy(good / "m.h5", path)
        with h5py.File(path, "a") as file:
            change(file)

    return spoil


HIDDEN = "layers/dense/vars/0"


def drop(file: h5py.File) -> None:
    del file[HIDDEN]


def link_outside(file: h5py.File) -> None:
    del file[HIDDEN]
    file[HIDDEN] = h5py.ExternalLink("/etc/hostname", "/x")


def link_inside(file: h5py.File) -> None:
    del file[HIDDEN]
    file[HIDDEN] = h5py.SoftLink("/layers/dense/vars/1")


def store_outside(file: h5py.File) -> None:
    del file[HIDDEN]
    file.create_dataset(HIDDEN, (4, 3), "f4", external=[("/etc/passwd", 0, 48)])


def store_virtually(file: h5py.File) -> None:
    del file[HIDDEN]
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4, 3))
    file.create_virtual_dataset(HIDDEN, layout)


def store_text(file: h5py.File) -> None:
    del file[HIDDEN]
    file[HIDDEN] = np.full((4, 3), b"text")


def drop_legacy(file: h5py.File) -> None:
    del file["model_weights/hidden/m/hidden/kernel"]


def link_legacy(file: h5py.File) -> None:
    del file["model_weights/hidden"]
    file["model_weights/hidden"] = h5py.ExternalLink("/etc/hostname", "/x")


def link_the_root(file: h5py.File) -> None:
    del file["model_weights"]
    file["model_weights"] = h5py.ExternalLink("/etc/hostname", "/x")


def legacy_config(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    def edit(file: h5py.File) -> None:
        data = json.loads(file.attrs["model_config"])
        changed = change(data)
        file.attrs["model_config"] = json.dumps(data if changed is None else changed)

    return whole_file(edit)


def text_as_config(file: h5py.File) -> None:
    file.attrs["model_config"] = "{"


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
CORRUPT = "is truncated or corrupt"

# Name of the source; how it is made; flags; exit status; what the message must say.
CASES: dict[str, tuple[str, Spoil | None, str, int, list[str]]] = {
    "missing file": ("m.keras", None, "", 4, ["m.keras: cannot be read", "no such file"]),
    "text": ("m.keras", content(b"once upon a time\n"), "", 4, ["m.keras: is not a model", "a text file"]),
    "garbage": ("m.keras", content(random.Random(0).randbytes(5000)), "", 4, ["m.keras: is not a model"]),
    "empty": ("m.keras", content(b""), "", 4, ["m.keras: is not a model", "empty"]),
    "a picture": ("m.keras", content(PNG), "", 4, ["m.keras: is not a model"]),
    "a folder": ("m.keras", lambda good, path: path.mkdir(), "", 4, ["is a folder"]),
    "weights without a model": ("m.h5", copy("m.weights.h5"), "--to onnx", 2, ["weights alone", "leave onnx out"]),
    "archive cut to 1%": ("m.keras", cut("m.keras", 0.01), "", 4, ["m.keras: is truncated or corrupt"]),
    "archive cut in the middle": ("m.keras", cut("m.keras", 0.5), "", 4, [CORRUPT]),
    "archive cut near the end": ("m.keras", cut("m.keras", 0.97), "", 4, [CORRUPT]),
    "archive without its last byte": ("m.keras", cut("m.keras", 1), "", 4, [CORRUPT]),
    "a flipped bit in the weights": ("m.keras", flip_in_weights, "", 4, [CORRUPT, "CRC-32", WEIGHTS]),
    "HDF5 cut to the signature": ("m.h5", cut("m.h5", 0.002), "", 4, ["m.h5: is truncated or corrupt"]),
    "HDF5 cut in the middle": ("m.h5", cut("m.h5", 0.5), "", 4, [CORRUPT]),
    "HDF5 without its last byte": ("m.h5", cut("m.h5", 1), "", 4, [CORRUPT]),
    "config is no JSON": ("m.keras", members({"config.json": b"{"}), "", 4, ["m.keras: is corrupt", "not JSON"]),
    "config is binary": ("m.keras", members({"config.json": b"\xff\xfe\x00"}), "", 4, ["not JSON"]),
    "config is a list": ("m.keras", members({"config.json": b"[]"}), "", 4, ["is not a Keras model"]),
    "config is empty": ("m.keras", members({"config.json": b"{}"}), "", 4, ["is not a Keras model"]),
    "config of no model": ("m.keras", config(lambda data: {"class_name": "Dense"}), "", 4, ["is not a Keras model"]),
    "config of a layer": (
        "m.keras",
        config(lambda data: {"module": "keras.layers", "class_name": "ReLU", "config": {}, "registered_name": None}),
        "",
        4,
        ["is not a Keras model", "ReLU"],
    ),
    "config with wrong types": ("m.keras", config(lambda data: data["config"].update(layers=5)), "", 4, ["m.keras"]),
    "config nested too deep": ("m.keras", members({"config.json": deeper}), "", 4, ["m.keras"]),
    "config of brackets": ("m.keras", members({"config.json": deepest}), "", 4, ["m.keras: is corrupt"]),
    "HDF5 config is no JSON": ("m.h5", whole_file(text_as_config), "", 4, ["m.h5: is corrupt", "not JSON"]),
    "HDF5 config is empty": ("m.h5", legacy_config(lambda data: {}), "", 4, ["is not a Keras model"]),
    "HDF5 config with wrong types": (
        "m.h5",
        legacy_config(lambda data: data["config"].update(layers=[[]])),
        "",
        4,
        ["m.h5"],
    ),
    "no weights": ("m.keras", members({WEIGHTS: None}), "", 4, ["has no model.weights.h5", "--weights random"]),
    "weights as NumPy arrays": (
        "m.keras",
        members({WEIGHTS: None, "model.weights.npz": b""}),
        "",
        6,
        ["stored as NumPy arrays"],
    ),
    "weights are no HDF5": ("m.keras", members({WEIGHTS: b"text"}), "", 4, ["m.keras", "signature not found"]),
    "config and weights differ": ("m.keras", config(wider), "", 4, ["layer head", "(3, 5)", "(3, 2)"]),
    "HDF5 config and weights differ": ("m.h5", legacy_config(wider), "", 4, ["m.h5", "(3, 5)", "(3, 2)"]),
    "a weight is missing": ("m.keras", weights_file(drop), "", 4, ["layer hidden", "does not fit the model"]),
    "HDF5 without a weight": ("m.h5", whole_file(drop_legacy), "", 4, ["m.h5", "kernel"]),
    "a weight is text": ("m.keras", weights_file(store_text), "", 4, ["m.keras"]),
    "a link out of the file": ("m.keras", weights_file(link_outside), "", 4, ["ExternalLink"]),
    "a link inside of the file": ("m.keras", weights_file(link_inside), "", 4, ["SoftLink"]),
    "data outside of the file": ("m.keras", weights_file(store_outside), "", 4, ["external"]),
    "a virtual dataset": ("m.keras", weights_file(store_virtually), "", 4, ["virtual Dataset"]),
    "HDF5 with a link out of it": ("m.h5", whole_file(link_legacy), "", 4, ["ExternalLink"]),
    "HDF5 with its root elsewhere": ("m.h5", whole_file(link_the_root), "", 4, ["ExternalLink"]),
    "a custom layer": ("m.keras", copy("custom.keras"), "", 6, ["layer mine", "custom class 'Own'"]),
    "a custom layer in HDF5": ("m.h5", copy("custom.h5"), "", 6, ["custom class", "Own"]),
    "a custom layer, trusted": ("m.keras", copy("custom.keras"), "--trust-code", 6, ["custom class 'Own'"]),
    "a Lambda layer": ("m.keras", copy("lambda.keras"), "", 5, ["layer double", "Python code", "--trust-code"]),
    "a Lambda layer in HDF5": ("m.h5", copy("lambda.h5"), "", 5, ["layer double", "Python code", "--trust-code"]),
    "a Lambda layer, without weights": ("m.keras", copy("lambda.keras"), "--weights random", 5, ["--trust-code"]),
    "a bomb of weights": ("m.keras", bomb(WEIGHTS), "", 4, [CORRUPT, "300000000"]),
    "a bomb of a config": ("m.keras", bomb("config.json"), "", 4, [CORRUPT, "300000000"]),
    "an asset that climbs out": ("m.keras", members({"assets/../../x": b"x"}), "", 4, ["leads out of the archive"]),
    "an unknown format": ("m.keras", copy("m.keras"), "--to jpeg", 2, ["--to jpeg", "unknown format"]),
    "an opset that is too old": ("m.keras", copy("m.keras"), "--opset 9", 2, ["--opset 9"]),
    "a shape of another rank": (
        "m.keras",
        copy("m.keras"),
        "--input-shape x:1,2,4",
        2,
        ["--input-shape x:1,2,4", "declares x as ?,4", "--input-shape x:?,4"],
    ),
    "a shape with another fixed size": ("m.keras", copy("m.keras"), "--input-shape 1,5", 2, ["x:1,5", "x as ?,4"]),
    "a shape for no input": ("m.keras", copy("m.keras"), "--input-shape y:1,4", 2, ["no input 'y'", "inputs are x"]),
    "a shape when nothing is converted": ("m.keras", copy("m.keras"), "--input-shape y:1 --to dot", 2, ["'y'"]),
    "a batch that the model has fixed": (
        "m.keras",
        copy("fixed.keras"),
        "--batch-size 2",
        2,
        ["--batch-size 2", "3,4"],
    ),
    "a shape that is none": ("m.keras", copy("m.keras"), "--input-shape x:a", 2, ["'a' is not a dimension"]),
    "a model that was never built": ("m.keras", copy("unbuilt.keras"), "", 6, ["has no weights yet"]),
    "a subclassed model": ("m.keras", copy("subclassed.keras"), "", 6, ["custom class 'OwnModel'"]),
    "an op without an ONNX form": ("m.keras", copy("words.keras"), "", 6, ["lookup", "--to parquet,dot,svg"]),
    "pretrained weights for a file": ("m.keras", copy("m.keras"), "--weights imagenet", 2, ["--weights imagenet"]),
    "a weights file that is missing": ("m.keras", copy("m.keras"), "--weights w.h5", 2, ["--weights w.h5", "no such"]),
    "an output below a file": (
        "m.keras",
        copy("m.keras"),
        "-o m.keras/out",
        7,
        ["m.keras/out/m", "a file is in the way"],
    ),
    "an output in /proc": ("m.keras", copy("m.keras"), "-o /proc/out", 7, ["/proc/out/m: cannot be written"]),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with an older result of a model `m` in it."""
    monkeypatch.chdir(tmp_path)
    with files.Export(tmp_path / "outputs" / "m") as export:
        files.write_lines(export.staging / "model.onnx", ["an older result"])
        export.commit(
            ["model.onnx"], {"files": [vars(file) for file in files.describe(export.staging, ["model.onnx"], {})]}
        )
    yield tmp_path
    assert not list(tmp_path.rglob("*.inner"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("case", sampled(CASES, every=14))
def test_one_message_and_nothing_lost(case: str, good: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, spoil, flags, status, fragments = CASES[case]
    if spoil:
        spoil(good, place / name)
    before = snapshot(place)
    assert cli.main([name, "--force", *flags.split()], run_here) == status, capsys.readouterr()
    out, err = capsys.readouterr()
    messages = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1, err
    assert [fragment for fragment in fragments if fragment not in err] == [], err
    assert "\n  try: " in err
    assert len(messages[0]) < 1200
    assert "Traceback" not in out + err
    assert "defect" not in err
    assert snapshot(place) == before
    assert leftovers(place) == []

    shutil.rmtree(place / "outputs")
    assert cli.main([name, *flags.split()], run_here) == status
    assert not list((place / "outputs").glob("*")), "something looks finished"


def test_debug_shows_the_traceback(good: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members({"config.json": b"{"})(good, place / "m.keras")
    cli.main(["m.keras", "--debug", "--force"], run_here)
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "JSONDecodeError" in err


@pytest.mark.slow
def test_a_lambda_layer_runs_with_consent(good: Path, place: Path) -> None:
    for name in ("lambda.keras", "lambda.h5"):
        shutil.copy(good / name, place / name)
        assert cli.main([name, "--trust-code"], run_here) == 0
        receipt = files.read_manifest(place / "outputs" / "lambda")
        assert receipt is not None
        assert receipt["verification"]["status"] == "passed"


@pytest.mark.slow
def test_what_cannot_be_converted_can_still_be_described(good: Path, place: Path) -> None:
    shutil.copy(good / "words.keras", place / "words.keras")
    assert cli.main(["words.keras", "--to", "parquet,dot"], run_here) == 0
    assert (place / "outputs" / "words" / "layers.parquet").exists()


@pytest.mark.slow
def test_foreign_losses_do_no_harm(place: Path) -> None:
    """A model is trained with things that an export never loads."""
    change = config(
        lambda data: data.update(compile_config={"loss": {"module": "mine", "class_name": "L", "config": {}}})
    )
    stack = [keras.Input(SHAPE), layers.Dense(2)]
    keras.Sequential(stack).save(place / "m.keras")
    change(place, place / "other.keras")
    assert cli.main(["other.keras", "--no-verify"], run_here) == 0


@pytest.mark.slow
def test_damage_is_never_a_defect(good: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused, or nothing that matters was hit; no traceback, no crash.

    HDF5 files are cut and not flipped: they have no checksum, and libhdf5 loops without end over some damaged heaps.
    """
    dice = random.Random(0)
    for name in ("m.keras", "m.h5"):
        sound = (good / name).read_bytes()
        for _ in range(25):
            data = bytearray(sound)
            if name == "m.h5":
                del data[dice.randrange(len(data)) :]
            for _ in range(dice.choice([1, 10, 100]) if name == "m.keras" else 0):
                data[dice.randrange(len(data))] = dice.randrange(256)
            (place / name).write_bytes(data)
            status = cli.main([name, "--no-verify", "--force", "--to", "onnx"], run_here)
            assert status in (0, 4, 5, 6), capsys.readouterr().err


# The disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def big(place: Path) -> Path:
    """The older result, and a model whose weights take 160 kB."""
    keras.utils.clear_session()
    keras.Sequential([keras.Input((200,)), layers.Dense(200)]).save(place / "m.keras")
    return place


@pytest.mark.slow
def test_a_file_that_may_not_be_that_large(big: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot(big)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        status = cli.main(["m.keras", "--force"], run_here)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    err = capsys.readouterr().err
    assert status == 7, err
    assert "model.onnx: cannot be written: the file would be larger than" in err
    assert snapshot(big) == before
    assert leftovers(big) == []


@pytest.mark.slow
def test_a_full_disk(big: Path) -> None:
    """On a file system of 100 kB, by the real command."""
    (big / "disk").mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", "disk"], cwd=big, capture_output=True)
    if mount.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {mount.stderr.decode().strip()}")
    try:
        result = command(["m.keras", "-o", "disk"], cwd=big)
        assert list((big / "disk").iterdir()) == []
    finally:
        subprocess.run(["umount", "disk"], cwd=big, check=True)
    assert result.status == 7, result.text
    assert "the disk is too full" in result.err
    assert "are needed and" in result.err
    assert "--output" in result.err
    assert "Traceback" not in result.text


def test_an_unknown_name_suggests_the_nearest(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["resnet10"], run_here) == 2
    assert "try: resnet101" in capsys.readouterr().err


@pytest.mark.slow
def test_the_statuses_hold_for_the_real_command(good: Path, place: Path) -> None:
    """One that the parent finds, and one that the worker finds."""
    copy("lambda.keras")(good, place / "m.keras")
    cut("m.keras", 0.5)(good, place / "cut.keras")
    result = command(["cut.keras", "m.keras"], cwd=place)
    assert result.status == 4, result.text
    assert result.err.count("error: ") == 2
    assert "--trust-code" in result.err
    assert "Traceback" not in result.text
    assert os.listdir(place / "outputs") == ["m"]
