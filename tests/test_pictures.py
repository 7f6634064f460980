"""The DOT and SVG formats, on hand-made records: folding, wiring, escaping, layout, and what happens without time."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pygraphviz import AGraph

from exporter.errors import InternalError, ResourceError
from exporter.formats import dot_graph, layout, svg_picture
from exporter.formats.blocks import Folder
from exporter.formats.columns import columns
from exporter.formats.repetition import Block, Node, Part
from exporter.formats.sketch import COARSEST, rows_of, sketch, title
from exporter.records import Edge, Job, Layer, Material, ModelGraph, Shape, TensorSpec

SVG = "{http://www.w3.org/2000/svg}"


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
each_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS.keys())


def material(graph: ModelGraph, *, expand: bool = False, seconds: float = 60.0) -> Material:
    job = Job("", "", "", "", ("svg",), "", "", expand=expand, layout_seconds=seconds)
    return Material(job, graph)


def blocks(parts: Iterable[Part]) -> Iterator[Block]:
    for part in parts:
        if isinstance(part, Block):
            yield part
            yield from blocks(part.parts)


def multiplied(parts: Iterable[Part], times: int = 1) -> int:
    """Drawn layers times the multiplicity of the blocks around them."""
    total = 0
    for part in parts:
        if isinstance(part, Node):
            total += times * len(part.rows)
        else:
            total += times * bool(part.models) + multiplied(part.parts, times * part.times)
    return total


def hidden(graph: ModelGraph) -> int:
    """Sublayers of composite layers: they have no edges and are not drawn."""
    joined = {end for edge in graph.edges for end in (edge.source, edge.target)}
    return sum(layer.parent is not None and layer.namespace not in joined for layer in graph.layers)


def test_a_residual_network_folds_into_its_stages() -> None:
    found = [(title(block), block.times) for block in blocks(Folder(GRAPHS["residual"]).parts()) if block.times > 1]
    assert found == [
        ("conv2_block2 … conv2_block3", 2),
        ("conv3_block2 … conv3_block4", 3),
        ("conv4_block2 … conv4_block23", 22),
        ("conv5_block2 … conv5_block3", 2),
    ]


def test_folding_does_not_need_names() -> None:
    build = Builder()
    last = build.add("InputLayer")
    for number in range(9):
        last = residual(build, last, f"{'xyz'[number % 3]}{number}", params=7)
    assert [block.times for block in blocks(Folder(build.graph()).parts())] == [9]


def test_other_parameters_do_not_fold_unless_loose() -> None:
    build = Builder()
    last = build.add("InputLayer")
    for number in range(4):
        last = residual(build, last, f"block{number}", params=100 + number)
    graph = build.graph()
    assert max(block.times for block in blocks(Folder(graph).parts())) == 1
    assert max(block.times for block in blocks(Folder(graph, loose=True).parts())) == 4


def test_neighbours_with_a_numbered_name_are_a_block() -> None:
    build = Builder()
    last = build.add("InputLayer")
    for block in ("block1a", "block2a"):
        for place, part in enumerate(("expand", "dwconv", "project")):
            last = build.add("Conv2D", [last], f"{block}_{part}_conv", params=len(block + part) + 10 * place)
            last = build.add("BatchNormalization", [last], f"{block}_{part}_bn", params=int(block[5]))
    assert [title(block) for block in blocks(Folder(build.graph()).parts())] == ["block1a", "block2a"]


@pytest.mark.parametrize("loose", [False, True])
def test_what_the_picture_says_differently_does_not_fold(loose: bool) -> None:
    build = Builder()
    last = build.add("InputLayer")
    for size in (1, 3, 5):
        last = build.add("Conv2D", [last], config=f'{{"kernel_size": [{size}, {size}]}}')
    assert list(blocks(Folder(build.graph(), loose=loose).parts())) == []


def test_repetitions_nest() -> None:
    build = Builder()
    last = build.add("InputLayer")
    for _ in range(5):
        for _ in range(3):
            last = build.add("Conv2D", [last], params=9)
        last = build.add("MaxPooling2D", [last])
    assert [block.times for block in blocks(Folder(build.graph()).parts())] == [5, 3]


@each_graph
@pytest.mark.parametrize("fold", [True, False])
def test_every_layer_is_drawn_or_counted(graph: ModelGraph, fold: bool) -> None:
    parts = Folder(graph, fold=fold).parts()
    names = Counter(layer.namespace for part in parts for row in rows_of(part) for layer in row)
    assert set(names.values()) == {1}
    assert multiplied(parts) == len(names) == len(graph.layers) - hidden(graph)


@each_graph
@pytest.mark.parametrize("coarse", range(COARSEST + 1))
def test_every_edge_is_an_arrow_or_inside_a_box_or_between_copies(graph: ModelGraph, coarse: int) -> None:
    drawing = sketch(graph, coarse=coarse)
    reached = {arrow.target for arrow in drawing.arrows} | {arrow.source for arrow in drawing.arrows}
    assert reached == set(range(len(drawing.boxes))) or len(drawing.boxes) == 1
    assert [box.number for box in drawing.boxes] == list(range(len(drawing.boxes)))


@each_graph
def test_expanding_draws_every_edge_between_layers(graph: ModelGraph) -> None:
    drawing = sketch(graph, expand=True)
    drawn = {(arrow.edge.source, arrow.edge.target) for arrow in drawing.arrows}
    assert drawn == {(edge.source, edge.target) for edge in graph.edges if edge.source != edge.target}


def test_the_skip_connection_of_a_folded_block_is_drawn() -> None:
    drawing = sketch(GRAPHS["residual"])
    first, *_, last = [box.number for box in drawing.boxes if box.blocks and box.blocks[-1].times == 22]
    entries = [(arrow.source, arrow.target) for arrow in drawing.arrows if arrow.source == first - 1]
    assert entries == [(first - 1, first), (first - 1, last)]


def test_a_shared_model_is_drawn_once_with_both_calls() -> None:
    drawing = sketch(GRAPHS["siamese"])
    names = [next(rows_of(box.part))[0].name for box in drawing.boxes]
    arrows = Counter((names[arrow.source], names[arrow.target]) for arrow in drawing.arrows)
    assert arrows["left", "image"] == arrows["right", "image"] == 1
    assert arrows["pool", "difference"] == 2
    assert "called 2 times" in "\n".join(dot_graph.lines(GRAPHS["siamese"]))


def test_a_mask_becomes_a_stub_per_use() -> None:
    arrows = sketch(GRAPHS["masked"], expand=True).arrows
    assert sum(arrow.stub and arrow.edge.source == "mask" for arrow in arrows) == 40
    assert [block.times for block in blocks(Folder(GRAPHS["masked"]).parts())] == [40]


def test_blocks_that_read_different_masks_do_not_fold() -> None:
    build = Builder()
    masks = [build.add("InputLayer", name=f"mask{number}") for number in range(2)]
    last = build.add("InputLayer")
    for number in range(20):
        last = build.add("MultiHeadAttention", [last, masks[number // 10]])
    assert [block.times for block in blocks(Folder(build.graph()).parts())] == [10, 10]


def test_an_encoder_with_a_decoder_is_bent() -> None:
    (column,) = columns(sketch(GRAPHS["u_net"]))
    assert Counter(arrow.course for arrow in column.arrows) == {"down": 9, "across": 5, "up": 11}


def test_columns_hold_every_box_and_every_arrow() -> None:
    drawing = sketch(GRAPHS["residual"], expand=True)
    wrapped = columns(drawing)
    assert len(wrapped) > 1
    assert [piece for column in wrapped for piece in column.pieces] == drawing.pieces
    linked = sum("->" in line and not line.startswith("n") for column in wrapped for line in column.links)
    assert sum(len(column.arrows) for column in wrapped) + linked == len(drawing.arrows)


@each_graph
@pytest.mark.parametrize("expand", [True, False])
def test_dot_is_valid(graph: ModelGraph, expand: bool) -> None:
    drawing = sketch(graph, expand=expand)
    parsed = AGraph(string="\n".join(dot_graph.lines(graph, expand=expand)))
    nodes = [node for node in parsed.nodes() if node.startswith("n")]
    assert nodes == [f"n{number}" for number in range(len(drawing.boxes))]
    assert len(parsed.edges()) == len(drawing.arrows)


def test_lines_hold_no_line_ends() -> None:
    assert not any("\n" in line or "\0" in line for line in dot_graph.lines(GRAPHS["hostile"]))


def test_a_large_chain_is_folded_and_streamed() -> None:
    graph = residual_chain([2857])
    drawing = sketch(graph)
    assert len(graph.layers) > 20_000
    assert len(drawing.boxes) < 20
    assert sum(line.startswith("n") and " [label" in line for line in dot_graph.lines(graph, expand=True)) == len(
        graph.layers
    )


def test_write_leaves_one_dot_file(tmp_path: Path) -> None:
    assert dot_graph.write(material(GRAPHS["residual"]), tmp_path) == ()
    assert [path.name for path in tmp_path.iterdir()] == ["model.dot"]


@each_graph
def test_svg_is_well_formed_and_says_what_it_shows(graph: ModelGraph, tmp_path: Path) -> None:
    assert svg_picture.write(material(graph), tmp_path) == ()
    data = (tmp_path / "model.svg").read_bytes()
    root = ElementTree.fromstring(data)
    assert (root.get("viewBox") or "").startswith("0 0 ")
    assert root.findtext(f"{SVG}title")
    assert f"{len(graph.layers)} layers" in (root.findtext(f"{SVG}desc") or "")
    words = {text.text for text in root.iter(f"{SVG}text")}
    drawn = {box.part for box in sketch(graph).boxes}
    assert len(words) >= min(len(drawn), 5)
    assert b"Generated by" not in data
    assert str(tmp_path).encode() not in data
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_hostile_names_arrive_unchanged(tmp_path: Path) -> None:
    svg_picture.write(material(GRAPHS["hostile"]), tmp_path)
    root = ElementTree.parse(tmp_path / "model.svg").getroot()
    words = {text.text for text in root.iter(f"{SVG}text")}
    hints = {(hint.text or "").splitlines()[0] for hint in root.iter(f"{SVG}title")}
    plain = {'quote"s', "back\\slash\\N", "<b>&amp;</b>", "n0:port", "]]>", "{rank=same}"}
    assert plain <= words
    assert plain <= hints
    assert {'a "model" <&\\', "new line", "nul\ufffd", "層\ufffd", "?"} <= words


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        svg_picture.write(material(GRAPHS["residual"]), tmp_path / name)
    assert (tmp_path / "one" / "model.svg").read_bytes() == (tmp_path / "two" / "model.svg").read_bytes()


def test_a_model_without_layers_has_a_picture(tmp_path: Path) -> None:
    assert svg_picture.write(material(empty()), tmp_path) == ()


def test_without_time_there_is_a_note_instead_of_a_picture(tmp_path: Path) -> None:
    (note,) = svg_picture.write(material(GRAPHS["residual"], seconds=0.001), tmp_path)
    assert "model.svg was not written" in note
    assert list(tmp_path.iterdir()) == []


def test_a_time_out_leads_to_a_coarser_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def slow_at_first(texts: Sequence[str], *, seconds: float) -> list[bytes]:
        drawn.append(sum(text.count(" [label=<<TABLE") for text in texts))
        if len(drawn) < 3:
            raise ResourceError("the layout took too long")
        return [b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'] * len(texts)

    monkeypatch.setattr(layout, "pictures", slow_at_first)
    (note,) = svg_picture.write(material(GRAPHS["residual"], expand=True), tmp_path)
    assert drawn == sorted(drawn, reverse=True)
    assert "simplified" in note
    assert (tmp_path / "model.svg").exists()


def test_without_graphviz_there_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    (note,) = svg_picture.write(material(GRAPHS["tiny"]), tmp_path)
    assert "no Graphviz" in note
    assert "`--to dot`" in note


def test_a_model_too_large_to_expand_stays_folded(tmp_path: Path) -> None:
    (note,) = svg_picture.write(material(residual_chain([400]), expand=True), tmp_path)
    assert "too many for an expanded picture" in note
    assert (tmp_path / "model.svg").exists()


def test_the_layout_is_ended_in_time() -> None:
    chain = "digraph {" + "".join(f"n{a} -> n{b};" for a in range(120) for b in range(a)) + "}"
    with pytest.raises(ResourceError, match="took too long"):
        layout.svg(chain, seconds=0.5)


def test_a_failing_layout_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dot"
    broken.write_text("digraph { ???")
    with pytest.raises(InternalError, match="Graphviz failed"):
        layout.svg(broken, seconds=20)


def test_pictures_need_no_tensorflow() -> None:
    code = (
        "import sys, exporter.formats.svg_picture; sys.exit('tensorflow' in sys.modules or 'pygraphviz' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
