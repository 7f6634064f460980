"""The names of the groups in which Keras 3 keeps the weights of layers in a file."""

from __future__ import annotations

import functools
import re


def stored_name(class_name: str, used: dict[str, int]) -> str:
    """`Conv2D` → `conv2d`, `conv2d_1`: as Keras names the groups of a list of layers (`saving_lib`)."""
    name = _snake_case(class_name)
    used[name] = used.get(name, -1) + 1
    return f"{name}_{used[name]}" if used[name] else name


@functools.cache
def _snake_case(name: str) -> str:
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
