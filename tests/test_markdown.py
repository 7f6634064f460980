"""`model.md`: what a Markdown parser reads in it, and what Mermaid draws of it."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import browser
import keras
import pytest
from exporting import export_here
from keras import layers
from markdown_it import MarkdownIt

from exporter.costs.model_costs import job_costs
from exporter.formats import mermaid_graph, model_card
from exporter.formats.mermaid_graph import LONGEST_TEXT, MOST_EDGES, flowchart, quoted
from exporter.records import (
    Edge,
    Job,
    Layer,
    Material,
    ModelGraph,
    OnnxNode,
    OutputDifference,
    TensorSpec,
    Verification,
)

# What Mermaid, Markdown or GitHub would take for more than text.
HOSTILE = [
    '"quoted" end',
    "1. list",
    "- dash",
    "# head",
    "_a_ __b__ **c**",
    '%%{init: {"theme":"dark"}}%%',
    "$$x^2$$",
    "<b>&amp;</b>",
    "`code` ```",
    "a\\b|c\\|d",
    "click n0 href",
    "нейрон 層 🙂",
    "a;b;c",
    "{x}[y](z)",
    "www.example.org",
    "fa:fa-car",
    "@somebody #1",
    "#35; #quot;",
    "> quote",
    "--- x --> y",
]


@pytest.fixture(scope="module")
def model() -> Any:
    x = keras.Input((8, 8, 4), name="image")
    y = x
    for number in range(3):
        inner = layers.Conv2D(4, 3, padding="same", name=f"block{number}_conv")(y)
        inner = layers.BatchNormalization(name=f"block{number}_norm")(inner)
        y = layers.Add(name=f"block{number}_add")([y, layers.ReLU(name=f"block{number}_relu")(inner)])
    return keras.Model(x, layers.Dense(3, name="head")(layers.GlobalAveragePooling2D(name="pool")(y)))


@pytest.fixture(scope="module")
def card(model: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("markdown")
    model.save(place / "net.keras")
    outcome = export_here(place / "net.keras", place, formats=("markdown",))
    assert outcome.status == "done", outcome.error
    return (Path(outcome.output_path) / "model.md").read_text(encoding="utf-8")


def tables(text: str) -> list[list[list[str]]]:
    """The texts of the cells, row by row, of each table, as a parser for CommonMark with GitHub's tables reads them."""
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    found = []
    for table in re.findall(r"<table>(.*?)</table>", rendered, re.DOTALL):
        rows = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        found.append([[html.unescape(re.sub(r"<[^>]+>", "", cell)) for cell in row] for row in cells])
    return found


def mermaid_of(text: str) -> str:
    found = re.findall(r"^```mermaid\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_totals_are_those_of_keras(model: Any, card: str) -> None:
    facts = dict(tables(card)[0])
    trainable = sum(weight.shape.num_elements() for weight in model.trainable_weights)
    total = model.count_params()
    assert facts["parameters"] == f"{total:,} ({trainable:,} trainable, {total - trainable:,} not)"
    assert facts["inputs"] == "image ?×8×8×4 float32"
    assert facts["source"] == "net.keras"
    assert facts["layers"] == str(len(model.layers))
    assert "MACs" in facts["operations"]
    assert "verification" not in facts


@pytest.mark.slow
def test_an_export_that_is_verified_says_so(model: Any, tmp_path: Path) -> None:
    model.save(tmp_path / "net.keras")
    outcome = export_here(tmp_path / "net.keras", tmp_path, formats=("onnx", "markdown"))
    assert outcome.verification is not None
    facts = dict(tables((Path(outcome.output_path) / "model.md").read_text(encoding="utf-8"))[0])
    assert facts["verification"].startswith(f"{outcome.verification.status}, largest difference ")
    assert facts["ONNX"].startswith("opset 18, ")


def test_blocks_fold_and_their_parameters_add_up(model: Any, card: str) -> None:
    head, *rows = tables(card)[1]
    assert head == ["block or layer", "kind", "output", "params", "share", "MACs"]
    assert any("×3" in row[0] for row in rows)
    top = [int(row[3].replace(",", "")) for row in rows if not row[0].startswith("\N{EM SPACE}")]
    assert sum(top) == model.count_params()
    assert sum(float(row[4].split()[0]) for row in rows if row[4] and not row[0].startswith("\N{EM SPACE}")) == (
        pytest.approx(100, abs=0.3)
    )


def test_the_graph_is_a_flowchart_with_the_skip_connection(card: str) -> None:
    text = mermaid_of(card)
    edges = re.findall(r"^n(\d+) --> n(\d+)$", text, re.MULTILINE)
    assert text.startswith("flowchart TD\n")
    assert re.search(r"subgraph .*×3", text)
    adds = set(re.findall(r'^n(\d+)\["[^"]*Add', text, re.MULTILINE))
    assert all(sum(target == add for _, target in edges) == 2 for add in adds)
    assert adds


@pytest.mark.slow
def test_two_exports_give_the_same_page(model: Any, card: str, tmp_path: Path) -> None:
    model.save(tmp_path / "net.keras")
    outcome = export_here(tmp_path / "net.keras", tmp_path, formats=("markdown",))
    assert (Path(outcome.output_path) / "model.md").read_text(encoding="utf-8") == card


def network(names: list[str], fan: int = 1, shared: str = "Dense") -> Material:
    """Layers of different widths, each fed by the `fan` before it."""

    def layer(place: int, name: str) -> Layer:
        spec = (TensorSpec("t", (None, place + 1), "float32"),)
        return Layer(place, name, shared, name, 0, None, True, spec, spec, place, 0, place, 4 * place, 1, (), "{}")

    edges = [
        Edge(names[place - back], 0, 0, name, 0, back, (None, 3), "float32")
        for place, name in enumerate(names)
        for back in range(1, fan + 1)
        if place >= back
    ]
    graph = ModelGraph("net", (), (), tuple(layer(*at) for at in enumerate(names)), tuple(edges), ())
    job = Job("net", "keras_archive", "net", "outputs/net", ("markdown",), "f", "d")
    return Material(job, graph, costs=job_costs(job, graph, None), source="net", weights="file")


def test_hostile_names_are_only_text_in_the_tables() -> None:
    material = network(HOSTILE)
    text = "\n".join(model_card.lines(replace(material, source="|".join(HOSTILE[:3]))))
    facts, blocks = tables(text)
    assert dict(facts)["source"] == "|".join(HOSTILE[:3])
    assert [row[0] for row in blocks[1:]] == HOSTILE
    assert "<script" not in model_card.code("<script>alert(1)</script>`|")


def test_names_that_github_would_link_are_inside_of_code() -> None:
    for name in ("@somebody", "#1", "www.example.org", "a|@somebody"):
        rendered = MarkdownIt("commonmark").render(model_card.code(name))
        assert re.fullmatch(r"<p><code>[^<]*</code></p>\n", rendered), rendered


@pytest.mark.parametrize(
    ("layers_", "fan"), [(30, 1), (3000, 1), (400, 12), (700, 40)], ids=["small", "long", "dense", "denser"]
)
def test_a_graph_stays_within_mermaids_limits(layers_: int, fan: int) -> None:
    names = [f"layer_{'x' * 60}_{number}" for number in range(layers_)]
    found = flowchart(network(names, fan).graph)
    assert found
    assert len("\n".join(found)) <= LONGEST_TEXT
    assert sum("->" in line for line in found) <= MOST_EDGES


def test_a_graph_that_cannot_be_small_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mermaid_graph, "LONGEST_TEXT", 100)
    text = "\n".join(model_card.lines(network(["a", "b"])))
    assert "mermaid" not in text
    assert "## Blocks" in text


def test_the_verdict_is_there_when_it_is_known() -> None:
    node = OnnxNode(0, "n", "Gemm", "", "", None, "none", (), (), (), ())
    found = Verification("passed", outputs=(OutputDifference("out", (1,), 1.5e-7, 1e-7, 1e-3),))
    material = replace(network(["a", "b"]), nodes=(node,), verification=found)
    facts = dict(tables("\n".join(model_card.lines(material)))[0])
    assert facts["verification"] == "passed, largest difference 1.5e-07"
    assert facts["ONNX"] == "opset 18, 1 nodes"
    skipped = replace(material, verification=Verification("skipped", "--no-verify was given"))
    facts = dict(tables("\n".join(model_card.lines(skipped)))[0])
    assert facts["verification"] == "skipped: --no-verify was given"


@pytest.fixture(scope="module")
def mermaid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real library from npm; skips where there is no npm or no way to the registry."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, and Mermaid comes from there")
    place = tmp_path_factory.mktemp("mermaid")
    (place / "package.json").write_text("{}")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "mermaid@12.3.0"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        pytest.skip(f"npm install mermaid failed: {done.stderr.strip()[-200:]}")
    return place / "node_modules" / "mermaid" / "dist" / "mermaid.min.js"


@pytest.mark.browser
@pytest.mark.slow
def test_mermaid_draws_what_is_meant(mermaid: Path, card: str, tmp_path: Path) -> None:
    hostile = [f"n{number}[{quoted([text])}]" for number, text in enumerate(HOSTILE)]
    page = tmp_path / "page.html"
    page.write_text(f'<meta charset="utf-8"><script src="{mermaid.as_uri()}"></script><body></body>')
    with browser.Browser() as chromium:
        chromium.open(page.as_uri())
        browser.wait_for(lambda: chromium.evaluate("typeof mermaid !== 'undefined'"), "Mermaid")
        assert labels(chromium, "\n".join(["flowchart TD", *hostile])) == HOSTILE
        drawn = labels(chromium, mermaid_of(card))
        assert any(text.startswith("image") for text in drawn)
        assert len(drawn) == len(re.findall(r"^n\d+\[", mermaid_of(card), re.MULTILINE))
        big = flowchart(network([f"layer_{number}" for number in range(400)], 12).graph)
        assert labels(chromium, "\n".join(big))


def labels(chromium: browser.Browser, text: str) -> list[str]:
    """The texts of the boxes that Mermaid draws, with its own limits; raises RuntimeError when it refuses."""
    chromium.evaluate("mermaid.initialize({startOnLoad: false}), 0")
    draw = (
        f"mermaid.render('graph', {json.dumps(text)}).then(drawn => {{document.body.innerHTML = drawn.svg; return 1}})"
    )
    assert chromium.evaluate(draw) == 1
    return chromium.evaluate("[...document.querySelectorAll('.node .nodeLabel')].map(label => label.innerText)")
