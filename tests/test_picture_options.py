"""What the options for pictures do, on hand-made records: depth, names, numbers of boxes, direction, colours, ids."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest
from layer_graphs import GRAPHS, Builder, residual, residual_chain

from exporter.costs.model_costs import job_costs
from exporter.errors import UsageError
from exporter.formats import layout, svg_picture
from exporter.formats.blocks import Folder
from exporter.formats.columns import scale
from exporter.formats.pictures.drawings import Subject, check_names, folded
from exporter.formats.pictures.identifiers import element_id
from exporter.formats.pictures.opening import all_names, opened
from exporter.formats.pictures.themes import THEMES
from exporter.formats.repetition import Block
from exporter.formats.sketch import Sketch, rows_of, title
from exporter.formats.svg_compose import size_of
from exporter.records import Job, Material, ModelGraph, PictureOptions

SVG = "{http://www.w3.org/2000/svg}"
each_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS.keys())


def material(graph: ModelGraph, **options: Any) -> Material:
    job = Job("", "", "", "", ("svg",), "", "", picture=PictureOptions(**options))
    return Material(job, graph, costs=job_costs(job, graph, None))


def drawing(graph: ModelGraph, **options: Any) -> Sketch:
    """What is tried first."""
    return next(Subject(material(graph, **options)).attempts())


def picture(graph: ModelGraph, **options: Any) -> ElementTree.Element:
    return ElementTree.fromstring(svg_picture.document(material(graph, **options))[0])


def titles(found: Sketch, *, is_open: bool) -> set[str]:
    shut = {title(box.part) for box in found.boxes if isinstance(box.part, Block)}
    return {title(block) for box in found.boxes for block in box.blocks} if is_open else shut


@each_graph
@pytest.mark.parametrize("most", [1, 2, 5, 20, 100])
def test_there_are_never_more_boxes_than_asked_for(graph: ModelGraph, most: int) -> None:
    assert len(drawing(graph, max_nodes=most).boxes) <= most


@each_graph
@pytest.mark.parametrize("most", [1, 5, 20])
def test_closing_blocks_loses_no_layer(graph: ModelGraph, most: int) -> None:
    parts = Folder(graph).parts()
    layers = Counter(layer.namespace for part in parts for row in rows_of(part) for layer in row)
    shown = Counter(layer.namespace for part in opened(parts, most) for row in rows_of(part) for layer in row)
    assert shown == layers


def test_depth_counts_levels_of_blocks() -> None:
    build = Builder()
    last = build.add("InputLayer")
    for stage in range(5):
        for unit in range(3):
            last = residual(build, last, f"stage{stage}_unit{unit}", params=9)
        last = build.add("MaxPooling2D", [last])
    graph = build.graph()
    sizes = [len(drawing(graph, depth=depth).boxes) for depth in range(5)]
    assert sizes[0] == 2
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[1] < sizes[2] == sizes[-1]


def test_depth_zero_closes_every_block() -> None:
    found = drawing(GRAPHS["residual"], depth=0)
    assert titles(found, is_open=True) == set()
    assert "conv4_block2 … conv4_block23" in titles(found, is_open=False)


@pytest.mark.parametrize(
    "name", ["conv4_block2 … conv4_block23", "conv4_block2", "conv4_block17", "conv4_block?3", "conv4_block2*"]
)
def test_a_block_is_opened_by_its_title_or_by_the_name_of_any_copy(name: str) -> None:
    found = drawing(GRAPHS["residual"], depth=0, expand=(name,))
    assert titles(found, is_open=True) == {"conv4_block2 … conv4_block23"}
    check_names(material(GRAPHS["residual"], expand=(name,)))


def test_a_nested_model_is_opened_by_its_name() -> None:
    closed = drawing(GRAPHS["siamese"], depth=0)
    assert [box.part.closed for box in closed.boxes if isinstance(box.part, Block)] == [True]
    assert len(drawing(GRAPHS["siamese"], depth=0, expand=("encoder",)).boxes) == len(closed.boxes) + 2


def test_an_unknown_name_is_an_error_that_names_what_is_near() -> None:
    with pytest.raises(UsageError) as caught:
        check_names(material(GRAPHS["residual"], expand=("all", "conv4_blok7")))
    assert caught.value.where == "--expand conv4_blok7"
    assert "conv4_block7" in (caught.value.why or "")


def test_all_draws_every_layer() -> None:
    graph = GRAPHS["residual"]
    assert len(drawing(graph, expand=("all",)).boxes) == len(graph.layers)


def test_each_kind_of_block_is_opened_once_before_others() -> None:
    """40 blocks of one kind with different sizes, one of another kind: both kinds are seen, and nothing twice."""
    build = Builder()
    last = build.add("InputLayer")
    for number in range(40):
        last = residual(build, last, f"plain{number}", params=100 + number)
    for number in range(3):
        last = build.add("LayerNormalization", [last], f"other_{number}_norm")
        last = build.add("Add", [last, build.add("Dense", [last], f"other_{number}_dense", params=number)])
    exact = Folder(build.graph())
    parts = opened(exact.parts(), 60)
    inside = [part for part in parts if isinstance(part, Block) and not part.closed]
    assert len(parts) <= 60
    assert {title(block) for block in inside} >= {"plain0"}
    assert sum(title(block).startswith("plain") for block in inside) == 1


def test_a_nested_model_too_large_to_open_is_opened_in_stages() -> None:
    build = Builder()
    source = build.add("InputLayer", name="image")
    model = build.add("Functional", [source], "backbone")
    last = build.add("InputLayer", name="inner", parent=model)
    for number in range(200):
        config = f'{{"kernel_size": [{number * number % 101 + 1}, 3]}}'
        last = build.add("Conv2D", [last], parent=model, params=number, config=config)
    build.add("Dense", [model], "head", params=5)
    found = drawing(build.graph())
    assert 6 < len(found.boxes) <= 72
    assert titles(found, is_open=True) == {"backbone · Functional"}


@pytest.mark.parametrize("blocks", [3, 30, 300])
@pytest.mark.slow
def test_whatever_its_size_a_model_fits_a_page(blocks: int) -> None:
    build = Builder()
    last = build.add("InputLayer")
    for number in range(blocks):
        branches = [residual(build, last, f"b{number}_{branch}", params=number * 7 + branch) for branch in range(4)]
        last = build.add("Concatenate", branches, f"b{number}_concat")
    document, _ = svg_picture.document(material(build.graph()))
    assert scale(*size_of(document)) >= svg_picture.READABLE_SCALE


@pytest.mark.slow
@each_graph
def test_pictures_flow_to_the_right(graph: ModelGraph) -> None:
    down, right = (picture(graph, direction=direction) for direction in ("down", "right"))
    assert keys(down) == keys(right)
    texts = [Counter(text.text for text in root.iter(f"{SVG}text")) for root in (down, right)]
    # Links between columns and stubs differ; names of layers do not.
    assert {word for word in texts[0] if word and word.isidentifier()} <= set(texts[1]) | {"continued"}


@pytest.mark.slow
def test_a_chain_that_flows_to_the_right_is_wide() -> None:
    build = Builder()
    last = build.add("InputLayer")
    for number in range(5):
        last = build.add("Conv2D", [last], params=number)
    right, down = (
        size_of(svg_picture.document(material(build.graph(), direction=way))[0]) for way in ("right", "down")
    )
    assert right[0] > down[0]
    assert right[1] < down[1]


def keys(root: ElementTree.Element) -> list[str]:
    """The keys of layers that have an element of their own."""
    return sorted(
        unquote(element.get("id", "")) for element in root.iter() if element.get("data-class") and element.get("id")
    )


@each_graph
@pytest.mark.parametrize("most", [None, 1, 8])
def test_every_layer_is_an_id_or_folded_into_one(graph: ModelGraph, most: int | None) -> None:
    root = picture(graph, max_nodes=most)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    named = [key for element in root.iter() for key in element.get("data-layers", "").split()]
    joined = {end for edge in graph.edges for end in (edge.source, edge.target)}
    drawn = {layer.namespace for layer in graph.layers if layer.parent is None or layer.namespace in joined}
    assert sorted(named) == sorted(map(element_id, drawn))
    for element in root.iter():
        if element.get("data-class"):
            assert element.get("data-layers", "").split()[0] == element.get("id")
            assert int(element.get("data-copies", 1)) == len(element.get("data-layers", "").split())


def test_the_text_of_a_layer_is_inside_the_element_with_its_key() -> None:
    root = picture(GRAPHS["residual"])
    (element,) = (element for element in root.iter() if element.get("id") == "conv2_block1_1_conv")
    assert [text.text for text in element.iter(f"{SVG}text")] == ["Conv2D"]
    (hint,) = element.iter(f"{SVG}title")
    assert (hint.text or "").startswith("conv2_block1_1_conv\nConv2D")


def test_strange_keys_are_escaped_so_that_they_come_back() -> None:
    build = Builder()
    names = ['a b/c"<', "層", "n:0%20", "a_x", "block:y"]
    last = build.add("InputLayer", name="first")
    for name in names:
        last = build.add("Dense", [last], name, params=len(name))
    assert set(keys(picture(build.graph()))) == {"first", *names}


def test_color_by_params_follows_the_shares() -> None:
    build = Builder()
    small = build.add("Dense", [build.add("InputLayer")], "small", params=10)
    build.add("Dense", [small], "large", params=10_000)
    root = picture(build.graph(), color_by="params")
    fills = {
        element.get("id"): shape.get("fill")
        for element in root.iter()
        if element.get("data-class")
        for shape in element.iter(f"{SVG}polygon")
    }
    assert fills["large"] == THEMES["light"].levels[-1]
    assert fills["small"] == THEMES["light"].levels[0]
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert {"10 % and more of parameters", "under 0.1 % of parameters", "no parameters"} <= words


def test_color_by_dtype_names_them_in_the_legend() -> None:
    graph = GRAPHS["tiny"]
    half = replace(
        graph.layers[1], outputs=tuple(replace(spec, dtype="float16") for spec in graph.layers[1].outputs or ())
    )
    root = picture(replace(graph, layers=(graph.layers[0], half)), color_by="dtype")
    assert {"float32", "float16"} <= {text.text for text in root.iter(f"{SVG}text")}


def test_bars_are_as_long_as_the_shares() -> None:
    build = Builder()
    first = build.add("Dense", [build.add("InputLayer")], "first", params=250)
    build.add("Dense", [first], "second", params=750)
    fill = THEMES["light"].bars[0]
    bars = [shape for shape in picture(build.graph()).iter(f"{SVG}polygon") if shape.get("fill") == fill]
    lengths = []
    for bar in bars:
        across = [float(pair.split(",")[0]) for pair in (bar.get("points") or "").split()]
        lengths.append(max(across) - min(across))
    assert sorted(lengths) == pytest.approx([24, 72])


def test_the_description_tells_the_parts_in_order() -> None:
    root = picture(GRAPHS["residual"])
    assert root.get("role") == "img"
    labels = (root.get("aria-labelledby") or "").split()
    assert [root.find(f"*[@id='{label}']") is not None for label in labels] == [True, True]
    words = root.findtext(f"{SVG}desc") or ""
    assert re.search(r"conv1_conv \(Conv2D\); .*; conv4_block2 … conv4_block23, 22 times; .*predictions", words)


def test_the_time_limit_leads_to_the_plain_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layout that never ends, as a tensor that feeds hundreds of boxes makes it: the child is ended each time."""
    monkeypatch.setattr(layout, "draw", None)
    slow = replace(material(residual_chain([30])), job=replace(material(GRAPHS["tiny"]).job, layout_seconds=0.01))
    document, (note,) = svg_picture.document(slow)
    assert "plain list" in note
    assert ElementTree.fromstring(document).findtext(f"{SVG}title") == "residual"


def test_names_of_blocks_are_those_in_the_picture() -> None:
    _, parts = folded(GRAPHS["siamese"])
    assert all_names(parts) == {"encoder"}
