"""What importing TensorFlow in the worker leaves out; the modules here stand for TensorFlow and what it may import."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter import startup

MODULE = "optional_for_keras"


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process that has not imported TensorFlow, with an optional library; the collector is as before at the end."""
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    (tmp_path / f"{MODULE}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(startup, "OPTIONAL", (MODULE,))
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    yield
    gc.set_threshold(*thresholds)
    if not frozen:
        gc.unfreeze()
    sys.modules.pop(MODULE, None)


@pytest.mark.usefixtures("fresh")
def test_optional_libraries_appear_missing_while_tensorflow_is_imported_and_only_then() -> None:
    with startup.lean_imports(), pytest.raises(ImportError):
        importlib.import_module(MODULE)
    assert importlib.import_module(MODULE) is sys.modules[MODULE]


@pytest.mark.usefixtures("fresh")
def test_a_library_that_is_imported_already_stays() -> None:
    before = importlib.import_module(MODULE)
    with startup.lean_imports():
        assert importlib.import_module(MODULE) is before
    assert sys.modules[MODULE] is before


@pytest.mark.usefixtures("fresh")
def test_cycles_are_not_searched_for_meanwhile_and_are_afterwards() -> None:
    with startup.lean_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_threshold()[0] == startup.COLLECTION_INTERVAL
    assert gc.get_freeze_count() > 0


@pytest.mark.usefixtures("fresh")
def test_all_is_put_back_when_the_import_fails() -> None:
    with pytest.raises(RuntimeError), startup.lean_imports():
        raise RuntimeError
    assert gc.isenabled()
    assert MODULE not in sys.modules


def test_a_process_that_has_tensorflow_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    before = gc.get_threshold(), gc.get_freeze_count()
    with startup.lean_imports():
        assert gc.isenabled()
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
