"""The view file: everything of the model is in it once, in pages that can be overlooked, and nothing of its weights."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper, inliner
from view_graphs import GraphMaker, branching, residual, star, tangle, transformer

from exporter.errors import SourceError
from exporter.formats.view_model.facts import LayerFacts, spans, together
from exporter.formats.view_model.hollow_file import read_hollow
from exporter.formats.view_model.model import view_model
from exporter.protobuf import field_start

MOST_BOXES = 150
GRAPHS = {
    "residual": lambda: residual(300),
    "short": lambda: residual(2),
    "one node": lambda: residual(1, 1),
    "transformer": lambda: transformer(30),
    "transformer with scopes": lambda: transformer(30, scopes=True),
    "star": lambda: star(700),
    "branches": branching,
    "irregular": lambda: tangle([(at * at, at, at * 7 // 5) for at in range(1500)]),
}


def pages(view: ModelProto) -> dict[str, list[NodeProto]]:
    """The boxes of each page: Netron draws constants in the box that reads them."""
    found = {"": list(view.graph.node)} | {function.name: list(function.node) for function in view.functions}
    return {name: [node for node in nodes if node.op_type != "Constant"] for name, nodes in found.items()}


def facts_of(node: NodeProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in node.metadata_props}


def computed(model: ModelProto) -> tuple[Counter[str], dict[str, str]]:
    """What each node computes, as a digest of its op and of all that flows into it; and that of each output.

    A stub stands for the tensor that it names, a weight for its shape.
    """
    known = {value.name: f"input {value.name}" for value in model.graph.input}
    known |= {proto.name: weight(proto.data_type, proto.dims) for proto in model.graph.initializer}
    known |= {
        sparse.values.name: weight(sparse.values.data_type, sparse.dims) for sparse in model.graph.sparse_initializer
    }
    original: dict[str, str] = {}
    found: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type.startswith("↩"):
            known[node.output[0]] = "stub " + facts_of(node)["tensor"]
        elif node.op_type == "Constant":
            known[node.output[0]] = constant(node)
        else:
            attributes = sorted(a.name for a in node.attribute)
            text = repr((node.op_type, attributes, [known[name] for name in node.input]))
            digest = hashlib.sha256(text.encode()).hexdigest()
            known |= {name: f"{digest} {at}" for at, name in enumerate(node.output)}
            original |= {name: known[name] for name in node.output}
            found[digest] += 1
    return found, {value.name: known[value.name] for value in model.graph.output}


def constant(node: NodeProto) -> str:
    attribute = node.attribute[0]
    if attribute.name == "sparse_value":
        return weight(attribute.sparse_tensor.values.data_type, attribute.sparse_tensor.dims)
    return weight(attribute.t.data_type, attribute.t.dims)


def weight(data_type: int, dims: object) -> str:
    return f"weight {data_type} {list(dims)}"  # type: ignore[call-overload]


def with_stubs(model: ModelProto, names: set[str]) -> ModelProto:
    """The flat model, with a stub at every read of the named tensors: what a view without these edges computes."""
    found = ModelProto()
    found.CopyFrom(model)
    nodes = list(found.graph.node)
    del found.graph.node[:]
    for number, node in enumerate(nodes):
        for at, name in enumerate(node.input):
            if name in names:
                stub = NodeProto(op_type="↩", output=[f"{name} {number} {at}"])
                stub.metadata_props.add(key="tensor", value=name)
                node.input[at] = stub.output[0]
                found.graph.node.append(stub)
        found.graph.node.append(node)
    return found


def inlined(view: ModelProto) -> ModelProto:
    """The view as onnx itself takes it apart: without functions."""
    return inliner.inline_local_functions(view)


def stubbed(view: ModelProto) -> set[str]:
    return {
        facts_of(node)["tensor"] for nodes in pages(view).values() for node in nodes if node.op_type.startswith("↩")
    }


@pytest.fixture(scope="module", params=GRAPHS)
def flat(request: pytest.FixtureRequest) -> ModelProto:
    return GRAPHS[request.param]()


def test_it_is_valid_and_its_pages_can_be_overlooked(flat: ModelProto) -> None:
    view = view_model(flat)
    onnx.checker.check_model(view)
    assert max(map(len, pages(view).values())) <= MOST_BOXES
    for name, nodes in pages(view).items():
        names = [node.name for node in nodes]
        assert len(set(names)) == len(names), name


def test_every_node_is_in_it_once(flat: ModelProto) -> None:
    """Taken apart by onnx, it has the nodes of the flat graph; stubs are counted apart."""
    nodes = [node for node in inlined(view_model(flat)).graph.node if not node.op_type.startswith("↩")]
    ops = Counter(node.op_type for node in nodes if node.op_type != "Constant")
    assert ops == Counter(node.op_type for node in flat.graph.node if node.op_type != "Constant")


@pytest.mark.parametrize("name", ["residual", "short", "one node", "transformer", "transformer with scopes"])
def test_what_flows_where_is_the_same(name: str) -> None:
    """Where a tensor has stubs at all of its uses, the edges that are left make the same graph."""
    flat = GRAPHS[name]()
    view = view_model(flat)
    expected = computed(with_stubs(flat, stubbed(view)))
    assert computed(inlined(view)) == expected


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=300))
def test_any_graph_has_a_view(picks: list[tuple[int, int, int]]) -> None:
    flat = tangle(picks)
    view = view_model(flat)
    onnx.checker.check_model(view)
    nodes = [node for node in inlined(view).graph.node if not node.op_type.startswith("↩")]
    assert Counter(node.op_type for node in nodes) == Counter(node.op_type for node in flat.graph.node)
    assert max(map(len, pages(view).values())) <= MOST_BOXES
    if not stubbed(view):
        assert computed(inlined(view)) == computed(flat)


@pytest.mark.slow
def test_repeated_blocks_share_a_function_and_nest() -> None:
    view = view_model(transformer(400))
    counts = {name: len(nodes) for name, nodes in pages(view).items()}
    assert counts == {"": 23, "attention": 15, "feed": 5, "layer_0…399": 6, "layer_0…399 ×20": 20}
    assert view.ByteSize() < 60_000


@pytest.mark.slow
def test_a_tensor_of_many_places_is_a_stub_with_its_name() -> None:
    boxes = pages(view_model(transformer(400)))
    (stub,) = [node for nodes in boxes.values() for node in nodes if node.op_type.startswith("↩")]
    assert stub in boxes["attention"]
    assert stub.op_type == "↩ mask/mul:0"
    assert facts_of(stub) == {"tensor": "mask/mul:0"}
    readers = [node.op_type for node in boxes["attention"] if stub.output[0] in node.input]
    assert readers == ["Mul", "Add"]
    layers = [node for node in boxes["layer_0…399 ×20"] if node.op_type == "layer_0…399"]
    assert {len(node.input) for node in layers} == {1}, "only what comes from the layer before"


def test_a_few_uses_of_a_tensor_stay_edges() -> None:
    assert stubbed(view_model(transformer(6))) == set()


def test_names_of_all_copies_are_in_it(flat: ModelProto) -> None:
    found = [name for nodes in pages(view_model(flat)).values() for node in nodes for name in copies_of(node)]
    assert {node.name for node in flat.graph.node if node.op_type != "Constant"} <= set(found)


def copies_of(node: NodeProto) -> Iterator[str]:
    """`a{2..4}` → a2, a3, a4."""
    for text in (facts_of(node).get("name") or node.name).split(", "):
        span = re.search(r"\{([0-9.,]+)\}", text)
        if span is None:
            yield text
            continue
        for part in span[1].split(","):
            low, _, high = part.partition("..")
            for number in range(int(low), int(high or low) + 1):
                yield text.replace(span[0], str(number))


def test_nodes_keep_their_facts() -> None:
    flat = transformer(12, scopes=True)
    key = "encoder/layer_{}/attention"
    facts = {key.format(at): LayerFacts("Attention", "?×64 float32", 16_640, 4096) for at in range(12)}
    view = view_model(flat, facts, [7] * len(flat.graph.node))
    boxes = pages(view)
    (box,) = [node for node in boxes["Attention"] if node.op_type == "Softmax"]
    assert facts_of(box) == {
        "copies": "12",
        "namespace": "encoder/layer_{0..11}/attention",
        "layer class": "Attention",
        "layer output": "?×64 float32",
        "layer parameters": "16,640",
        "layer MACs": "4,096",
        "MACs": "7",
    }
    assert box.name == "layer_{0..11}/attention/Softmax"
    assert "Attention → ?×64 float32, 16.6 k parameters, 4.1 k MACs" in box.doc_string
    assert "12 equal ones" in box.doc_string
    (block,) = [node for nodes in boxes.values() for node in nodes if node.op_type == "Attention"]
    assert facts_of(block)["layer class"] == "Attention"
    assert facts_of(block)["nodes"] == "14"
    assert facts_of(block)["parameters"] == str(f"{4 * (64 * 64 + 64):,}")
    assert facts_of(block)["MACs"] == str(14 * 7)


def test_blocks_of_other_shapes_are_other_functions() -> None:
    flat = transformer(10)
    for proto in flat.graph.initializer:
        if proto.name.startswith("layer_7/feed"):
            proto.dims[-1] = 32
    feeds = [name for name in pages(view_model(flat)) if name.startswith("feed")]
    assert feeds == ["feed", "feed (2)"]


def test_weights_are_left_out_and_small_constants_stay() -> None:
    values = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 64])
    large = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64, 64], raw_data=b"\x01" * 4 * 64 * 64)
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])]
    value = helper.make_tensor_value_info
    flat = helper.make_model(
        helper.make_graph(
            nodes, "g", [value("x", 1, ["a", "b"])], [value("y", 1, ["a", "b"])], initializer=[values, large]
        )
    )
    view = view_model(flat)
    onnx.checker.check_model(view)
    assert list(view.graph.initializer) == [values]
    assert [(sparse.values.name, list(sparse.dims)) for sparse in view.graph.sparse_initializer] == [("w", [64, 64])]
    assert view.ByteSize() < 2000
    assert flat.graph.initializer[1].raw_data, "the model itself is not changed"


def test_functions_of_the_model_are_kept_without_their_weights() -> None:
    """As exporters of PyTorch write them."""
    inside = [
        helper.make_node("Constant", [], ["w"], value=helper.make_tensor("w", 1, [40, 40], [1.0] * 1600)),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    function = helper.make_function("torch", "Dense", ["x"], ["y"], inside, [helper.make_opsetid("", 18)])
    flat = residual(3)
    flat.graph.node.insert(0, helper.make_node("Dense", ["x"], ["unused"], "call", domain="torch"))
    flat.functions.append(function)
    flat.opset_import.append(helper.make_opsetid("torch", 1))
    view = view_model(flat)
    onnx.checker.check_model(view)
    assert [(each.domain, each.name) for each in view.functions] == [("torch", "Dense")]
    assert view.functions[0].ByteSize() < 300
    assert "Dense" in [node.op_type for node in view.graph.node]


def test_titles_that_look_alike_are_told_apart() -> None:
    maker = GraphMaker()
    x = "x"
    for block in range(60):
        for step, op in enumerate(("Relu", "Tanh", "Sigmoid", "Abs", "Neg")[: 4 + block % 2]):
            name = f"a_name_that_is_much_too_long_{block % 3}_to_be_shown/part_{block}/s{step}"
            x = maker.node(op, [x], name) if (block + step) % 7 else maker.node("Mul", [x, x], name)
    view = view_model(maker.model(["x"], [x]))
    onnx.checker.check_model(view)
    names = [function.name for function in view.functions]
    assert len(names) > 3
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 21


def test_small_weights_do_not_part_equal_blocks() -> None:
    """They are weights for all that: their values are left out, too."""
    flat = transformer(20)
    for number, proto in enumerate(flat.graph.initializer):
        if len(proto.dims) == 1:
            proto.raw_data = bytes([number % 256]) * 4 * proto.dims[0]
    assert pages(view_model(flat)).keys() == {"", "attention", "feed", "layer_0…19"}


def test_two_runs_give_the_same_bytes() -> None:
    first, second = (
        view_model(transformer(30)).SerializeToString(deterministic=True),
        view_model(transformer(30)).SerializeToString(deterministic=True),
    )
    assert first == second


@pytest.mark.slow
def test_time_is_linear_in_the_nodes() -> None:
    def seconds(blocks: int) -> float:
        flat = residual(blocks)
        started = time.process_time()
        view_model(flat)
        return time.process_time() - started

    small = min(seconds(400) for _ in range(3))
    assert seconds(3200) < 8 * 3 * small


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a"], "a"),
        (["a_1", "a_2", "a_3"], "a_{1..3}"),
        (["a_1_b", "a_2_b", "a_7_b"], "a_{1..2,7}_b"),
        (["a_1_1", "a_2_2"], "a_1_1, a_2_2"),
        (["a_01", "a_02"], "a_01, a_02"),
        (["a", "b_1"], "a, b_1"),
        (["add", "add_1"], "add, add_1"),
    ],
)
def test_names_of_copies_are_told_in_one_text(names: list[str], text: str) -> None:
    assert together(names) == text


def test_spans() -> None:
    assert spans(["3", "4", "5", "9", "1"]) == "3..5,9,1"


def test_a_file_is_read_without_its_weights(tmp_path: Path) -> None:
    """Three gigabytes that are a hole in the file: whoever reads them has them in memory."""
    nbytes = 3 * 2**30
    flat = residual(3)
    flat.graph.initializer[0].dims[:] = [nbytes // 4]
    first = TensorProto()
    first.CopyFrom(flat.graph.initializer[0])
    rest = list(flat.graph.initializer[1:])
    del flat.graph.initializer[:]
    flat.graph.initializer.extend(rest)
    tensor = first.SerializeToString() + field_start(TensorProto.RAW_DATA_FIELD_NUMBER, nbytes)
    graph = flat.graph.SerializeToString() + field_start(5, len(tensor) + nbytes) + tensor
    outside = ModelProto()
    outside.CopyFrom(flat)
    outside.ClearField("graph")
    path = tmp_path / "large.onnx"
    with path.open("wb") as stream:
        stream.write(outside.SerializeToString() + field_start(7, len(graph) + nbytes) + graph)
        stream.truncate(stream.tell() + nbytes)
    before = psutil.Process().memory_info().rss
    model = read_hollow(path, refer="weights")
    assert psutil.Process().memory_info().rss - before < 100 * 2**20
    assert len(model.graph.node) == len(flat.graph.node)
    entries = {entry.key: entry.value for entry in model.graph.initializer[-1].external_data}
    assert entries == {"location": "weights", "offset": str(path.stat().st_size - nbytes), "length": str(nbytes)}
    onnx.checker.check_model(view_model(model))


def test_what_is_inside_the_file_is_found_again(tmp_path: Path) -> None:
    content = bytes(range(256)) * 64
    flat = residual(3)
    for proto in flat.graph.initializer:
        proto.raw_data = content
    onnx.save(flat, tmp_path / "m.onnx")
    onnx.save(read_hollow(tmp_path / "m.onnx", refer="m.onnx"), tmp_path / "lean.onnx")
    assert (tmp_path / "lean.onnx").stat().st_size < 10_000
    again = onnx.load(tmp_path / "lean.onnx")
    assert [proto.raw_data for proto in again.graph.initializer] == [content] * len(flat.graph.initializer)


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"no model" * 1000, b"\x3a\xff\xff\xff\x0f", b"\x08\x07"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(SourceError, match="cannot be read as ONNX"):
        read_hollow(tmp_path / "m.onnx")
