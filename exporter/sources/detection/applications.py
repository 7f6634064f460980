"""The models of the installed Keras, by name. Nothing here imports Keras."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path

from exporter.errors import UnsupportedError


def application_names() -> dict[str, str]:
    """The models of the installed Keras, normalised spelling → exported name, read from its source text."""
    spec = importlib.util.find_spec("keras")
    if spec is None or not spec.submodule_search_locations:
        raise UnsupportedError(
            "names of Keras applications cannot be used",
            why="Keras is not installed",
            hint="pip install keras tensorflow",
        )
    return _exported_functions(Path(spec.submodule_search_locations[0]) / "applications" / "__init__.py")


def normalise(name: str) -> str:
    """`mobilenet-v3_Small` → `mobilenetv3small`."""
    return re.sub(r"[-_. ]", "", name.lower())


@functools.cache
def _exported_functions(path: Path) -> dict[str, str]:
    """Names starting with a capital that a module imports: by Keras's convention the model functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    aliases = (alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names)
    names = sorted({alias.asname or alias.name for alias in aliases})
    return {normalise(name): name for name in names if name[0].isupper()}
