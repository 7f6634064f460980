"""Which nodes of a graph shall work on permuted values, so that as few values as possible are transposed.

A node that can (`layout_rules`) works either in the graph's layout or in the other one that is tried; all others, and
the graph's inputs and outputs, are bound to the graph's. A value that is made in one layout and used in the other
costs one `Transpose`, however many nodes use it. The choice of least cost is a minimum cut: nodes of the graph's
layout on the source's side, nodes of the other on the sink's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from exporter.sources.rewriting.layout_rules import Layouts, Perm, Permuted, composed, permuted
from exporter.sources.rewriting.minimum_cut import SINK, SOURCE, FlowNetwork
from exporter.sources.rewriting.onnx_editor import Editor, Node

# A `Transpose` more is worse than any size; of two places for one, the smaller value is better (by its logarithm).
TRANSPOSE_COST = 1000
# Where only dimensions of size 1 move, a `Reshape` does, which moves no data.
RESHAPE_COST = 100
UNCUTTABLE = 1 << 40


@dataclass
class Use:
    """A use of a value: how it has to be stored when the node works in the graph's layout, and in the other one.

    `node` is None for what has no choice.
    """

    node: Node | None
    plain: Perm
    other: Perm


@dataclass
class Value:
    """What a node makes or the graph is given, seen through all `Transpose` nodes. `other` is as for `Use`."""

    name: str
    maker: Node | None = None
    other: Perm = None
    uses: list[Use] = field(default_factory=list)


def chosen(editor: Editor, nodes: Sequence[Node], layouts: Layouts) -> dict[Node, Permuted]:
    """The nodes that shall work in the other layout, and how; empty when that would not save a transposition."""
    plans = {node: plan for node in nodes if (plan := permuted(editor, node, layouts)) is not None}
    values = list(_values(editor, nodes, plans))
    found = _sink_side(editor, values, plans)
    if not found or _cost(editor, values, found) >= _cost(editor, values, set()):
        return {}
    return {node: plans[node] for node in nodes if node in found}


def is_transpose(editor: Editor, node: Node) -> bool:
    """One that the choice sees through."""
    return (
        node.op_type == "Transpose"
        and not node.domain
        and "perm" in node.attributes
        and editor.constant(node.inputs[0]) is None
    )


def moves_units_only(shape: Sequence[int | None] | None, perm: Perm) -> bool:
    """Whether the elements stay in their order: no two dimensions of another size than 1 change places."""
    if shape is None or perm is None:
        return False
    moved = [axis for axis in perm if shape[axis] != 1]
    return moved == sorted(moved)


def _values(editor: Editor, nodes: Sequence[Node], plans: Mapping[Node, Permuted]) -> Iterable[Value]:
    seen: dict[str, tuple[str, Perm]] = {}
    values: dict[str, Value] = {}

    def use(name: str, node: Node | None, place: int) -> None:
        root, view = seen.get(name, (name, None))
        other = composed(view, plans[node].inputs.get(place)) if node is not None else view
        values.setdefault(root, Value(root)).uses.append(Use(node, view, other))

    for node in nodes:
        if is_transpose(editor, node):
            root, view = seen.get(node.inputs[0], (node.inputs[0], None))
            seen[node.outputs[0]] = root, composed(view, tuple(node.get("perm")))
            continue
        plan = plans.get(node)
        for place, name in enumerate(node.inputs):
            if name and editor.constant(name) is None:
                use(name, node if plan else None, place)
        for name in node.captured:
            use(name, None, 0)
        for place, name in enumerate(node.outputs):
            values[name] = Value(name, node, plan.outputs[place]) if plan else Value(name)
    for name in editor.outputs:
        use(name, None, 0)
    return values.values()


def _sink_side(editor: Editor, values: Iterable[Value], plans: Mapping[Node, Permuted]) -> set[Node]:
    network = FlowNetwork()
    number = {node: network.add_node() for node in plans}
    for value in values:
        _connect(editor, network, number, value)
    side = network.sink_side()
    return {node for node, place in number.items() if side[place]}


def transposition_cost(shape: Sequence[int | None] | None, perm: Perm) -> int:
    if moves_units_only(shape, perm):
        return RESHAPE_COST
    size = 1
    for dim in shape or ():
        size *= dim or 1
    return TRANSPOSE_COST + size.bit_length()


def _connect(editor: Editor, network: FlowNetwork, number: Mapping[Node, int], value: Value) -> None:
    """The costs of one value: each copy is paid for once, by whoever wants it.

    Users that want the layout in which the maker happens to work want no copy. This cannot be said where a `Transpose`
    of the graph lies between the two, so that what is plain to one is the other's other layout: then they pay.
    """
    shape = editor.shape(value.name)
    maker = number[value.maker] if value.maker is not None and value.other is not None else None
    copied = {use.plain for use in value.uses if use.node is None or use.plain == use.other}
    if maker is not None:
        cost = transposition_cost(shape, value.other)
        plain_users = [number[use.node] for use in value.uses if use.node is not None and use.plain is None]
        other_users = [number[use.node] for use in value.uses if use.node is not None and use.other == value.other]
        _join(network, maker, [*plain_users, *([SOURCE] if None in copied else [])], cost, backwards=True)
        _join(network, maker, [*other_users, *([SINK] if value.other in copied else [])], cost)
    payers: dict[tuple[Perm, bool], list[int]] = {}
    for use in value.uses:
        if use.node is None or use.plain == use.other:
            continue
        if use.plain is not None and use.plain not in copied:
            payers.setdefault((use.plain, True), []).append(number[use.node])
        if use.other not in copied | ({None} if maker is None else {value.other}):
            payers.setdefault((use.other, False), []).append(number[use.node])
    for (perm, is_plain), users in payers.items():
        _join(network, SINK if is_plain else SOURCE, users, transposition_cost(shape, perm), backwards=is_plain)


def _join(network: FlowNetwork, maker: int, users: Sequence[int], cost: int, *, backwards: bool = False) -> None:
    """The cost, once, of any of the users being on the sink's side of its maker (or, `backwards`, the source's)."""
    users = [user for user in dict.fromkeys(users) if user != maker]
    if len(users) == 1:
        ends = (users[0], maker) if backwards else (maker, users[0])
        network.add_edge(*ends, cost)
    elif users:
        copy = network.add_node()
        network.add_edge(*((copy, maker) if backwards else (maker, copy)), cost)
        for user in users:
            network.add_edge(*((user, copy) if backwards else (copy, user)), UNCUTTABLE)


def _cost(editor: Editor, values: Iterable[Value], found: set[Node]) -> int:
    """What all transpositions cost that the choice leaves, those included that the network knows nothing of."""
    return sum(transposition_cost(editor.shape(value.name), perm) for value in values for perm in _copies(value, found))


def _copies(value: Value, found: set[Node]) -> Iterator[Perm]:
    made = value.other if value.maker in found else None
    yield from {use.other if use.node in found else use.plain for use in value.uses} - {made}
