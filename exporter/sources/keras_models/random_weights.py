"""Seeded values for variables that have none, one tensor at a time, from each variable's own initializer."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from exporter.lazy import LazyArray

# Above this size an initializer runs as one compiled graph, in which TensorFlow scales and shifts in place; run op by
# op it would hold three copies of the tensor.
COMPILED_NBYTES = 32 * 2**20


def random_value(variable: Any, seed: int, name: str) -> LazyArray:
    """What the initializer of a hollow variable gives for a seed made from `seed` and the weight's `name`.

    The value does not depend on the order in which weights are made, so that two processes agree on it.
    """
    initializer, shape, dtype = variable._initializer, tuple(variable.shape), variable.dtype
    own_seed = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4]) >> 1

    def make() -> np.ndarray:
        seeded = _seeded(initializer, own_seed)
        if isinstance(seeded, keras.initializers.Initializer) and value.nbytes > COMPILED_NBYTES:
            return tf.function(lambda: seeded(shape, dtype=dtype), autograph=False)().numpy()
        return np.asarray(seeded(shape, dtype=dtype))

    value = LazyArray(shape, tf.as_dtype(dtype).as_numpy_dtype, make, frozenset([name]))
    return value


def _seeded(initializer: Any, seed: int) -> Any:
    """The initializer with its seed replaced; one that is a plain function draws from Keras's global generator."""
    if isinstance(initializer, keras.initializers.Initializer):
        config = initializer.get_config()
        return type(initializer).from_config(config | {"seed": seed}) if "seed" in config else initializer
    keras.utils.set_random_seed(seed)
    return initializer
