"""Options are checked before anything runs, jobs are complete, and a fingerprint changes with what it stands for."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from exporter import files, plan, resuming
from exporter.defaults import SUPPORTED_OPSETS
from exporter.errors import SourceError, UsageError
from exporter.options import ExportOptions, parse_input_shape
from exporter.records import Job
from exporter.sources import digest
from exporter.storage import addresses


def keras_file(path: Path, content: str = "{}") -> str:
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", content)
    return str(path)


def only_job(source: str = "resnet101", **options: Any) -> Job:
    (job,) = plan.plan([source], ExportOptions(**options))
    assert isinstance(job, Job)
    return job


def test_a_job_is_complete() -> None:
    job = only_job("ResNet-101", formats=("svg", "onnx"), max_memory="4GiB", input_shapes=("1,224,224,3",))
    assert (job.source, job.kind, job.name) == ("ResNet101", "application", "resnet101")
    assert job.output_path == "outputs/resnet101"
    assert job.formats == ("onnx", "svg")
    assert job.max_memory_bytes == 4 * 2**30
    assert job.input_shapes == {"": (1, 224, 224, 3)}
    assert len(job.fingerprint) == len(job.source_digest) == 64


@pytest.mark.parametrize(
    ("text", "name", "shape"),
    [
        ("1,224,224,3", "", (1, 224, 224, 3)),
        ("image:1,224,224,3", "image", (1, 224, 224, 3)),
        ("image:?,None,-1,3", "image", (None, None, None, 3)),
        ("serving_default:0:8,16", "serving_default:0", (8, 16)),
        (" x : (1, 2,) ", "x", (1, 2)),
        ("[7]", "", (7,)),
    ],
)
def test_input_shapes(text: str, name: str, shape: tuple[int | None, ...]) -> None:
    assert parse_input_shape(text) == (name, shape)


BAD_OPTIONS = [
    ({"input_shapes": (text,)}, "is not a dimension")
    for text in ("", "image:", "1,0,3", "1,-2", "a,b", "1x2", "1.5", "1,,3", "9" * 30, "²", "image")
] + [
    ({"input_shapes": ("1,2", "3,4")}, "given twice"),
    ({"input_shapes": ("1,2", "x:3,4")}, "one has no name"),
    ({"input_shapes": ("2,3",), "batch_size": 4}, "differs from --batch-size 4"),
    ({"formats": ("onxx",)}, "unknown format"),
    ({"formats": ()}, "no format is named"),
    ({"opset": SUPPORTED_OPSETS[0] - 1}, f"supported opsets are {SUPPORTED_OPSETS[0]} to {SUPPORTED_OPSETS[-1]}"),
    ({"opset": SUPPORTED_OPSETS[-1] + 1}, f"supported opsets are {SUPPORTED_OPSETS[0]} to {SUPPORTED_OPSETS[-1]}"),
    ({"batch_size": 0}, "at least one sample"),
    ({"seed": -1}, "a seed is from 0"),
    ({"atol": float("nan")}, "finite"),
    ({"rtol": -1.0}, "not negative"),
    ({"layout_seconds": 0.0}, "above zero"),
    ({"max_memory": "many"}, "is not a size"),
    ({"max_memory": "0"}, "a size is above zero"),
    ({"shard_size": "0"}, "a size is above zero"),
    ({"shard_size": "much"}, "is not a size"),
    ({"shard_size": "1GB", "external_data": "never"}, "there are no data files"),
    ({"external_data": "perhaps"}, "none of auto, always, never"),
    ({"weights": "imagnet"}, "no such file exists"),
    ({"weights": "/"}, "it is not a file"),
]


@pytest.mark.parametrize(("options", "fragment"), BAD_OPTIONS, ids=[str(row[0]) for row in BAD_OPTIONS])
def test_options_that_make_no_sense_are_refused_with_a_hint(options: dict[str, Any], fragment: str) -> None:
    with pytest.raises(UsageError) as caught:
        only_job(**options)
    assert fragment in str(caught.value)
    assert caught.value.hint


def test_near_misses_are_suggested() -> None:
    with pytest.raises(UsageError) as caught:
        only_job(formats=("parket",))
    assert caught.value.hint == "--to parquet"
    with pytest.raises(UsageError) as caught:
        only_job(weights="imagnet")
    assert caught.value.hint == "--weights imagenet"


def test_a_bad_source_does_not_stop_the_others(tmp_path: Path) -> None:
    planned = plan.plan([str(tmp_path / "x.keras"), "resnet10", "vgg16"], ExportOptions())
    first, second, third = planned
    assert isinstance(first, plan.Refusal)
    assert isinstance(first.error, SourceError)
    assert isinstance(second, plan.Refusal)
    assert second.source == "resnet10"
    assert isinstance(third, Job)


def test_imagenet_weights_are_refused_for_a_file_only(tmp_path: Path) -> None:
    first, second = plan.plan([keras_file(tmp_path / "m.keras"), "vgg16"], ExportOptions(weights="imagenet"))
    assert isinstance(first, plan.Refusal)
    assert isinstance(second, Job)


def test_equal_names_get_a_number_and_equal_sources_one_job(tmp_path: Path) -> None:
    sources = [
        keras_file(tmp_path / "a/model.keras"),
        keras_file(tmp_path / "b/Model.keras"),
        keras_file(tmp_path / "a/model-2.keras"),
        str(tmp_path / "b/../a/model.keras"),
        "VGG16",
        "vgg-16",
    ]
    jobs = [job for job in plan.plan(sources, ExportOptions()) if isinstance(job, Job)]
    assert [job.name for job in jobs] == ["model", "Model-2", "model-2-2", "vgg16"]


def test_the_fingerprint_stays_when_nothing_that_matters_changes(tmp_path: Path) -> None:
    first, second = keras_file(tmp_path / "a/m.keras"), keras_file(tmp_path / "b/m.keras")
    assert only_job(first).fingerprint == only_job(second, output="elsewhere").fingerprint
    assert only_job(formats=("svg", "onnx")).fingerprint == only_job(formats=("onnx", "svg", "onnx")).fingerprint
    assert only_job("VGG16").fingerprint == only_job("vgg-16", trust_code=True).fingerprint


@pytest.mark.parametrize(
    "options",
    [
        {"opset": 17},
        {"seed": 1},
        {"weights": "random"},
        {"formats": ("onnx",)},
        {"batch_size": 1},
        {"input_shapes": ("1,2",)},
        {"verify": False},
        {"atol": 1.0},
        {"rtol": 1.0},
        {"layout_seconds": 1.0},
        {"external_data": "always"},
        {"shard_size": "1GB"},
    ],
    ids=str,
)
def test_the_fingerprint_follows_each_option(options: dict[str, Any]) -> None:
    assert only_job(**options).fingerprint != only_job().fingerprint


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 1},
        {"expand": ("all",)},
        {"max_nodes": 9},
        {"direction": "right"},
        {"theme": "dark"},
        {"color_by": "params"},
    ],
    ids=str,
)
def test_the_fingerprint_follows_each_option_of_pictures(options: dict[str, Any]) -> None:
    drawn = {"formats": ("svg",)}
    assert only_job(**drawn, **options).fingerprint != only_job(**drawn).fingerprint


def test_the_fingerprint_follows_contents_and_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.keras"
    first = only_job(keras_file(path))
    second = only_job(keras_file(path, '{"changed": 1}'))
    assert first.source_digest != second.source_digest
    assert first.fingerprint != second.fingerprint
    monkeypatch.setattr(plan, "__version__", "9.9.9")
    assert only_job(str(path)).fingerprint != second.fingerprint


def test_a_weights_file_counts_by_its_content(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.weights.h5", "b.weights.h5", "c.weights.h5")]
    for path, content in zip(paths, ("same", "same", "other"), strict=True):
        path.write_text(content)
    first, second, third = (only_job(weights=str(path)) for path in paths)
    assert first.fingerprint == second.fingerprint != third.fingerprint
    assert first.source_digest == second.source_digest != third.source_digest


def finished(tmp_path: Path, weights: str = "auto", **changes: object) -> Job:
    job = only_job(output=str(tmp_path), weights=weights)
    folder = Path(job.output_path)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"12345")
    record = {"name": "model.onnx", "nbytes": 5, "sha256": ""}
    manifest: dict[str, object] = {"fingerprint": job.fingerprint, "files": [record], "weights": "random (seed 0)"}
    files.write_json(folder / files.MANIFEST, manifest | changes)
    return job


@pytest.mark.parametrize(
    ("changes", "done"),
    [
        ({}, True),
        ({"verification": None}, True),
        ({"verification": {"status": "passed"}}, True),
        ({"verification": {"status": "skipped"}}, True),
        ({"verification": {"status": "mismatch"}}, False),
        ({"fingerprint": "other"}, False),
        ({"files": [{"name": "model.onnx", "nbytes": 6}]}, False),
        ({"files": [{"name": "gone.onnx", "nbytes": 6}]}, False),
    ],
    ids=str,
)
def test_a_job_is_done_when_its_receipt_and_files_agree(tmp_path: Path, changes: dict[str, object], done: bool) -> None:
    assert resuming.is_done(finished(tmp_path, **changes)) is done


@pytest.mark.parametrize(
    ("verdict", "before", "now", "done"),
    [
        ("passed", None, "4GiB", True),
        ("passed", 2**30, None, True),
        ("skipped", 2**32, "4GiB", True),
        ("skipped", None, None, True),
        ("skipped", 2**30, "4GiB", False),
        ("skipped", 2**30, None, False),
    ],
)
def test_another_limit_of_memory_repeats_only_what_could_not_be_verified(
    tmp_path: Path, verdict: str, before: int | None, now: str | None, done: bool
) -> None:
    finished(tmp_path, verification={"status": verdict}, arguments={"max_memory_bytes": before})
    assert resuming.is_done(only_job(output=str(tmp_path), max_memory=now)) is done


def test_without_a_readable_receipt_nothing_is_done(tmp_path: Path) -> None:
    job = finished(tmp_path)
    receipt = Path(job.output_path, files.MANIFEST)
    receipt.write_text(json.dumps([1]))
    assert not resuming.is_done(job)
    receipt.unlink()
    assert not resuming.is_done(job)


def test_a_large_source_is_read_only_when_all_else_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digest, "CHEAP_NBYTES", 3)
    weights = tmp_path / "w.weights.h5"
    weights.write_text("many")
    job = only_job(weights=str(weights), output=str(tmp_path))
    assert job.source_digest == ""
    assert not resuming.must_read(job)
    assert not resuming.is_done(job)
    job = finished(tmp_path, weights=str(weights), source_digest=digest.source_digest(job))
    assert resuming.must_read(job)
    assert resuming.is_done(job)
    weights.write_text("else")
    assert resuming.must_read(job)
    assert not resuming.is_done(job)
    weights.unlink()
    assert not resuming.is_done(job)


def test_an_archive_counts_by_its_members(tmp_path: Path) -> None:
    path = Path(keras_file(tmp_path / "m.keras"))
    before = only_job(str(path)).source_digest
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
    assert path.read_bytes() != content
    assert only_job(str(path)).source_digest == before
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("more", "")
    assert only_job(str(path)).source_digest != before


def test_a_skipped_job_still_tells_its_weights(tmp_path: Path) -> None:
    outcome = resuming.skipped(finished(tmp_path))
    assert (outcome.status, outcome.weights) == ("skipped", "random (seed 0)")


@pytest.mark.parametrize(("scheme", "client"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_a_store_without_its_client_is_told_once_for_all(
    scheme: str, client: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == client else find(name))
    with pytest.raises(UsageError, match=f"{client} is not installed") as caught:
        plan.plan(["resnet50", "vgg16"], ExportOptions(output=f"{scheme}://bucket/zoo"))
    assert caught.value.hint == f"pip install 'export-model[{scheme}]'"


@pytest.mark.parametrize(("scheme", "client"), [("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs")])
def test_a_client_that_is_too_old_is_told(scheme: str, client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip takes an ancient one where other packages leave it no choice, and it fails in the middle of an export."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.4.2")
    with pytest.raises(UsageError, match=f"{client} 0.4.2 is too old") as caught:
        addresses.check_output(f"{scheme}://bucket/zoo")
    assert caught.value.hint == f"pip install --upgrade 'export-model[{scheme}]'"
    oldest = ".".join(map(str, addresses.OLDEST[client]))
    assert f'"{client}>={oldest}"' in Path(__file__).parent.parent.joinpath("pyproject.toml").read_text("utf-8")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{oldest}.post1")
    addresses.check_output(f"{scheme}://bucket/zoo")
