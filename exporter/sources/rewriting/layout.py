"""Fewer `Transpose` nodes: chains of ops change to the layout in which their neighbours work.

TensorFlow's images are [N, H, W, C], ONNX's convolutions want [N, C, H, W], and a converted graph transposes before and
behind each of them. Here all `Transpose` nodes are taken out, the nodes chosen by `layout_choice` are rewritten to work
on permuted values, and where a node then still meets a value in the wrong layout it gets a transposed copy, one for
all nodes that want the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from exporter.sources.rewriting.layout_choice import chosen, is_transpose, moves_units_only
from exporter.sources.rewriting.layout_rules import Layouts, Perm, Permuted, composed, inverse, normal
from exporter.sources.rewriting.onnx_editor import Editor, Node

# How images, series and volumes are stored with the channels in front, by rank.
CHANNELS_FIRST = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}
# Each permutation that a graph has is tried as a layout, the most frequent first, up to this number.
MOST_LAYOUTS = 6


def reduce_transposes(editor: Editor) -> None:
    """In place. Each layout that is tried takes time proportional to the graph."""
    tried: list[Layouts] = []
    while len(tried) < MOST_LAYOUTS:
        nodes = editor.nodes()
        layouts = next((found for found in _candidates(editor, nodes) if found not in tried), None)
        if layouts is None:
            break
        _Rewriting(editor, chosen(editor, nodes, layouts)).rewrite(nodes)
        editor.prune()
        tried.append(layouts)
    for node in editor.nodes():
        if is_transpose(editor, node):
            _reshape_instead(editor, node)


def _reshape_instead(editor: Editor, node: Node) -> None:
    """Where only dimensions of size 1 move, the elements stay in their order."""
    shape, perm = editor.shape(node.inputs[0]), node.get("perm")
    if shape is not None and moves_units_only(shape, tuple(perm)) and shape.count(None) <= 1:
        target = np.array([-1 if shape[axis] is None else shape[axis] for axis in perm], np.int64)
        node.op_type = "Reshape"
        node.attributes.clear()
        editor.set_inputs(node, [node.inputs[0], editor.add_constant(target, f"{node.name}/shape")])


def _candidates(editor: Editor, nodes: Sequence[Node]) -> Iterator[Layouts]:
    perms = Counter(tuple(node.get("perm")) for node in nodes if is_transpose(editor, node))
    for perm, _ in perms.most_common():
        usual = CHANNELS_FIRST.get(len(perm))
        if usual is None or perm not in (usual, inverse(usual)):
            yield {len(perm): perm}
            continue
        yield CHANNELS_FIRST
        yield from (
            {**CHANNELS_FIRST, len(longer): longer}
            for node in nodes
            if (longer := _with_more_axes(editor, node, usual))
        )
        if perm != usual:
            yield {len(perm): perm}


def _with_more_axes(editor: Editor, node: Node, perm: tuple[int, ...]) -> tuple[int, ...] | None:
    """For the node that takes an image of that layout out of a stack, or puts it in: the layout of the stack."""
    is_changing_rank = node.op_type in ("Squeeze", "Unsqueeze") and len(node.inputs) > 1
    axes = editor.constant(node.inputs[1]) if is_changing_rank else None
    if not isinstance(axes, np.ndarray) or len(perm) < 4:
        return None
    shape = editor.shape(node.inputs[0] if node.op_type == "Squeeze" else node.outputs[0])
    if shape is None or len(shape) != len(perm) + axes.size:
        return None
    new = [int(axis) % len(shape) for axis in axes.reshape(-1)]
    old = [axis for axis in range(len(shape)) if axis not in new]
    moved = iter(old[axis] for axis in perm)
    return tuple(axis if axis in new else next(moved) for axis in range(len(shape)))


class _Rewriting:
    def __init__(self, editor: Editor, plans: Mapping[Node, Permuted]) -> None:
        self.editor, self.plans = editor, plans
        # Value of the graph → where it is, and the permutation in which it is stored there.
        self._stored: dict[str, tuple[str, Perm]] = {}
        self._copies: dict[tuple[str, Perm], str] = {}
        self._renamed: dict[str, str] = {}

    def rewrite(self, nodes: Iterable[Node]) -> None:
        """`nodes` are all nodes of the graph, producers before consumers."""
        makers: dict[str, Node] = {}
        for node in nodes:
            makers.update(dict.fromkeys(node.outputs, node))
            if is_transpose(self.editor, node):
                self._take_out(node)
            elif node in self.plans:
                self._permute(node, self.plans[node])
            else:
                self._keep(node)
        for output in self.editor.outputs:
            if output in self._stored:
                self._deliver(output, makers[output])

    def _take_out(self, node: Node) -> None:
        name, perm = self._stored.get(node.inputs[0], (node.inputs[0], None))
        self._stored[node.outputs[0]] = name, composed(inverse(normal(node.get("perm"))), perm)
        self.editor.remove(node)

    def _keep(self, node: Node) -> None:
        for name in node.captured:
            if name in self._stored:
                self.editor.replace_use(node, name, self._fetch(name, None, node))
        inputs = tuple(self._fetch(name, None, node) for name in node.inputs)
        if inputs != node.inputs:
            self.editor.set_inputs(node, inputs)

    def _permute(self, node: Node, plan: Permuted) -> None:
        editor = self.editor
        inputs = [self._fetch(name, plan.inputs.get(place), node) for place, name in enumerate(node.inputs)]
        for place, value in plan.operands.items():
            inputs += [""] * (place + 1 - len(inputs))
            inputs[place] = editor.add_constant(value, f"{node.name}/permuted")
        editor.set_inputs(node, inputs)
        for name, setting in plan.attributes.items():
            node.set(name, setting)
        if plan.gather is not None:
            self._gather(node, plan.gather)
        outputs = [self._output(name, perm) for name, perm in zip(node.outputs, plan.outputs, strict=True)]
        editor.set_outputs(node, outputs)

    def _gather(self, node: Node, places: Sequence[int]) -> None:
        """The numbers of a shape in the graph's order, from those of the shape as it is stored."""
        output = node.outputs[0]
        node.attributes.clear()
        self.editor.set_outputs(node, [self.editor.unique(node.name)])
        self.editor.set_type(node.outputs[0], np.int64, None)
        indices = self.editor.add_constant(np.array(places, np.int64), f"{node.name}/places")
        self.editor.add_node("Gather", [node.outputs[0], indices], node, [output], axis=0)

    def _output(self, name: str, perm: Perm) -> str:
        if not name or perm is None:
            return name
        stored = self.editor.unique(name)
        self._stored[name] = stored, perm
        self._set_type(stored, name, perm)
        return stored

    def _set_type(self, value: str, like: str, perm: Perm) -> None:
        dtype, dims = self.editor.dtype(like), self.editor.dims(like)
        if dtype is not None:
            self.editor.set_type(value, dtype, None if dims is None else [dims[axis] for axis in perm or ()])

    def _fetch(self, value: str, perm: Perm, user: Node) -> str:
        """The name under which the value is stored in that permutation, after transposing it where it is not."""
        editor = self.editor
        if not value:
            return value
        if editor.constant(value) is not None:
            return value if perm is None else self._permuted_constant(value, perm)
        name, stored = self._stored.get(value, (value, None))
        name = self._renamed.get(name, name)
        change = composed(inverse(stored), perm)
        if change is None:
            return name
        if (name, change) not in self._copies:
            is_free = perm is None and value != name and editor.producer(value) is None
            copy = value if is_free else editor.unique(value)
            self._set_type(copy, name, change)
            editor.add_node("Transpose", [name], user, [copy], perm=list(change))
            self._copies[name, change] = copy
        return self._copies[name, change]

    def _permuted_constant(self, name: str, perm: tuple[int, ...]) -> str:
        if (name, perm) not in self._copies:
            constant = self.editor.constants[name]
            full = constant.reshape([1] * (len(perm) - len(constant.shape)) + list(constant.shape))
            self._copies[name, perm] = self.editor.add_constant(full.transpose(perm), name)
        return self._copies[name, perm]

    def _deliver(self, output: str, maker: Node) -> None:
        """An output of the graph, under its name."""
        found = self._fetch(output, None, maker)
        if found != output:
            node = self.editor.add_node("Identity", [found], maker, [output])
            if self.editor.bypass(node, found):
                self._renamed[found] = output
