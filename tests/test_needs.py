"""Estimates of memory, made before anything is opened."""

from __future__ import annotations

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from exporting import job_for

from exporter.batch.needs import IMPORT_BYTES, READING_BYTES, UNKNOWN, need_bytes
from exporter.memory import conversion_bound_bytes
from exporter.records import TensorSpec
from exporter.sources.detection.applications import application_names
from exporter.sources.keras_models.application_sizes import SIZES
from exporter.sources.opened import open_model
from exporter.verification import verifying


def test_each_application_has_its_sizes() -> None:
    assert SIZES.keys() == set(application_names().values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "ConvNeXtTiny"])
def test_the_sizes_are_those_of_keras(name: str) -> None:
    model = getattr(keras.applications, name)(weights=None)
    nbytes = [math.prod(weight.shape) * np.dtype(weight.dtype).itemsize for weight in model.weights]
    assert (SIZES[name].largest_tensor_bytes, SIZES[name].weight_bytes) == (max(nbytes), sum(nbytes))


@pytest.mark.slow
def test_the_verification_s_need_is_that_of_its_own_estimate(tmp_path: Path) -> None:
    job = job_for("MobileNetV3Small", tmp_path, weights="random")
    opened = open_model(job, str(tmp_path))
    specs = tuple(TensorSpec(spec.name, (2, *(spec.shape or ())[1:]), spec.dtype) for spec in opened.inputs(job))
    sizes = SIZES["MobileNetV3Small"]
    known = verifying.REFERENCE_BASE_BYTES + verifying.WEIGHT_COPIES * sizes.weight_bytes + sizes.activation_bytes
    assert verifying.needed_bytes(opened.graph, specs) == known


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.keras"
    keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000)]).save(path)
    return path


def test_a_file_is_taken_for_one_tensor(archive: Path, tmp_path: Path) -> None:
    job = job_for(archive, tmp_path, verify=False)
    assert need_bytes(job) == conversion_bound_bytes(IMPORT_BYTES, archive.stat().st_size)
    assert need_bytes(job_for(archive, tmp_path)) > need_bytes(job)


def test_what_is_only_read_needs_little(archive: Path, tmp_path: Path) -> None:
    assert need_bytes(job_for(archive, tmp_path, formats=("parquet",))) == READING_BYTES


def test_nobody_knows_the_size_of_a_function(tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text("def make():\n    ...\n")
    job = job_for(f"{tmp_path}/made.py:make", tmp_path, trust_code=True, verify=False)
    assert need_bytes(job) == conversion_bound_bytes(IMPORT_BYTES, UNKNOWN.weight_bytes)
