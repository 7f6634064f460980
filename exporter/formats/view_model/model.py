"""A view of a model: a weight-free, hierarchical ONNX file for looking at, from the model without its weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto, helper

from exporter import __version__
from exporter.formats.view_model import hollow
from exporter.formats.view_model.boxes import Captions
from exporter.formats.view_model.facts import LayerFacts, title
from exporter.formats.view_model.flat import Flat, flat
from exporter.formats.view_model.functions import Function, Library, Row
from exporter.formats.view_model.tree import tree

DOMAIN = "view"
# The first version of ONNX's format in which functions have the types of their values.
IR_VERSION = 10
NOTE = (
    "A view for looking at: weights are left out (sparse tensors that hold nothing have their shapes), blocks are "
    "functions, and ↩ stands for a tensor that goes to many places. It does not compute what the model computes."
)


def view_model(
    model: ModelProto, facts: Mapping[str, LayerFacts] | None = None, macs: Sequence[int | None] = ()
) -> ModelProto:
    """The view of a model, whose weights need no bytes; nothing of it is changed.

    `facts` are by the layer's namespace, `macs` one for each node of its graph, or empty. Time and memory are linear
    in the graph.
    """
    graph = flat(model, facts or {}, macs)
    library = Library(graph)
    rows = library.rows(tree(graph))
    captions = Captions(graph, list(library.functions.values()))
    opsets = _opsets(model)
    view = ModelProto(
        ir_version=max(model.ir_version, IR_VERSION),
        opset_import=opsets,
        producer_name="export-model",
        producer_version=__version__,
        doc_string="\n".join(filter(None, [model.doc_string, NOTE])),
        metadata_props=[entry for entry in model.metadata_props if len(entry.value) <= 1000],
        functions=[_emptied(function) for function in model.functions],
    )
    for function in library.functions.values():
        view.functions.append(_function(graph, captions, function, opsets))
    view.graph.CopyFrom(_graph(graph, captions, rows, model.graph))
    return view


def _emptied(function: FunctionProto) -> FunctionProto:
    """A function of the model itself, which its nodes call, without large tensors."""
    copy = FunctionProto()
    copy.CopyFrom(function)
    del copy.node[:]
    copy.node.extend(hollow.emptied_constant(node) for node in function.node)
    return copy


def _opsets(model: ModelProto) -> list[OperatorSetIdProto]:
    known = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    return [*known, helper.make_opsetid(DOMAIN, 1)]


def _graph(graph: Flat, captions: Captions, rows: Sequence[Row], source: GraphProto) -> GraphProto:
    page = _Page(graph, captions)
    found = GraphProto(name=source.name, doc_string=source.doc_string, input=graph.inputs, output=graph.outputs)
    for row in rows:
        found.node.extend(page.stubs(row))
        found.node.append(page.box(row))
        if row.function is None:
            for name in graph.weights(row.item.start):
                page.constants.setdefault(name, 1)
    for name in page.constants:
        hollow.add_initializer(found, graph.constants[name], name)
    for value in graph.outputs:
        if value.name in graph.constants and value.name not in page.constants:
            hollow.add_initializer(found, graph.constants[value.name], value.name)
    outside = {value.name for value in (*graph.inputs, *graph.outputs)}
    found.value_info.extend(page.types(rows, outside))
    return found


def _function(
    graph: Flat, captions: Captions, function: Function, opsets: Sequence[OperatorSetIdProto]
) -> FunctionProto:
    page = _Page(graph, captions)
    item = function.item
    found = FunctionProto(
        name=captions.titles[id(function)],
        domain=DOMAIN,
        input=function.inputs,
        output=item.makes,
        opset_import=opsets,
        doc_string=captions.about(function),
    )
    for row in function.rows:
        box = page.box(row)
        found.node.extend(page.stubs(row))
        found.node.extend(page.weights(row, box))
        found.node.append(box)
    found.value_info.extend(page.types(function.rows, set(), function.inputs))
    return found


class _Page:
    """The nodes of one page. `constants` counts how often each was used on it."""

    def __init__(self, graph: Flat, captions: Captions) -> None:
        self.graph, self.captions = graph, captions
        self.constants: dict[str, int] = {}
        self.stubbed: dict[tuple[str, int], ValueInfoProto | None] = {}

    def box(self, row: Row) -> NodeProto:
        if row.function is None:
            node = hollow.emptied(self.graph.nodes[row.item.start])
            node.input[:] = [self._input(row, name) for name in node.input]
        else:
            kind = self.captions.titles[id(row.function)]
            node = NodeProto(op_type=kind, domain=DOMAIN, input=row.inputs, output=row.item.makes)
        self.captions.describe(node, row)
        return node

    def _input(self, row: Row, name: str) -> str:
        return stub_name(name, row.cut.stubs[name]) if name in row.cut.stubs else name

    def stubs(self, row: Row) -> Iterator[NodeProto]:
        """The stubs that a node is the first to read; those of a block are inside of it."""
        if row.function is not None:
            return
        for name, number in row.cut.stubs.items():
            if (name, number) not in self.stubbed:
                self.stubbed[name, number] = self.graph.types.get(name)
                yield self._stub(name, number)

    def _stub(self, name: str, number: int) -> NodeProto:
        output = stub_name(name, number)
        node = NodeProto(op_type=title(f"↩ {name}"), domain=DOMAIN, name=output, output=[output])
        node.doc_string = f"stands for {name}, which goes to {self.graph.uses[name]} places"
        node.metadata_props.add(key="tensor", value=name)
        return node

    def weights(self, row: Row, box: NodeProto) -> Iterator[NodeProto]:
        """A `Constant` node for each constant that a node of a function reads; `box` reads them from there on.

        Each use has its own: Netron draws one that is read twice as a box.
        """
        if row.function is not None:
            return
        for name in sorted(self.graph.hidden[row.item.start] & self.graph.constants.keys()):
            if not self.constants.get(name):
                self.constants[name] = 1
                yield hollow.constant(self.graph.constants[name], name, name)
        for place, name in enumerate(box.input):
            if name in self.graph.constants:
                count = self.constants[name] = self.constants.get(name, 0) + 1
                box.input[place] = name if count == 1 else f"{name} ({count})"
                yield hollow.constant(self.graph.constants[name], name, box.input[place])

    def types(self, rows: Sequence[Row], known: set[str], inputs: Sequence[str] = ()) -> Iterator[ValueInfoProto]:
        """Types of the tensors of the page, as far as the model has them."""
        names = [*inputs, *(name for row in rows for name in row.item.makes)]
        for name in dict.fromkeys(names):
            if name in self.graph.types and name not in known:
                yield self.graph.types[name]
        for (name, number), value in self.stubbed.items():
            if value is not None:
                yield ValueInfoProto(name=stub_name(name, number), type=value.type)


def stub_name(tensor: str, number: int) -> str:
    return f"↩ {tensor}" if number == 0 else f"↩ {tensor} ({number + 1})"
