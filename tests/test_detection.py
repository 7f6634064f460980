"""A source is told by its content, or by its name where there is no such file; each failure has its own sentence."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from exporter.errors import ExportError, SourceError, UnsupportedError, UsageError
from exporter.sources.detection import SourceRef, application_names, detect
from exporter.sources.detection.keras_files import HDF5_SIGNATURE
from exporter.view.targets import resolve


def keras_archive(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"{}" * 50)
    return path


def hdf5(path: Path, userblock_size: int = 0, **attributes: str) -> Path:
    with h5py.File(path, "w", userblock_size=userblock_size) as stream:
        stream.attrs.update(attributes)
    return path


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("resnet101", "ResNet101"),
        ("ResNet101", "ResNet101"),
        ("RESNET-101", "ResNet101"),
        ("efficientnet_v2_b0", "EfficientNetV2B0"),
        ("mobilenet-v3-small", "MobileNetV3Small"),
        ("convnext tiny", "ConvNeXtTiny"),
        ("inception.resnet.v2", "InceptionResNetV2"),
    ],
)
def test_applications_in_any_spelling(spelling: str, canonical: str) -> None:
    assert detect(spelling) == SourceRef("application", canonical, canonical.lower())


def test_all_exported_functions_are_known_and_modules_are_not() -> None:
    names = application_names()
    assert {"resnet50", "vgg16", "xception", "nasnetlarge", "efficientnetv2s", "convnextxlarge"} <= names.keys()
    assert "imagenetutils" not in names


def test_names_are_found_without_importing_keras() -> None:
    code = "import sys; from exporter.sources.detection import detect; detect('vgg16'); print('keras' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "no suffix", "model.onnx"])
def test_a_keras_archive_is_told_by_its_content(tmp_path: Path, name: str) -> None:
    assert detect(str(keras_archive(tmp_path / name, "config.json", "metadata.json"))).kind == "keras_archive"


@pytest.mark.parametrize("userblock_size", [0, 512, 2048])
def test_a_whole_model_in_hdf5_is_told_by_its_content(tmp_path: Path, userblock_size: int) -> None:
    path = hdf5(tmp_path / "model.keras", userblock_size, model_config="{}")
    assert detect(str(path)) == SourceRef("keras_h5", str(path), "model")


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("my model (v1).keras", "my_model_v1"),
        ('a"b#c?d%e<f.keras', "a_b_c_d_e_f"),
        ("..keras", "model"),
        ("a.b.keras", "a.b"),
        ("---.keras", "model"),
        ("\x1b[2J.keras", "2J"),
        ("größe.keras", "größe"),
        ("x" * 200 + ".keras", "x" * 60),
    ],
)
def test_the_folder_name_of_a_file_is_harmless(tmp_path: Path, file_name: str, name: str) -> None:
    assert detect(str(keras_archive(tmp_path / file_name, "config.json"))).name == name


def test_a_model_name_means_the_model_although_its_export_lies_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "resnet101").mkdir()
    assert detect("resnet101").kind == "application"
    with pytest.raises(SourceError, match="it is a folder"):
        detect("./resnet101")


def test_a_folder_of_exports_and_one_that_is_an_export_say_what_is_meant(tmp_path: Path) -> None:
    for name in (".hidden", "b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text("{}")
    with pytest.raises(SourceError, match="it is a folder of exports") as several:
        detect(str(tmp_path))
    assert f"such as {tmp_path / 'a'}," in several.value.hint
    with pytest.raises(SourceError, match="it is the folder of an export") as single:
        detect(str(tmp_path / "a"))
    assert f"export-model inspect {tmp_path / 'a'} " in single.value.hint
    with pytest.raises(SourceError, match="it is a folder of exports") as viewed:
        resolve(tmp_path)
    assert str(tmp_path / "a") in viewed.value.hint


def weights_file(path: Path) -> Path:
    with h5py.File(path, "w") as stream:
        stream.create_group("layers/dense/vars")
    return path


def truncated(path: Path, make: Callable[[Path], Path]) -> Path:
    make(path)
    os.truncate(path, path.stat().st_size * 2 // 3)
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (weights_file, "keras_weights"),
        (lambda path: hdf5(path, layer_names="dense"), "keras_weights"),
        (
            lambda path: written(path, b'{"weight_map": {"/layers/dense/vars": ["m_00000.weights.h5"]}}'),
            "keras_weights",
        ),
        (lambda path: written(path, (2).to_bytes(8, "little") + b"{}"), "safetensors"),
        # The length of the header reads as the beginning of a JSON text.
        (lambda path: written(path, b"{" + bytes(7) + b"{" + b" " * 121 + b"}"), "safetensors"),
        (lambda path: written(path, b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'), "safetensors"),
    ],
)
def test_weights_alone_are_told_by_their_content(tmp_path: Path, make: Callable[[Path], Path], kind: str) -> None:
    assert detect(str(make(tmp_path / "weights.bin"))).kind == kind


FAILURES: list[tuple[str, Callable[[Path], Path], type[ExportError], str, str]] = [
    ("missing.keras", lambda path: path, SourceError, "no such file or folder", "check the path"),
    ("empty.keras", lambda path: written(path, b""), SourceError, "the file is empty", "model.save"),
    (
        "text.keras",
        lambda path: written(path, "größe\n".encode() * 999),
        SourceError,
        "it is a text file",
        "model.save",
    ),
    (
        "random.h5",
        lambda path: written(path, b"\x00\xff\x80" * 99),
        SourceError,
        "of no kind that is known",
        "model.save",
    ),
    (
        "lfs.h5",
        lambda path: written(path, b"version https://git-lfs.github.com/spec/v1\n"),
        SourceError,
        "LFS",
        "git lfs",
    ),
    ("folder", lambda path: path.mkdir() or path, SourceError, "it is a folder", ".keras"),  # type: ignore[func-returns-value]
    (
        "cut.keras",
        lambda path: truncated(path, lambda p: keras_archive(p, "config.json")),
        SourceError,
        "truncated",
        "again",
    ),
    ("other.keras", lambda path: keras_archive(path, "a/config.json"), SourceError, "no config.json", "model.save"),
    (
        "cut.h5",
        lambda path: truncated(path, lambda p: hdf5(p, model_config="{}" * 999)),
        SourceError,
        "truncated",
        "again",
    ),
    ("fake.h5", lambda path: written(path, HDF5_SIGNATURE + b"\xff" * 99), SourceError, "as an HDF5 file", "again"),
    (
        "pytorch.bin",
        lambda path: keras_archive(path, "archive/data.pkl"),
        UnsupportedError,
        "pickled Python objects",
        "safetensors",
    ),
    ("m.pkl", lambda path: written(path, b"\x80\x04\x95" + bytes(99)), UnsupportedError, "pickled", "safetensors"),
    (
        "pytorch_model.bin.index.json",
        lambda path: written(path, b'{"weight_map": {"a": "pytorch_model-1.bin"}}'),
        UnsupportedError,
        "pickled",
        "safetensors",
    ),
    ("data.h5", lambda path: hdf5(path, title="measurements"), SourceError, "no model_config", "model.save"),
    ("pipe.keras", lambda path: os.mkfifo(path) or path, SourceError, "neither a file nor a folder", "model.save"),  # type: ignore[func-returns-value]
]


@pytest.mark.parametrize(("name", "make", "kind", "fragment", "hint"), FAILURES, ids=[row[0] for row in FAILURES])
def test_what_cannot_be_exported_says_why(
    tmp_path: Path, name: str, make: Callable[[Path], Path], kind: type[ExportError], fragment: str, hint: str
) -> None:
    path = make(tmp_path / name)
    with pytest.raises(kind) as caught:
        detect(str(path))
    assert type(caught.value) is kind
    assert fragment in str(caught.value)
    assert str(path) in caught.value.where
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("resnet10", "resnet101"), ("mobilenetv3", "mobilenetv3small"), ("qqq", "such as resnet101")],
)
def test_an_unknown_name_suggests_the_nearest(name: str, suggestion: str) -> None:
    with pytest.raises(UsageError) as caught:
        detect(name)
    assert suggestion in caught.value.hint


def test_a_misspelled_path_suggests_its_neighbour(tmp_path: Path) -> None:
    keras_archive(tmp_path / "classifier.keras", "config.json")
    with pytest.raises(SourceError) as caught:
        detect(str(tmp_path / "clasifier.keras"))
    assert caught.value.hint == str(tmp_path / "classifier.keras")


def test_an_empty_source_is_not_the_current_folder() -> None:
    with pytest.raises(UsageError, match="no SOURCE"):
        detect("")


@pytest.mark.parametrize("source", ["x" * 5000, "a/" * 3000, "nul\0.keras"])
def test_impossible_paths_are_errors_of_ours(source: str) -> None:
    with pytest.raises(ExportError):
        detect(source)


def test_only_the_ends_of_a_huge_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.keras"
    with open(path, "wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(SourceError, match="of no kind that is known"):
        detect(str(path))


def test_the_kind_can_be_said(tmp_path: Path) -> None:
    path = str(keras_archive(tmp_path / "m.keras", "config.json"))
    assert detect(path, "keras_archive") == detect(path)
    forced = detect(path, "onnx_file")
    assert forced == SourceRef("onnx_file", path, "m", "is a Keras archive")
    unknown = detect(str(written(tmp_path / "x", b"\xff" * 99)), "onnx_file")
    assert unknown.kind == "onnx_file"
    assert "of no kind that is known" in unknown.seen


@pytest.mark.parametrize(
    ("source", "kind", "fragment"),
    [
        ("vgg16", "onnx", "unknown kind"),
        ("vgg16", "onnx_file", "is a model of keras.app"),
        ("no.onnx", "onnx_file", "no such"),
    ],
)
def test_a_kind_that_cannot_be(source: str, kind: str, fragment: str) -> None:
    with pytest.raises(ExportError, match=fragment):
        detect(source, kind)
