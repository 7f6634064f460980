"""Importing large libraries without what this package has no use for."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder

# Keras and TensorFlow import these where they are installed: for data frames, notebooks, pictures, scikit-learn. Keras
# takes 0.4 s to import pandas, which the extra `query` of this package brings along.
OPTIONAL = ("IPython", "PIL", "cv2", "huggingface_hub", "jax", "matplotlib", "pandas", "pydot", "scipy", "sklearn")
# New containers between two searches for reference cycles. Python's 700 cost a twentieth of a conversion; cycles are
# few, and `memory.release_unused` frees them before weights are made.
COLLECTION_INTERVAL = 50_000


def collect_rarely() -> None:
    """For a process that ends soon: search for reference cycles after more than Python's 700 new containers."""
    gc.set_threshold(COLLECTION_INTERVAL, *gc.get_threshold()[1:])


class _Hiding(MetaPathFinder):
    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = frozenset(modules)

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name in self._modules:
            raise ModuleNotFoundError(f"No module named {name!r} (it is hidden)", name=name)


@contextmanager
def hidden(modules: Sequence[str]) -> Iterator[None]:
    """Inside the block those of the modules that are not imported yet appear not to be installed."""
    finder = _Hiding(modules)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def lean_imports() -> Iterator[None]:
    """For the import of TensorFlow: without `OPTIONAL`, and without searches for reference cycles.

    A million objects that stay are made here. What is there at the end is left out of later searches, too: a full one
    would take 0.2 s. Nothing of this where TensorFlow is imported already, in a process that exports many models.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    gc.disable()
    try:
        with hidden(OPTIONAL):
            yield
    finally:
        gc.freeze()
        collect_rarely()
        gc.enable()
