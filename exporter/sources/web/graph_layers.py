"""What a TensorFlow.js graph model says of itself: a row for each operation, under the scopes of its name.

The graph is TensorFlow's `GraphDef` as JSON, without the values of constants. Shapes between operations are not in it.
"""

from __future__ import annotations

import base64
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.errors import SourceError, UsageError
from exporter.records import Job, ModelGraph, Shape, TensorSpec
from exporter.sources.graphs.operation_graph import INPUT, Constant, Description, Operation, operation_names
from exporter.sources.web.model_json import COPY_HINT, WebModel, WebWeight
from exporter.unique_names import Names

INPUTS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
# Ops that nothing takes and that are no outputs.
NO_RESULTS = ("NoOp", "Const", *INPUTS)
SUBGRAPH = "Subgraph"
# TensorFlow's names of types where NumPy's are others.
OTHER_TYPES = {"float": "float32", "double": "float64", "half": "float16"}
# Settings that say how TensorFlow carries an operation out, or repeat what rows have.
HIDDEN = ("_output_shapes", "value", "device", "_class")
LONGEST_SETTING = 200
CALLS = re.compile(r"(Stateful)?PartitionedCall(_\d+)?")


@dataclass
class GraphLayers:
    """`inputs` and `outputs` are tensors, `name:0`, in the order of those of the graph; `rows` is by node."""

    graph: ModelGraph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    rows: dict[str, str]


def describe(model: WebModel, job: Job) -> GraphLayers:
    """Raises SourceError, and UsageError for inputs or outputs that are not there."""
    try:
        return _Describer(model, job).described()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        why = f"its graph: {type(error).__name__}: {error}"
        raise SourceError("is corrupt", where=job.source, why=why, hint=COPY_HINT) from error


@dataclass
class _Describer:
    model: WebModel
    job: Job
    specs: dict[str, TensorSpec] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    scopes: dict[str, str] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)

    def described(self) -> GraphLayers:
        self.nodes = [_checked(node) for node in self.model.topology["node"]]
        functions = (self.model.topology.get("library") or {}).get("function") or ()
        self.functions = {each["signature"]["name"]: each for each in functions}
        self.by_name = {node["name"]: node for node in self.nodes}
        _check_order(self.by_name)
        inputs, outputs = self._ends("inputs"), self._ends("outputs")
        operations = list(self._operations(dict(inputs)))
        for key in [key for each in operations for key in (*each.inputs, *each.outputs)]:
            self.specs.setdefault(key, TensorSpec(key.removesuffix(":0"), None, None))
        for name, spec in (*inputs, *outputs):
            self.specs[name] = TensorSpec(self.specs[name].name, spec.shape, spec.dtype)
        taken = [tensor for tensor, _ in outputs]
        names = Names()
        given, made = (
            [TensorSpec(names.unique(s.name), s.shape, s.dtype) for _, s in side] for side in (inputs, outputs)
        )
        description = Description(self.specs, self.constants, self.scopes)
        graph = description.graph(self.job.name, operations, given, made, taken)
        return GraphLayers(graph, tuple(tensor for tensor, _ in inputs), tuple(taken), self.rows)

    def _ends(self, side: str) -> list[tuple[str, TensorSpec]]:
        """What the user names, what the signature says, or what there is: placeholders, and what nothing takes."""
        asked = getattr(self.job.reading, side)
        declared = {} if asked else self._signature(side)
        if declared:
            tensors = {name: str(each.get("name", name)) for name, each in declared.items()}
            return [(_key(tensor), self._spec(name, tensor, declared[name])) for name, tensor in tensors.items()]
        if not asked and side == "inputs":
            asked = [node["name"] for node in self.nodes if node["op"] in INPUTS]
        elif not asked:
            used = {_node(ref) for node in self.nodes for ref in node.get("input") or ()} | {*NO_RESULTS}
            asked = [node["name"] for node in self.nodes if not {node["name"], node["op"]} & used]
        return [(_key(name), self._spec(name, name, {})) for name in asked]

    def _signature(self, side: str) -> dict[str, Any]:
        """By name; some files name tensors that went when the graph was optimised."""
        content = self.model.content
        found = content.get("signature") or (content.get("userDefinedMetadata") or {}).get("signature") or {}
        declared = (found.get(side) or {}).items()
        return {name: each for name, each in declared if _node(str(each.get("name", name))) in self.by_name}

    def _spec(self, name: str, tensor: str, declared: Mapping[str, Any]) -> TensorSpec:
        node = self.by_name.get(_node(tensor))
        if node is None:
            why = "no operation of the graph has that name"
            raise UsageError("is not in the graph", where=f"{self.job.source}, {tensor}", why=why)
        attributes = node.get("attr") or {}
        own = (attributes.get("shape") or {}).get("shape") or {}
        # A placeholder without dimensions may take any shape, in a signature it is a scalar.
        shape = declared.get("tensorShape", own if own.get("dim") else None)
        dtype = declared.get("dtype") or (attributes.get("dtype") or attributes.get("T") or {}).get("type")
        return TensorSpec(name.removesuffix(":0"), _shape(shape), type_name(dtype))

    def _operations(self, inputs: Mapping[str, TensorSpec]) -> Iterator[Operation]:
        """Those of the graph, then of the functions that loops and branches run, each once."""
        yield from self._of_graph(self.nodes, "", inputs)
        left, seen = deque((node, self.rows.get(node["name"], "")) for node in self.nodes), set[str]()
        while left:
            node, row = left.popleft()
            for role, value in (node.get("attr") or {}).items():
                name = str((value.get("func") or {}).get("name"))
                function = self.functions.get(name)
                if function is None or name in seen or not row:
                    continue
                seen.add(name)
                self.scopes[f"{row}/{role}"] = SUBGRAPH
                prefix = f"{name}/"
                arguments = [{"name": each["name"], "op": "Placeholder"} for each in function["signature"]["inputArg"]]
                nodes = arguments + [_checked(each) for each in function.get("nodeDef") or ()]
                given = {f"{prefix}{each['name']}:0": TensorSpec(each["name"], None, None) for each in arguments}
                yield from self._of_graph(nodes, prefix, given, f"{row}/{role}/")
                left += [(each, self.rows.get(prefix + each["name"], "")) for each in nodes]

    def _of_graph(
        self, nodes: Iterable[Mapping[str, Any]], prefix: str, inputs: Mapping[str, TensorSpec], around: str = ""
    ) -> Iterator[Operation]:
        """`prefix` is before the names of its tensors, `around` before those of its rows."""
        shown, used = [], _used(nodes)
        for node in nodes:
            weight = self.model.weights.get(node["name"]) if node["op"] == "Const" else None
            if weight is not None:
                self.constants[prefix + _key(node["name"])] = _constant(weight)
            shown += [node] if weight is None else []
        names = operation_names([_plain_name(node["name"]) or node["op"] for node in shown])
        for node, name in zip(shown, names, strict=True):
            places = sorted(used.get(node["name"], set()) | {":0"}, key=lambda place: (len(place), place))
            outputs = tuple(f"{prefix}{node['name']}{place}" for place in places)
            self.rows[prefix + node["name"]] = around + name
            is_input = node["op"] in INPUTS and outputs[0] in inputs
            yield Operation(
                namespace=around + name,
                class_name=INPUT if is_input else node["op"],
                inputs=tuple(prefix + _key(ref) for ref in node.get("input") or () if not ref.startswith("^")),
                outputs=outputs,
                config=self._config(node),
            )

    def _config(self, node: Mapping[str, Any]) -> str:
        settings = {key: _setting(value) for key, value in (node.get("attr") or {}).items() if key not in HIDDEN}
        stored = {}
        for ref in node.get("input") or ():
            weight = self.model.weights.get(_node(ref))
            if weight is not None and weight.quantisation is not None:
                stored[weight.name] = vars(weight.quantisation)
        settings |= {"stored_as": stored} if stored else {}
        return json.dumps(settings, sort_keys=True, separators=(",", ":"))


def _checked(node: Any) -> Mapping[str, Any]:
    """Raises TypeError for what is no node."""
    if not isinstance(node, dict) or not isinstance(node["name"], str) or not isinstance(node["op"], str):
        raise TypeError("a node without a name or an op")
    if not all(isinstance(ref, str) for ref in node.get("input") or ()):
        raise TypeError(f"the inputs of {node['name']}")
    return node


def _check_order(nodes: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises ValueError where operations wait for each other; loops of TensorFlow 1 do, at `NextIteration`."""
    waits = {
        name: {_node(ref) for ref in node.get("input") or ()} & nodes.keys()
        for name, node in nodes.items()
        if node["op"] != "NextIteration"
    }
    takers: dict[str, list[str]] = {}
    for name, needed in waits.items():
        for other in needed:
            takers.setdefault(other, []).append(name)
    left = {name: len(needed) for name, needed in waits.items()}
    ready = [name for name in nodes if not left.get(name)]
    done = 0
    while ready:
        done += 1
        for taker in takers.get(ready.pop(), ()):
            left[taker] -= 1
            if not left[taker]:
                ready.append(taker)
    if done < len(nodes):
        raise ValueError(f"{len(nodes) - done} operations wait for each other")


def _node(ref: str) -> str:
    return ref.removeprefix("^").split(":")[0]


def _key(ref: str) -> str:
    """`a` → `a:0`; inside of functions there are references such as `a:output:0`."""
    return ref if ":" in ref else f"{ref}:0"


def _used(nodes: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """By node, the places of its outputs that others take, each with the colon before it."""
    found: dict[str, set[str]] = {}
    for node in nodes:
        for ref in node.get("input") or ():
            name, colon, place = _key(ref).partition(":")
            found.setdefault(name, set()).add(colon + place)
    return found


def _plain_name(name: str) -> str:
    """Without the calls that were taken apart when the graph was frozen."""
    return "/".join(part for part in name.split("/") if not CALLS.fullmatch(part))


def _constant(weight: WebWeight) -> Constant:
    dtype = "object" if weight.dtype == "string" else weight.dtype
    return Constant(weight.name, weight.shape, dtype, weight.nbytes, weight.name)


def type_name(dtype: Any) -> str | None:
    """`DT_FLOAT` → `float32`; numbers, which old files have instead, are not known."""
    if not isinstance(dtype, str):
        return None
    name = dtype.removeprefix("DT_").lower()
    return OTHER_TYPES.get(name, name)


def _shape(shape: Any) -> Shape | None:
    if not isinstance(shape, dict) or shape.get("unknownRank"):
        return None
    sizes = (int(dim.get("size", -1)) for dim in shape.get("dim") or ())
    return tuple(None if size < 0 else size for size in sizes)


def _setting(value: Mapping[str, Any]) -> Any:
    """An attribute as plain data; `kind` is that of the field of `AttrValue` that is set."""
    for kind, content in value.items():
        if kind == "list":
            inner = next(((key, items) for key, items in content.items() if items), ("", ()))
            return [_setting({inner[0]: item}) for item in list(inner[1])[:LONGEST_SETTING]]
        if kind == "s":
            data = bytes(content) if isinstance(content, list) else base64.b64decode(content)
            return data[:LONGEST_SETTING].decode("utf-8", "replace")
        if kind == "i":
            return int(content)
        if kind == "type":
            return type_name(content) or content
        if kind == "shape":
            found = _shape(content)
            return None if found is None else list(found)
        if kind == "func":
            return str(content.get("name"))
        return content if isinstance(content, (bool, int, float, str)) else str(content)[:LONGEST_SETTING]
    return None
