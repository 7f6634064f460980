"""The DOT and SVG formats, on hand-made records: folding, wiring, escaping, layout, and what happens without time."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from layer_graphs import GRAPHS, Builder, empty, residual, residual_chain
from pygraphviz import AGraph

from exporter.errors import InternalError, ResourceError
from exporter.formats import dot_graph, layout, svg_picture
from exporter.formats.blocks import Folder
from exporter.formats.columns import plans
from exporter.formats.pictures import plain
from exporter.formats.pictures.drawings import Subject, first_drawing
from exporter.formats.pictures.sheets import sheet
from exporter.formats.repetition import Block, Node, Part
from exporter.formats.sketch import rows_of, sketch, title
from exporter.records import Job, Material, ModelGraph, PictureOptions

SVG = "{http://www.w3.org/2000/svg}"


each_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS.keys())


def material(graph: ModelGraph, *, seconds: float = 600.0, **options: Any) -> Material:
    if options.pop("expand", False):
        options["expand"] = ("all",)
    job = Job("", "", "", "", ("svg",), "", "", layout_seconds=seconds, picture=PictureOptions(**options))
    return Material(job, graph)


def lines(graph: ModelGraph, **options: Any) -> list[str]:
    """The DOT of a model."""
    drawing, paint, _ = first_drawing(material(graph, **options))
    return list(sheet(drawing, drawing.pieces, drawing.arrows, (), paint))


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
@pytest.mark.parametrize("most", [1, 4, 16, 64])
def test_every_edge_is_an_arrow_or_inside_a_box_or_between_copies(graph: ModelGraph, most: int) -> None:
    drawing = Subject(material(graph)).drawing(most)
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
    assert "called 2 times" in "\n".join(lines(GRAPHS["siamese"]))


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
    ((column,),) = plans(sketch(GRAPHS["u_net"]))
    assert Counter(arrow.course for arrow in column.arrows) == {"down": 9, "across": 5, "up": 11}


def test_columns_hold_every_box_and_every_arrow() -> None:
    drawing = sketch(GRAPHS["residual"], expand=True)
    wrapped = max(plans(drawing), key=len)
    assert len(wrapped) > 1
    assert [piece for column in wrapped for piece in column.pieces] == drawing.pieces
    linked = sum("->" in line and not line.startswith("n") for column in wrapped for line in column.links)
    assert sum(len(column.arrows) for column in wrapped) + linked == len(drawing.arrows)


@each_graph
@pytest.mark.parametrize("expand", [True, False])
def test_dot_is_valid(graph: ModelGraph, expand: bool) -> None:
    drawing, *_ = first_drawing(material(graph, expand=expand))
    parsed = AGraph(string="\n".join(lines(graph, expand=expand)))
    nodes = [node for node in parsed.nodes() if node.startswith("n")]
    assert nodes == [f"n{number}" for number in range(len(drawing.boxes))]
    assert len(parsed.edges()) == len(drawing.arrows)


def test_lines_hold_no_line_ends() -> None:
    assert not any("\n" in line or "\0" in line for line in lines(GRAPHS["hostile"]))


@pytest.mark.slow
def test_a_large_chain_is_folded_and_streamed() -> None:
    graph = residual_chain([2857])
    drawing = sketch(graph)
    assert len(graph.layers) > 20_000
    assert len(drawing.boxes) < 20
    assert sum(line.startswith("n") and " [label" in line for line in lines(graph, expand=True)) == len(graph.layers)


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


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        svg_picture.write(material(GRAPHS["residual"]), tmp_path / name)
    assert (tmp_path / "one" / "model.svg").read_bytes() == (tmp_path / "two" / "model.svg").read_bytes()


def test_a_model_without_layers_has_a_picture(tmp_path: Path) -> None:
    assert svg_picture.write(material(empty()), tmp_path) == ()


@each_graph
@pytest.mark.parametrize("most", [None, 1, 7])
def test_without_time_there_is_a_plain_picture(graph: ModelGraph, most: int | None, tmp_path: Path) -> None:
    (note,) = svg_picture.write(material(graph, seconds=0.001, max_nodes=most), tmp_path)
    assert "plain list of blocks (the picture took too long" in note
    root = ElementTree.parse(tmp_path / "model.svg").getroot()
    boxes = root.findall(f".//{SVG}g[@class='node']")
    assert 1 <= len(boxes) <= (most or plain.MOST_BOXES)
    found = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(found) == len(set(found))
    for box in boxes:
        frame = box.find(f"{SVG}rect")
        assert frame is not None
        top, bottom = float(frame.get("y", 0)), float(frame.get("y", 0)) + float(frame.get("height", 0))
        assert all(top < float(text.get("y", 0)) < bottom for text in box.findall(f"{SVG}text"))


def test_the_plain_picture_names_every_input_that_no_arrow_shows(tmp_path: Path) -> None:
    svg_picture.write(material(GRAPHS["residual"], seconds=0.001), tmp_path)
    words = {text.text for text in ElementTree.parse(tmp_path / "model.svg").getroot().iter(f"{SVG}text")}
    assert "↩ conv4_block1_out" in words
    assert "conv4_block2_1_conv ×22" in words


def test_a_time_out_leads_to_a_coarser_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def slow_at_first(texts: Sequence[str], *, seconds: float) -> list[bytes]:
        drawn.append(sum(text.count(" [label=<<TABLE") for text in texts))
        if len(drawn) < 3:
            raise ResourceError("the layout took too long")
        return [b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"/>'] * len(texts)

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
    assert (tmp_path / "model.svg").exists()


@pytest.mark.slow
def test_a_model_too_large_to_expand_stays_folded(tmp_path: Path) -> None:
    (note,) = svg_picture.write(material(residual_chain([400]), expand=True), tmp_path)
    assert "too many for an expanded picture" in note
    assert (tmp_path / "model.svg").exists()


@pytest.mark.slow
def test_the_layout_is_ended_in_time() -> None:
    chain = "digraph {" + "".join(f"n{a} -> n{b};" for a in range(120) for b in range(a)) + "}"
    with pytest.raises(ResourceError, match="took too long"):
        layout.svg(chain, seconds=0.5)


def test_a_failing_layout_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dot"
    broken.write_text("digraph { ???")
    with pytest.raises(InternalError, match="layout failed"):
        layout.svg(broken, seconds=300)


def test_pictures_need_no_tensorflow() -> None:
    code = (
        "import sys, exporter.formats.svg_picture; sys.exit('tensorflow' in sys.modules or 'pygraphviz' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_layout_measures_text_with_the_fonts_that_come_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any font of the system the boxes have the same size, and nothing is left behind."""
    monkeypatch.chdir(tmp_path)
    usual = layout.svg("\n".join(lines(GRAPHS["tiny"])), seconds=300)
    monkeypatch.setattr(layout, "SYSTEM_FONTS", "")
    assert layout.svg("\n".join(lines(GRAPHS["tiny"])), seconds=300) == usual
    monkeypatch.setattr(layout, "FONTS", tmp_path)
    assert layout.svg("\n".join(lines(GRAPHS["tiny"])), seconds=300) != usual
    assert list(tmp_path.iterdir()) == []
