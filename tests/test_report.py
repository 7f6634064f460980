"""`model.html` as a file: what is in it, that nothing of the model can run, its size, and what it is built of."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
import subprocess
import sys
import zlib
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from materials import HOSTILE, PASSED, chain, hostile, material, residual

from exporter import cli
from exporter.costs.model_costs import job_costs
from exporter.formats.report import findings, page
from exporter.formats.report.outline import MOST_PARTS, outline
from exporter.records import (
    Job,
    Material,
    ModelGraph,
    OnnxNode,
    Outcome,
    OutputDifference,
    TensorSpec,
    Verification,
)

FRONTEND = Path(page.__file__).parent / "frontend"
ASSETS = FRONTEND.parent / "assets"


class Reader(HTMLParser):
    """The page as a browser's parser sees it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.scripts:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", {}))


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text.strip()))


def table(reader: Reader, name: str) -> dict[str, list[Any]]:
    """A table's chunks put together."""
    found: dict[str, list[Any]] = {}
    for attributes, text in reader.scripts:
        if attributes.get("data-table") == name:
            for column, values in json.loads(unpacked(text)).items():
                found.setdefault(column, []).extend(values)
    return found


def read(made: Material) -> Reader:
    return Reader("".join(page.page(made)))


@pytest.fixture(scope="module")
def plain() -> Reader:
    return read(material(residual()))


def test_the_page_says_what_the_model_is(plain: Reader) -> None:
    kernels = 2 * 6 + 1 + 2
    assert f"{kernels * 9 * 16 * 16 + 160:,}, of which" in plain.text
    for text in (
        "from net.keras",
        "d1e2",
        "3.15.1",
        "unused (Flatten): nothing takes its output",
        "no ONNX file was made",
    ):
        assert text in plain.text
    assert "tf2onnx" not in plain.text


def test_the_tables_hold_the_model(plain: Reader) -> None:
    graph = residual()
    layers, edges, weights = (table(plain, name) for name in ("layers", "edges", "weights"))
    assert layers["key"] == [layer.namespace for layer in graph.layers]
    assert [layers["key"][at] if at >= 0 else None for at in layers["parent"]] == [
        layer.parent for layer in graph.layers
    ]
    ends = [
        (layers["key"][source], layers["key"][target])
        for source, target in zip(edges["source"], edges["target"], strict=True)
    ]
    assert ends == [(edge.source, edge.target) for edge in graph.edges]
    assert sum(weights["nbytes"]) == sum(weight.nbytes for weight in graph.weights)
    costs = job_costs(material(graph).job, graph, None)
    assert layers["macs"] == [costs.layers[key].macs for key in layers["key"]]
    assert max(size or 0 for size in layers["live_bytes"]) == costs.peak_activation_bytes
    assert set(layers["nodes"]) == {None}


def test_memory_over_depth() -> None:
    """By hand, in outputs of 4 KiB: the input goes when the stem has run, the stem's output waits for the sum."""
    live = table(read(material(residual(1))), "layers")["live_bytes"][:6]
    assert [size // 4096 for size in live] == [1, 2, 2, 3, 3, 3]


@pytest.mark.slow
def test_many_rows_are_many_chunks() -> None:
    reader = read(material(chain(9_000)))
    assert sum(attributes.get("data-table") == "layers" for attributes, _ in reader.scripts) == 2
    assert table(reader, "layers")["key"] == [f"dense_{place}" for place in range(9_000)]


def test_nodes_are_counted_when_there_is_an_onnx_file() -> None:
    shape = ((None, 8, 8, 16),)
    nodes = tuple(
        OnnxNode(place, f"n{place}", "Conv", "", "stem", layer, "recorded", (), ("y",), shape, ("float32",))
        for place, layer in enumerate(["stem", "stem", None])
    )
    reader = read(material(residual(), nodes=nodes, verification=PASSED))
    layers = table(reader, "layers")
    assert dict(zip(layers["key"], layers["nodes"], strict=True))["stem"] == 2
    assert sum(layers["nodes"]) == 2
    assert "3 ONNX nodes" in reader.text
    assert "ONNX check passed largest difference 1e-07" in reader.text


def test_a_mismatch_comes_first() -> None:
    outputs = (OutputDifference("head", (2, 10), 0.5, 1.0, 1e-3), OutputDifference("side", (2,), 0.0, 0.0, 1e-3))
    made = material(residual(), verification=Verification("mismatch", outputs=outputs))
    assert findings.findings(made)[0] == "The ONNX file and its source disagree: head by 0.5 (allowed 0.001)"
    assert "mismatch" in read(made).text


def test_statistics_are_shown_when_there_are_some(plain: Reader) -> None:
    made = material(residual(), stats=True)
    reader = read(made)
    weights = table(reader, "weights")
    for place, weight in enumerate(made.graph.weights):
        found = made.statistics[weight.name]
        assert weights["counts"][place] == list(found.histogram_counts or ())
        assert weights["mean"][place] == pytest.approx(found.mean, rel=1e-6)
    assert "stem/kernel: 48 NaN of 2,304 elements" in reader.text
    assert "stem/kernel: 1 of 16 output channels are all zero" in reader.text
    assert "counts" not in table(plain, "weights")
    assert "The weights were not looked at" in plain.text
    assert "The weights were not looked at" not in reader.text


def test_what_cannot_be_a_number_in_json_is_unknown() -> None:
    made = material(residual(), stats=True)
    first = made.graph.weights[0].name
    changed = {**made.statistics, first: replace(made.statistics[first], l2_norm=math.inf, min=None)}
    weights = table(read(replace(made, statistics=changed)), "weights")
    assert (weights["l2_norm"][0], weights["min"][0]) == (None, None)


def test_outputs_that_nothing_takes() -> None:
    graph = residual()
    lstm = replace(
        graph.layers[1], outputs=(TensorSpec("a", (None, 4), "float32"), TensorSpec("b", (None, 4), "float32"))
    )
    made = material(replace(graph, layers=(graph.layers[0], lstm, *graph.layers[2:])))
    assert list(findings.unused_outputs(made)) == [
        "stem (Conv2D): nothing takes 1 of its 2 outputs",
        "unused (Flatten): nothing takes its output",
    ]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        page.write(material(residual(), stats=True), folder)
    one, two = ((folder / "model.html").read_bytes() for folder in folders)
    assert one == two


def test_only_two_scripts_may_run(plain: Reader) -> None:
    """Their hashes are in the policy; what the first unpacks is the second."""
    (policy,) = [about["content"] for tag, about in plain.tags if tag == "meta" and about.get("http-equiv")]
    assert policy is not None
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    assert "unsafe" not in rules["script-src"]
    running = [text for about, text in plain.scripts if about.get("type") != "text/plain"]
    (bundle,) = [text for about, text in plain.scripts if about.get("id") == "bundle"]
    assert len(running) == 1
    hashes = [
        base64.b64encode(hashlib.sha256(code).digest()).decode() for code in (running[0].encode(), unpacked(bundle))
    ]
    assert rules["script-src"].split() == [f"'sha256-{found}'" for found in hashes]


def test_nothing_is_loaded_from_elsewhere(plain: Reader) -> None:
    for tag, about in plain.tags:
        assert not {"src", "srcset", "action", "data"} & about.keys()
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert (about.get("href") or "#").startswith("#")


def test_hostile_names_stay_text(plain: Reader) -> None:
    """The elements are those of a harmless model; there is one more script for each chunk at most."""
    made = material(hostile(residual()), source=HOSTILE, weights=HOSTILE, versions={HOSTILE: HOSTILE})
    made = replace(made, job=replace(made.job, name=HOSTILE))
    reader = read(made)
    kinds = [Counter(tag for tag, _ in found.tags) for found in (reader, plain)]
    different = {tag: kinds[0][tag] - kinds[1][tag] for tag in kinds[0] | kinds[1] if kinds[0][tag] != kinds[1][tag]}
    # One sentence about random weights or unused outputs may be more or less, as may a row of the provenance.
    assert set(different) <= {"li", "/li", "tr", "/tr", "th", "/th", "td", "/td"}
    assert all("on" not in {name[:2] for name in about} for _, about in reader.tags)
    assert HOSTILE in " ".join(reader.texts)
    assert table(reader, "layers")["name"][0] == HOSTILE + "image"


def test_lone_surrogates_are_written(tmp_path: Path) -> None:
    graph = residual()
    layers = tuple(replace(layer, config=json.dumps({"x": "\ud800"})) for layer in graph.layers)
    page.write(material(replace(graph, name="\ud800", layers=layers)), tmp_path)
    assert (tmp_path / "model.html").read_text(encoding="utf-8")


# The outline.


@pytest.mark.parametrize(
    "graph",
    [residual(1), residual(9), chain(1), chain(700), chain(700, equal=False), ModelGraph("none", (), (), (), (), ())],
    ids=["one block", "nine blocks", "one layer", "chain", "nothing folds", "empty"],
)
def test_the_outline_holds_every_layer_once(graph: ModelGraph) -> None:
    items = list(outline(graph))
    placed = Counter(layer.namespace for item in items for row in item.rows for layer in row)
    assert placed == Counter(layer.namespace for layer in graph.layers)
    assert [item.number for item in items] == list(range(len(items)))
    times: dict[int, int] = {-1: 1}
    for item in items:
        assert item.parent < item.number
        assert item.is_block or item.rows
        times[item.number] = times[item.parent] * item.times
        assert {len(row) for row in item.rows} <= {times[item.number]}
    children = Counter(item.parent for item in items)
    assert max(children.values(), default=0) <= MOST_PARTS


def test_repeated_blocks_are_one_item() -> None:
    blocks = [item for item in outline(residual(9)) if item.is_block and item.times > 1]
    assert [(item.title, item.times) for item in blocks] == [("block1 … block9", 9)]


def test_blocks_that_are_called_the_same_are_told_apart_by_their_ends() -> None:
    titles = [item.title for item in outline(chain(700, equal=False)) if item.is_block]
    assert len(set(titles)) > 0.9 * len(titles)
    assert titles[0].startswith("dense_0 … ")


# Size and memory.


def test_what_every_page_carries_is_small() -> None:
    nothing = ModelGraph("none", (), (), (), (), ())
    assert len("".join(page.page(material(nothing))).encode()) < 600_000


@pytest.mark.slow
def test_resnet101_with_statistics_is_below_two_megabytes(tmp_path: Path) -> None:
    from exporting import export_here

    outcome = export_here("resnet101", tmp_path, formats=("html",), weights="random", stats=True)
    (file,) = outcome.files
    assert file.nbytes < 1_000_000
    reader = Reader((tmp_path / "resnet101" / "model.html").read_text(encoding="utf-8"))
    titles = table(reader, "items")["title"]
    assert "conv4_block2 … conv4_block23" in titles
    assert len(table(reader, "weights")["counts"]) == 626


CODE = """
from pathlib import Path
from materials import chain, material
from exporter import memory
from exporter.formats.report import page
from exporter.formats.report.outline import outline

made = material(chain(100_000, equal=False))
print(len(list(outline(made.graph))), memory.peak_rss_bytes())
page.write(made, Path())
print(memory.peak_rss_bytes())
"""


@pytest.mark.slow
def test_a_hundred_thousand_layers_in_bounded_memory(tmp_path: Path) -> None:
    """Over what folding them takes, as a picture does too: chunks go into the file, not into memory."""
    environment = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(page.__file__).parents[3]}"}
    run = subprocess.run(
        [sys.executable, "-c", CODE], cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE
    )
    items, folded, written = map(int, run.stdout.split())
    assert items > 100_000
    assert written - folded < 150 * 2**20
    assert (tmp_path / "model.html").stat().st_size < 6_000_000


# The front end.


def test_the_assets_are_built_of_the_present_sources() -> None:
    """`make report` builds them; see docs/report.md."""
    record = json.loads((ASSETS / "BUILD.json").read_text())
    names = [path.relative_to(FRONTEND).as_posix() for path in (FRONTEND / "src").iterdir()]
    digest = hashlib.sha256()
    for name in sorted([*names, "package.json", "package-lock.json", "tsconfig.json", "build.mjs"]):
        digest.update(name.encode() + b"\0" + (FRONTEND / name).read_bytes() + b"\0")
    assert record["sources"] == digest.hexdigest()
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in ASSETS.iterdir()
        if path.name != "BUILD.json"
    }
    assert record["assets"] == found


def test_the_libraries_are_pinned_and_their_licences_are_in_the_page(plain: Reader) -> None:
    about = json.loads((FRONTEND / "package.json").read_text())
    lock = json.loads((FRONTEND / "package-lock.json").read_text())
    for name, version in about["dependencies"].items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
        assert f"{name} {version}" in plain.text
    assert not any("resolved" in package for package in lock["packages"].values())
    assert "Permission is hereby granted, free of charge" in plain.text


# The command.


@pytest.mark.parametrize("formats", ["html", "onnx,html"])
@pytest.mark.slow
def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], formats: str) -> None:
    import keras
    from exporting import run_here

    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3, name="dense")], name="small")
    model.save(tmp_path / "small.keras")
    arguments = [str(tmp_path / "small.keras"), "--to", formats, "--stats", "-o", str(tmp_path)]
    assert cli.main(arguments, run=run_here) == 0, capsys.readouterr().err
    reader = Reader((tmp_path / "small" / "model.html").read_text(encoding="utf-8"))
    assert ("ONNX check passed" in reader.text) == ("onnx" in formats)
    digest = json.loads((tmp_path / "small" / "manifest.json").read_text())["source_digest"]
    assert digest
    assert digest in reader.text
    assert str(tmp_path) not in reader.text


def test_commands_of_the_page_about_reports_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (FRONTEND.parents[3] / "docs" / "report.md").read_text(encoding="utf-8")
    commands = [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("export-model ")]
    ran: list[Job] = []

    def run(job: Job, *, watch: object) -> Outcome:
        ran.append(job)
        return Outcome(job.name, "done", job.output_path)

    assert [cli.main(words[1:], run=run) for words in commands] == [0] * len(commands)
    assert all("html" in job.formats for job in ran)
    assert len(ran) == 2
