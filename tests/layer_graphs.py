"""Models as hand-made records, for what needs no TensorFlow: folding, pictures, labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from exporter.records import Edge, Layer, ModelGraph, Shape, TensorSpec


class Builder:
    """Adds layers one after the other; each method returns the new layer's namespace."""

    def __init__(self, name: str = "model") -> None:
        self.name = name
        self.layers: list[Layer] = []
        self.edges: list[Edge] = []

    def add(
        self,
        class_name: str,
        sources: Sequence[str] = (),
        name: str = "",
        *,
        shape: Shape = (None, 8, 8, 16),
        params: int = 0,
        parent: str | None = None,
        calls: int = 1,
        config: str = "{}",
    ) -> str:
        name = name or f"{class_name.lower()}_{len(self.layers)}"
        namespace = f"{parent}/{name}" if parent else name
        depth = namespace.count("/") if parent else 0
        outputs = (TensorSpec(name, shape, "float32"),)
        head = (len(self.layers), name, class_name, namespace, depth, parent, True, (), outputs)
        self.layers.append(Layer(*head, params, params, params, 4 * params, calls, (), config))
        for place, source in enumerate(sources):
            self.edge(source, namespace, target_input=place)
        return namespace

    def edge(
        self, source: str, target: str, *, source_call: int = 0, target_call: int = 0, target_input: int = 0
    ) -> None:
        edge = Edge(source, source_call, 0, target, target_call, target_input, (None, 8, 8, 16), "float32")
        self.edges.append(edge)

    def graph(self) -> ModelGraph:
        spec = (TensorSpec("x", (None, 8, 8, 16), "float32"),)
        return ModelGraph(self.name, spec, spec, tuple(self.layers), tuple(self.edges), ())


def residual(build: Builder, source: str, name: str, *, params: int = 100, project: bool = False) -> str:
    """conv bn relu conv bn + shortcut, relu: seven layers, or nine with a projection."""
    last = source
    for number in (1, 2):
        last = build.add("Conv2D", [last], f"{name}_{number}_conv", params=params)
        last = build.add("BatchNormalization", [last], f"{name}_{number}_bn", params=64)
        if number == 1:
            last = build.add("ReLU", [last], f"{name}_{number}_relu")
    if project:
        source = build.add("Conv2D", [source], f"{name}_0_conv", params=2 * params)
        source = build.add("BatchNormalization", [source], f"{name}_0_bn", params=64)
    last = build.add("Add", [source, last], f"{name}_add")
    return build.add("ReLU", [last], f"{name}_out")


def residual_chain(stages: Sequence[int] = (3, 4, 23, 3)) -> ModelGraph:
    build = Builder("residual")
    last = build.add("InputLayer")
    last = build.add("Conv2D", [last], "conv1_conv", params=50)
    for stage, blocks in enumerate(stages, 2):
        for block in range(1, blocks + 1):
            last = residual(build, last, f"conv{stage}_block{block}", params=100 * stage, project=block == 1)
    build.add("Dense", [last], "predictions", params=10)
    return build.graph()


def transformer(layers: int) -> ModelGraph:
    """A mask that every attention layer reads."""
    build = Builder("masked")
    last, mask = build.add("InputLayer", name="tokens"), build.add("InputLayer", name="mask")
    for number in range(layers):
        attention = build.add("MultiHeadAttention", [last, last, mask], f"layer{number}_attention", params=99)
        build.add("EinsumDense", (), "query", params=99, parent=attention)
        middle = build.add("Add", [last, attention], f"layer{number}_add1")
        last = build.add("Add", [middle, build.add("Dense", [middle], f"layer{number}_dense")], f"layer{number}_add2")
    return build.graph()


def siamese() -> ModelGraph:
    """One nested encoder, called twice."""
    build = Builder("siamese")
    left, right = build.add("InputLayer", name="left"), build.add("InputLayer", name="right")
    encoder = build.add("Functional", name="encoder", calls=2)
    inside = build.add("InputLayer", name="image", parent=encoder)
    inside = build.add("Conv2D", [inside], "conv", parent=encoder, params=30)
    build.add("GlobalAveragePooling2D", [inside], "pool", parent=encoder)
    difference = build.add("Subtract", name="difference")
    for call, source in enumerate((left, right)):
        build.edge(source, encoder, target_call=call)
        build.edge(encoder, difference, source_call=call, target_input=call)
    return build.graph()


def u_net(levels: int = 4) -> ModelGraph:
    build = Builder("u_net")
    last, skips = build.add("InputLayer"), []
    for level in range(levels):
        last = build.add("Conv2D", [last], params=10 + level)
        skips.append(last)
        last = build.add("MaxPooling2D", [last])
    last = build.add("Conv2D", [last], params=99)
    for level, skip in enumerate(reversed(skips)):
        last = build.add("Conv2DTranspose", [last], params=200 + level)
        last = build.add("Conv2D", [build.add("Concatenate", [last, skip])], params=300 + level)
    return build.graph()


HOSTILE = (
    'quote"s',
    "back\\slash\\N",
    "<b>&amp;</b>",
    "new\nline",
    "n0:port",
    "層\u202e",
    "nul\0",
    "\ud800",
    "]]>",
    "{rank=same}",
    "",
)


def hostile() -> ModelGraph:
    build = Builder('a "model" <&\\')
    last = build.add("InputLayer")
    for place, name in enumerate(HOSTILE):
        last = build.add('Custom<"&\\>Layer', [last], name, params=place, config='{"activation": "<\\"&"}')
    return build.graph()


STRANGE_CONFIGS = (
    "",
    "null",
    "[1]",
    "not JSON",
    "[" * 9999,
    '{"strides": [[1, 2], {}]}',
    '{"kernel_size": {"a": 1}, "activation": {}}',
    '{"num_heads": "x", "strides": true, "pool_size": []}',
)


def strange() -> ModelGraph:
    """Nothing known about shapes, and configurations of which nothing can be shown."""
    build = Builder("strange")
    last = build.add("InputLayer")
    for config in STRANGE_CONFIGS:
        last = build.add("Conv2D", [last], config=config)
    layers = [replace(layer, inputs=None, outputs=None) for layer in build.layers]
    return replace(build.graph(), layers=tuple(layers), inputs=(TensorSpec("x", None, None),))


def tiny() -> ModelGraph:
    build = Builder("tiny")
    build.add("Dense", [build.add("InputLayer", shape=(None, 4))], shape=(None, 3), params=15)
    return build.graph()


def empty() -> ModelGraph:
    return Builder("empty").graph()


def looped() -> ModelGraph:
    """A shared layer that is fed its own output: the graph of layers has a cycle."""
    build = Builder("looped")
    shared = build.add("Dense", [build.add("InputLayer")], "shared", calls=3)
    other = build.add("ReLU", [shared], "other")
    build.edge(other, shared, target_call=1)
    build.edge(shared, shared, source_call=1, target_call=2)
    return build.graph()


GRAPHS = {
    "residual": residual_chain(),
    "masked": transformer(40),
    "siamese": siamese(),
    "u_net": u_net(),
    "hostile": hostile(),
    "strange": strange(),
    "tiny": tiny(),
    "looped": looped(),
}
