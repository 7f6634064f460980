"""Large ONNX graphs made node by node, for the view file: no Keras, no weights."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

WIDTH = 64


class GraphMaker:
    """Adds nodes; weights have a shape and no bytes."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.weights: list[TensorProto] = []
        self.types: list[ValueInfoProto] = []

    def weight(self, name: str, *dims: int) -> str:
        self.weights.append(TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT))
        return name

    def node(self, op_type: str, inputs: Sequence[str], name: str, namespace: str = "", **attributes: object) -> str:
        node = helper.make_node(op_type, list(inputs), [f"{name}:0"], name, **attributes)
        if namespace:
            node.metadata_props.add(key="namespace", value=namespace)
        self.nodes.append(node)
        self.types.append(helper.make_tensor_value_info(f"{name}:0", TensorProto.FLOAT, ["batch", WIDTH]))
        return f"{name}:0"

    def model(self, inputs: Sequence[str], outputs: Sequence[str], name: str = "m") -> ModelProto:
        def value(of: str) -> ValueInfoProto:
            return helper.make_tensor_value_info(of, TensorProto.FLOAT, ["batch", WIDTH])

        graph = helper.make_graph(self.nodes, name, [*map(value, inputs)], [*map(value, outputs)])
        graph.initializer.extend(self.weights)
        graph.value_info.extend(value for value in self.types if value.name not in outputs)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def residual(blocks: int, nodes_per_block: int = 5) -> ModelProto:
    """A chain of residual blocks: `nodes_per_block` nodes with a sum over each, and no namespaces."""
    maker, x = GraphMaker(), "x"
    for block in range(blocks):
        start = x
        for step in range(nodes_per_block - 1):
            name = f"block_{block}_{step}"
            x = (
                maker.node("Relu", [x], name)
                if step % 2
                else maker.node("MatMul", [x, maker.weight(f"{name}/w", WIDTH, WIDTH)], name)
            )
        x = maker.node("Add", [x, start], f"block_{block}_add")
    return maker.model(["x"], [x])


def transformer(layers: int, *, scopes: bool = False) -> ModelProto:
    """Encoder layers that all read one mask; each weight has its own name."""
    maker = GraphMaker()
    mask = maker.node("Mul", [maker.node("Sub", ["mask", "mask"], "mask/sub"), "mask"], "mask/mul")
    x = maker.node("Identity", ["x"], "embed")
    for layer in range(layers):
        x = _layer(maker, x, mask, f"layer_{layer}", scopes)
    return maker.model(["x", "mask"], [x])


def star(points: int) -> ModelProto:
    """One tensor that goes to many branches, which come together in one node."""
    maker = GraphMaker()
    center = maker.node("Relu", ["x"], "center")
    ends = [maker.node("Tanh", [maker.node("Relu", [center], f"arm_{at}/a")], f"arm_{at}/b") for at in range(points)]
    return maker.model(["x"], [maker.node("Concat", ends, "join", axis=1)])


def tangle(picks: Sequence[tuple[int, int, int]]) -> ModelProto:
    """A node for each pick: the op by the first number, what it reads by the other two, from anywhere before it."""
    maker, made = GraphMaker(), ["x"]
    for at, (op, first, second) in enumerate(picks):
        name, reads = f"scope_{at % 7}/n{at}", [made[first % len(made)], made[second % len(made)]]
        made.append(maker.node(("Add", "Mul", "Relu")[op % 3], reads[: 1 if op % 3 == 2 else 2], name))
    read = {name for node in maker.nodes for name in node.input}
    return maker.model(["x"], [name for name in made if name not in read] or made[-1:])


def branching() -> ModelProto:
    """A node with branches inside, which read a weight and a tensor from around them."""
    maker = GraphMaker()
    inside = maker.node("Relu", ["x"], "before")
    weight = maker.weight("outer/w", WIDTH, WIDTH)
    bodies = {}
    for branch in ("then_branch", "else_branch"):
        node = helper.make_node("MatMul", [inside, weight], [f"{branch}:0"], f"{branch}/MatMul")
        value = helper.make_tensor_value_info(f"{branch}:0", TensorProto.FLOAT, None)
        value.type.tensor_type.shape.dim.add(dim_param="a")
        bodies[branch] = helper.make_graph([node], branch, [], [value])
    flag = helper.make_node("Constant", [], ["flag"], value=helper.make_tensor("flag", TensorProto.BOOL, [], [True]))
    maker.nodes.append(flag)
    return maker.model(["x"], [maker.node("MatMul", [maker.node("If", ["flag"], "choice", **bodies), weight], "after")])


def _layer(maker: GraphMaker, x: str, mask: str, name: str, scopes: bool) -> str:
    def node(op_type: str, inputs: Sequence[str], step: str, **attributes: object) -> str:
        return maker.node(
            op_type, inputs, f"{name}/{step}", f"encoder/{name}/{step.split('/')[0]}" if scopes else "", **attributes
        )

    def dense(inputs: str, step: str) -> str:
        product = node("MatMul", [inputs, maker.weight(f"{name}/{step}/kernel", WIDTH, WIDTH)], f"{step}/MatMul")
        return node("Add", [product, maker.weight(f"{name}/{step}/bias", WIDTH)], f"{step}/Add")

    def norm(inputs: str, step: str) -> str:
        scale = [maker.weight(f"{name}/{step}/{weight}", WIDTH) for weight in ("gamma", "beta")]
        return node("LayerNormalization", [inputs, *scale], f"{step}/LayerNormalization")

    query, key, value = (dense(x, f"attention/{each}") for each in ("query", "key", "value"))
    scores = node("MatMul", [query, node("Transpose", [key], "attention/Transpose")], "attention/scores")
    masked = node("Add", [node("Mul", [scores, mask], "attention/scale"), mask], "attention/mask")
    mixed = node("MatMul", [node("Softmax", [masked], "attention/Softmax"), value], "attention/mix")
    x = norm(node("Add", [x, dense(mixed, "attention/output")], "add_1/Add"), "norm_1")
    hidden = node("Relu", [dense(x, "feed/first")], "feed/Relu")
    return norm(node("Add", [x, dense(hidden, "feed/second")], "add_2/Add"), "norm_2")
