"""Small models as TensorFlow itself saves them: SavedModels of four makers, frozen graphs, checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

v1 = tf.compat.v1


class Net(tf.Module):
    """Two signatures' worth of arithmetic over one table and two variables; TensorFlow calls everything a module."""

    def __init__(self) -> None:
        super().__init__(name="net")
        numbers = np.random.default_rng(0)
        self.weight = tf.Variable(numbers.normal(size=(4, 5)).astype("float32"), name="weight")
        self.bias = tf.Variable(numbers.normal(size=5).astype("float32"), name="bias")
        self.table = tf.Variable(numbers.normal(size=(7, 4)).astype("float32"), name="table", trainable=False)

    def embed(self, index: Any) -> dict[str, Any]:
        with tf.name_scope("body"):
            rows = tf.gather(self.table, index)
            return {"rows": rows, "hidden": tf.nn.relu(rows @ self.weight + self.bias)}

    def project(self, x: Any) -> dict[str, Any]:
        return {"y": x @ self.weight}


class Looping(tf.Module):
    """Variables and large constants inside of a loop, and inside of a branch in it."""

    def __init__(self) -> None:
        super().__init__(name="looping")
        numbers = np.random.default_rng(1)
        self.one = tf.Variable(numbers.normal(size=(3, 3)).astype("float32") / 3, name="one")
        self.other = tf.Variable(numbers.normal(size=(3, 3)).astype("float32") / 3, name="other")
        self.rows = tf.Variable(numbers.normal(size=(6, 3)).astype("float32"), name="rows")
        self.numbers = numbers.normal(size=(600, 3)).astype("float32")

    def run(self, x: Any) -> dict[str, Any]:
        x += tf.reduce_mean(tf.constant(self.numbers), 0)
        for step in tf.range(4):
            x -= tf.reduce_mean(tf.constant(self.numbers * 2), 0)
            if tf.reduce_sum(x) > 0:
                x = tf.matmul(x, self.one) + tf.gather(self.rows, [step])
            else:
                x = tf.matmul(x, self.other)
        return {"y": x}


def signature(function: Any, name: str, *spec: Any) -> Any:
    return tf.function(function).get_concrete_function(tf.TensorSpec(*spec, name=name))


def of_module(folder: Path) -> Path:
    net = Net()
    signatures = {
        "serving_default": signature(net.embed, "index", [None], tf.int32),
        "project": signature(net.project, "x", [None, 4], tf.float32),
    }
    tf.saved_model.save(net, str(folder), signatures=signatures)
    return folder


def of_loop(folder: Path) -> Path:
    looping = Looping()
    tf.saved_model.save(looping, str(folder), signatures=signature(looping.run, "x", [2, 3], tf.float32))
    return folder


def keras_model() -> keras.Model:
    """Layers that are traced to many operations; batch norms have values of their own."""
    keras.utils.set_random_seed(2)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(image)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.SeparableConv2D(5, 3, activation="relu", name="separable")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, layers.Dense(3, name="head")(x), name="small")
    for variable in model.get_layer("norm").weights:
        variable.assign(np.random.default_rng(3).uniform(0.5, 1.5, variable.shape))
    return model


def of_keras(folder: Path) -> Path:
    keras_model().export(str(folder), verbose=False)
    return folder


def of_recurrent_keras(folder: Path) -> Path:
    keras.utils.set_random_seed(4)
    ids = keras.Input((6,), dtype="int32", name="ids")
    x = layers.LSTM(5, name="lstm")(layers.Embedding(10, 4, name="embedding")(ids))
    keras.Model(ids, layers.Dense(2, name="head")(x), name="recurrent").export(str(folder), verbose=False)
    return folder


def of_keras_2(folder: Path) -> Path:
    """With a model inside and a recurrent layer, which Keras 2 writes as functions to be replaced on a GPU."""
    import tf_keras
    from tf_keras import layers as old

    tf_keras.utils.set_random_seed(5)
    ids = tf_keras.Input((6,), dtype="int32", name="ids")
    x = old.Embedding(10, 4, name="embedding")(ids)
    x = old.Conv1D(4, 3, activation="relu", name="conv")(x)
    x = old.LSTM(6, name="lstm")(old.Dropout(0.5, name="drop")(x))
    inner = tf_keras.Sequential(
        [tf_keras.Input((6,)), old.Dense(4, name="first"), old.Dense(2, name="second")], "inner"
    )
    model = tf_keras.Model(ids, [inner(x), old.Dense(1, name="head")(x)], name="old")
    model.get_layer("conv").trainable = False
    model.save(str(folder), save_format="tf")
    return folder


def tf1_graph() -> Any:
    """Kinds of variables that TensorFlow 1 had, one of them in parts; `y` is the result."""
    graph = tf.Graph()
    with graph.as_default():
        v1.set_random_seed(6)
        x = v1.placeholder(tf.float32, [None, 4], name="x")
        with v1.variable_scope("dense"):
            weight = v1.get_variable("weight", [4, 3], use_resource=False)
            bias = v1.get_variable("bias", [3], initializer=v1.ones_initializer(), use_resource=True)
            parts = v1.get_variable("parts", [20_000, 3], partitioner=v1.fixed_size_partitioner(4))
        hidden = tf.nn.relu(tf.matmul(x, weight) + bias, name="hidden")
        tf.matmul(hidden, tf.transpose(tf.convert_to_tensor(parts)), name="y")
    return graph


def of_tf1(folder: Path) -> Path:
    graph = tf1_graph()
    with graph.as_default(), v1.Session() as session:
        session.run(v1.global_variables_initializer())
        ends = {"x": graph.get_tensor_by_name("x:0")}, {"y": graph.get_tensor_by_name("y:0")}
        builder = v1.saved_model.Builder(str(folder))
        signatures = {"serving_default": v1.saved_model.signature_def_utils.predict_signature_def(*ends)}
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()
    return folder


def tf1_checkpoint(folder: Path) -> Path:
    """`m.ckpt.meta`, `.index`, `.data-…` and `checkpoint`, and the same graph frozen as `frozen.pb`."""
    graph = tf1_graph()
    with graph.as_default(), v1.Session() as session:
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "m.ckpt"))
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["y"])
        (folder / "frozen.pb").write_bytes(frozen.SerializeToString())
    return folder


def training_checkpoint(folder: Path) -> Path:
    """A graph with a loss, an optimizer and summaries in it, as training left it."""
    with tf.Graph().as_default(), v1.Session() as session:
        x, label = (v1.placeholder(tf.float32, [None, size], name=name) for size, name in ((4, "x"), (3, "label")))
        logits = tf.matmul(x, v1.get_variable("weight", [4, 3]), name="logits")
        tf.nn.softmax(logits, name="probabilities")
        tf.argmax(logits, -1, name="classes")
        loss = tf.reduce_mean(tf.square(logits - label), name="loss")
        v1.summary.scalar("loss", loss)
        step = v1.train.AdamOptimizer().minimize(loss)
        session.run(v1.global_variables_initializer())
        session.run(step, {x: np.ones((2, 4)), label: np.ones((2, 3))})
        v1.train.Saver().save(session, str(folder / "m.ckpt"), global_step=7)
    return folder


def tf2_checkpoint(folder: Path) -> Path:
    """A module with an optimizer that has taken a step."""
    net, optimizer = Net(), keras.optimizers.Adam()
    variables = [keras.Variable(np.ones((3, 2), "float32"), name="kernel")]
    optimizer.build(variables)
    optimizer.apply([np.ones((3, 2), "float32")], variables)
    tf.train.Checkpoint(net=net, optimizer=optimizer, kernel=variables[0]).save(str(folder / "ck"))
    return folder
