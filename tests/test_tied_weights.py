"""A weight that is used as it is and transposed is stored once, where that is worth a node."""

from __future__ import annotations

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from typing import Any

import keras
import numpy as np
import onnx
import pytest
from conversion import convert, filled, random_inputs, run_keras, run_onnx
from keras import layers

from exporter.lazy import LazyArray
from exporter.sources.conversion import tied_weights


def tied() -> Any:
    embedding = layers.ReversibleEmbedding(50, 16, tie_weights=True, name="embedding")
    ids = keras.Input((5,), dtype="int32", name="ids")
    return keras.Model(ids, embedding(layers.Dense(16, name="dense")(embedding(ids)), reverse=True))


@pytest.mark.slow
@pytest.mark.parametrize("small_nbytes", [0, tied_weights.SMALL_NBYTES])
def test_a_tied_embedding(small_nbytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tied_weights, "SMALL_NBYTES", small_nbytes)
    real = filled(tied())
    converted = convert(tied, real)
    assert sorted(converted.structure.weights) == sorted(
        ["dense/bias", "dense/kernel", "embedding/embeddings", *(["embedding/embeddings_1"] if small_nbytes else [])]
    )
    assert converted.ops.count("Transpose") == (0 if small_nbytes else 1)
    assert {node.layer for node in converted.structure.nodes} == {"embedding", "dense"}
    onnx.checker.check_model(converted.model, full_check=True)
    ids = random_inputs(real.inputs)
    np.testing.assert_allclose(run_onnx(converted, ids)[0], run_keras(real, ids)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("how", "same"),
    [
        (lambda w: w.T, True),
        (lambda w: w.transpose(1, 0), True),
        (lambda w: w.transpose((-1, 0)), True),
        (lambda w: np.transpose(w, [1, 0]), True),
        (lambda w: w.named("other").T, True),
        (lambda w: w.transpose(0, 1), False),
        (lambda w: (w * 2).T, False),
        (lambda w: w.reshape(4, 3).T, False),
        (lambda w: w.T.reshape(2, 6), True),
    ],
)
def test_what_counts_as_the_same_content(how: Any, same: bool) -> None:
    weight = LazyArray.of(np.zeros((3, 4), np.float32))
    assert (how(weight).content == weight.T.content) is same
