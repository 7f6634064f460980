"""Model Explorer's JSON: the graph of layers, that of the ONNX nodes if there are any, and files of node data.

The format is that of the package `ai-edge-model-explorer` (`graph_builder.py`, `node_data_builder.py`). Everything is
written node by node.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exporter.files import write_lines
from exporter.formats.board_nodes import BoardNode, Fact, LayerBoard, NodeBoard, facts, layer_facts, setting_facts
from exporter.formats.node_style import shortened
from exporter.formats.scopes import Group, Scope, Scopes
from exporter.formats.weight_health import verdict
from exporter.records import Material, TensorSpec

GRAPH_FILE = "explorer.json"
HEALTH_FILE = "explorer_weight_health.json"
# What numbers there are of each node, by the file that they go into; Model Explorer shows the file's name.
NUMBERS: dict[str, Callable[[BoardNode], int | None]] = {
    "explorer_parameters.json": lambda node: node.params,
    "explorer_macs.json": lambda node: node.cost.macs,
    "explorer_activation_bytes.json": lambda node: node.cost.activation_bytes,
}
# From the smallest number to the largest: the third is one that stands out from most.
GRADIENT = [{"stop": 0, "bgColor": "#ffffff"}, {"stop": 0.25, "bgColor": "#bcd9f5"}, {"stop": 1, "bgColor": "#3f8edb"}]
LONGEST_VALUE = 200
# Model Explorer parts a namespace at `/`, and takes only what is after `;`.
SEPARATORS = re.compile(r"[/;]")
# JSON in ASCII, because names may hold what is no valid Unicode; one encoder for all, because making one takes time.
text = json.JSONEncoder(separators=(",", ":")).encode

# The identifiers of the graphs, which node data refers to, with their nodes.
Boards = Mapping[str, Iterable[BoardNode]]


def write(material: Material, folder: Path) -> tuple[str, ...]:
    scopes = Scopes(material.graph)
    boards: dict[str, Iterable[BoardNode]] = {"layers": LayerBoard(material, scopes)}
    if material.nodes is not None:
        boards = {"onnx": NodeBoard(material, scopes)} | boards
    write_lines(folder / GRAPH_FILE, collection(material, scopes, boards))
    for name, number in NUMBERS.items():
        write_lines(folder / name, node_data(boards, number))
    if material.statistics:
        write_lines(folder / HEALTH_FILE, health_data(material, boards))
    return ()


def collection(material: Material, scopes: Scopes, boards: Boards) -> Iterator[str]:
    groups = group_attributes(material, scopes)
    yield f'{{"label": {text(material.job.name)}, "graphs": ['
    for place, (name, nodes) in enumerate(boards.items()):
        yield f'{"," if place else ""}{{"id": {text(name)}, "nodeLabelsToHide": [],'
        yield f'"groupNodeAttributes": {text(groups)}, "nodes": ['
        yield from separated(map(graph_node, nodes))
        yield "]}"
    yield "]}"


def separated(items: Iterable[Any]) -> Iterator[str]:
    for place, item in enumerate(items):
        yield ("," if place else "") + text(item)


def graph_node(node: BoardNode) -> dict[str, Any]:
    return {
        "id": node.key,
        "label": node.label or node.name or node.op,
        "namespace": namespace(node.scope),
        "attrs": attributes(facts(node) | ({} if node.onnx or not node.layer else setting_facts(node.layer))),
        "incomingEdges": [
            {"sourceNodeId": link.source, "sourceNodeOutputId": str(link.output), "targetNodeInputId": str(place)}
            for place, link in enumerate(node.links)
        ],
        "outputsMetadata": [
            {"id": str(place), "attrs": tensor_attributes(spec)} for place, spec in enumerate(node.outputs)
        ],
    }


def namespace(scope: Scope) -> str:
    return "/".join(SEPARATORS.sub("_", name) or "_" for name in scope)


def attributes(known: Mapping[str, Fact]) -> list[dict[str, str]]:
    return [{"key": key, "value": value_text(value)} for key, value in known.items()]


def value_text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else shortened(str(value), LONGEST_VALUE)


def tensor_attributes(spec: TensorSpec) -> list[dict[str, str]]:
    sizes = "unknown" if spec.shape is None else ",".join("?" if size is None else str(size) for size in spec.shape)
    return attributes({"__tensor_tag": spec.name, "tensor_shape": f"{spec.dtype or 'unknown'}[{sizes}]"})


def group_attributes(material: Material, scopes: Scopes) -> dict[str, dict[str, str]]:
    """What the side panel says about a scope; about the whole model under the empty name."""
    costs = material.costs
    model = {
        "source": material.source,
        "weights": material.weights,
        "layers": len(material.graph.layers),
        "parameters": sum(layer.params for layer in material.graph.layers),
    }
    if costs:
        model |= {"MACs": costs.macs, "FLOPs": costs.flops, "costs are for a batch of": costs.batch_size}
    found = {namespace(scope): group_facts(group) for scope, group in scopes.groups.items()}
    found[""] = model
    return {name: {key: value_text(value) for key, value in known.items() if value} for name, known in found.items()}


def group_facts(group: Group) -> dict[str, Any]:
    return layer_facts(group.layer) if group.layer else {"equal blocks": group.times}


def node_data(boards: Boards, number: Callable[[BoardNode], int | None]) -> Iterator[str]:
    """One number of each node for which it is known."""
    yield "{"
    for place, (name, nodes) in enumerate(boards.items()):
        yield f'{"," if place else ""}{text(name)}: {{"gradient": {text(GRADIENT)}, "results": {{'
        known = ((node.key, value) for node in nodes if (value := number(node)) is not None)
        yield from entries((key, {"value": value}) for key, value in known)
        yield "}}"
    yield "}"


def health_data(material: Material, boards: Boards) -> Iterator[str]:
    """A verdict about the weights of each node that has any; the words are summed up on closed groups."""
    weights = {weight.name: weight for weight in material.graph.weights}
    yield "{"
    for place, (name, nodes) in enumerate(boards.items()):
        yield f'{"," if place else ""}{text(name)}: {{"showExpandedSummaryOnGroupNode": true, "results": {{'
        judged = ((node.key, verdict(node.weights, weights, material.statistics)) for node in nodes)
        yield from entries((key, {"value": found.text, "bgColor": found.color}) for key, found in judged if found)
        yield "}}"
    yield "}"


def entries(items: Iterable[tuple[str, Any]]) -> Iterator[str]:
    for place, (key, value) in enumerate(items):
        yield f"{',' if place else ''}{text(key)}: {text(value)}"
