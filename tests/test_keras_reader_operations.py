"""Operations of `keras.ops` as outputs of models: shapes and kinds of numbers as Keras works them out."""

from __future__ import annotations

import importlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import pytest
from reader_operations import DTYPES, PAIRS, of_constants, of_images, of_one, of_two, others
from sampling import sampled
from test_keras_reader import by_itself, by_keras, saved

from exporter.readers import Unexplained
from exporter.readers.keras_calls import Ref
from exporter.readers.keras_dtypes import LARGER, OF_PYTHON, promoted
from exporter.readers.keras_operations import OPERATIONS, operation_outputs

# Those that take functions, which no file can hold, and those whose number of tensors depends on more than a config.
LEFT_TO_KERAS = {
    *("AssociativeScan", "Cond", "ForiLoop", "JVP", "Map", "Scan", "Switch", "VectorizedMap", "WhileLoop"),
    *("Linspace", "Ndim", "Nonzero", "Unique", "UnravelIndex"),
}
MODULES = ("core", "einops", "image", "linalg", "math", "nn", "numpy")
Made = tuple[Any, dict[str, Any]]


@pytest.fixture(autouse=True)
def _fresh_names() -> Iterator[None]:
    keras.utils.clear_session(free_memory=False)
    yield
    keras.utils.clear_session(free_memory=False)


def test_all_operations_are_known() -> None:
    modules = [importlib.import_module(f"keras.src.ops.{name}") for name in MODULES]
    found = ((module, value) for module in modules for value in vars(module).values() if inspect.isclass(value))
    classes = {value.__name__ for module, value in found if value.__module__ == module.__name__}
    operations = {name for name in classes if not name.startswith("_")} - {"Operation"}
    assert operations - OPERATIONS == LEFT_TO_KERAS
    assert operations >= OPERATIONS


@pytest.mark.parametrize(
    ("name", "config"),
    [("Split", {"indices_or_sections": 10**12}), ("Unstack", {"num": 10**12}), ("Unstack", {"num": -1})],
)
def test_absurd_numbers_of_outputs_are_not_believed(name: str, config: dict[str, Any]) -> None:
    with pytest.raises(Unexplained, match="tensors"):
        operation_outputs(name, config, [(Ref("x", 0, 0, (None, 4), "float32"),)])


def test_kinds_of_numbers_meet_as_in_keras() -> None:
    of_python: dict[str, Any] = {"int": int, "float": float}
    for pair in itertools.product(LARGER, repeat=2):
        if not set(pair) <= OF_PYTHON.keys():
            try:
                theirs = keras.backend.result_type(*(of_python.get(kind, kind) for kind in pair))
            except ValueError:
                theirs = None
            assert _promoted(pair) == theirs, pair


def _promoted(pair: tuple[str, str]) -> str | None:
    try:
        return promoted(*pair)
    except Unexplained:
        return None


@pytest.mark.parametrize(
    ("make", "count"),
    sampled(
        [
            (of_images, 10),
            (others, 46),
            *((partial(of_one, dtype), 50) for dtype in DTYPES),
            *((partial(of_two, *pair), 15) for pair in PAIRS),
            *((partial(of_constants, dtype), 60) for dtype in DTYPES),
        ],
        every=100,
    ),
)
def test_outputs_are_described_as_by_keras(make: Callable[[], Made], count: int, tmp_path: Path) -> None:
    given, made = make()
    path = saved(keras.Model(given, made), tmp_path)
    ours, theirs = by_itself(path), by_keras(path)
    assert len(made) >= count
    assert {each.name: each for each in ours.outputs} == {each.name: each for each in theirs.outputs}
    assert ours == theirs
