"""Convert TensorFlow and Keras models into files that can be inspected without TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.query.catalogue import open_catalogue as open_catalogue

__version__ = "0.1.0"
__all__ = ["__version__", "open_catalogue"]


def __getattr__(name: str) -> Any:
    """`open_catalogue` is imported when it is asked for, so that importing the package costs nothing."""
    if name == "open_catalogue":
        from exporter.query.catalogue import open_catalogue

        return open_catalogue
    raise AttributeError(f"module 'exporter' has no attribute {name!r}")
