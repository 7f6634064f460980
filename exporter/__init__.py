"""Convert TensorFlow and Keras models into files that can be inspected without TensorFlow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.networks.graph import to_networkx as to_networkx
    from exporter.notebook import export as export
    from exporter.notebook import inspect as inspect
    from exporter.query.catalogue import open_catalogue as open_catalogue

__version__ = "0.1.0"
__all__ = ["__version__", "export", "inspect", "open_catalogue", "to_networkx"]


def __getattr__(name: str) -> Any:
    """What is public is imported when it is asked for, so that importing the package costs nothing."""
    if name == "open_catalogue":
        from exporter.query.catalogue import open_catalogue

        return open_catalogue
    if name == "to_networkx":
        from exporter.networks.graph import to_networkx

        return to_networkx
    if name in ("export", "inspect"):
        from exporter import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'exporter' has no attribute {name!r}")
