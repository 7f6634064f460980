"""tf2onnx in time that is linear in the graph: its loops over all nodes for each node, replaced while `installed`.

What comes out is the same. tf2onnx 1.17 sorts with a list of the unvisited nodes made anew for every start, searches
its list of nodes for each that is removed, visits every node to rename one value, and runs some thirty rewriters, most
of which look for TensorFlow ops that a graph does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from tf2onnx import tfonnx
from tf2onnx.graph import Graph, Node
from tf2onnx.graph_matcher import GraphMatcher, MatchResult

# Where one of these is, all rewriters run: those of loops depend on what the others leave behind.
LOOPS = "While|StatelessWhile|Loop|LoopCond|TensorListGetItem|LSTM|GRU"
# Rewriter → ops of which it needs one each (alternatives joined with `|`), read from its patterns. One that is not
# here always runs: `rewrite_generic_loop` also drops the nodes that nobody uses.
NEEDED_OPS: dict[str, tuple[str, ...]] = {
    "rewrite_quantize_and_dequantize": ("QuantizeAndDequantizeV2|QuantizeAndDequantizeV3|QuantizeAndDequantizeV4",),
    "rewrite_fused_ops": ("_FusedConv2D|_FusedMatMul|_FusedDepthwiseConv2dNative",),
    "rewrite_transpose": ("Transpose", "Sub", "Range"),
    "rewrite_flatten": ("Reshape", "Pack", "StridedSlice"),
    "rewrite_random_uniform": ("RandomUniform",),
    "rewrite_random_uniform_fold_const": ("RandomUniform",),
    "rewrite_random_normal": ("RandomStandardNormal",),
    "rewrite_dropout": ("RandomUniform|RandomUniformLike",),
    "rewrite_conv_dilations": ("BatchToSpaceND", "SpaceToBatchND"),
    "rewrite_eye": ("MatrixDiag|MatrixSetDiag|MatrixDiagV3|MatrixSetDiagV3",),
    "rewrite_leakyrelu": ("Maximum", "Mul"),
    "rewrite_thresholded_relu": ("Mul", "Cast", "Greater"),
    "rewrite_conv2d_with_pad": ("Conv2D", "Pad"),
    "rewriter_lstm_tf2": (LOOPS,),
    "rewrite_gru_tf2": (LOOPS,),
    "rewrite_single_direction_lstm": (LOOPS,),
    "rewrite_bi_direction_lstm": (LOOPS,),
    "rewrite_single_direction_gru": (LOOPS,),
    "rewrite_bi_direction_gru": (LOOPS,),
    "rewrite_custom_rnn_cell": (LOOPS,),
    "rewrite_cond": ("Merge",),
    "rewrite_biasadd_with_conv2d": ("BiasAdd|_FusedConv2D", "Conv2D|Conv2DBackpropInput|_FusedConv2D"),
    "rewrite_layer_normalization": ("Rsqrt", "Mean", "Square", "Sub", "Mul", "Add"),
    "rewrite_gemm": ("MatMul|_FusedMatMul", "Add|AddV2|BiasAdd|_FusedMatMul"),
    "rewrite_ragged_variant_shape": ("RaggedTensorToVariant",),
    "rewrite_sign_bit": ("Less", "BitwiseAnd", "Bitcast"),
}


@contextmanager
def installed() -> Iterator[None]:
    """Replaces methods of tf2onnx until the block ends."""
    with ExitStack() as patches:
        for owner, name, replacement in (
            (Graph, "topological_sort", _topological_sort),
            (Graph, "reset_nodes", _reset_nodes(Graph.reset_nodes)),
            (Graph, "replace_all_inputs", _replace_all_inputs(Graph.replace_all_inputs)),
            (Graph, "extract_sub_graph_nodes", _extract_sub_graph_nodes),
            (GraphMatcher, "match_ops", _match_ops),
            (tfonnx, "run_rewriters", _run_rewriters(tfonnx.run_rewriters)),
            (tfonnx, "resolve_functions", _resolve_functions(tfonnx.resolve_functions)),
            # Made for every node, and for a log that nobody reads.
            (Node, "summary", ""),
        ):
            patches.enter_context(mock.patch.object(owner, name, replacement))
        yield


class NodeList(list[Node]):
    """Nodes that are removed in about the order in which they are listed: each is searched from the last place on."""

    _last = 0

    def remove(self, node: Node) -> None:
        """Raises ValueError when the node is not in the list."""
        try:
            place = self.index(node, self._last)
        except ValueError:
            place = self.index(node)
        del self[place]
        self._last = place


def _reset_nodes(original: Callable[..., None]) -> Callable[..., None]:
    def reset_nodes(graph: Graph, ops: list[Node]) -> None:
        original(graph, ops if isinstance(ops, NodeList) else NodeList(ops))

    return reset_nodes


def _topological_sort(graph: Graph, ops: list[Node]) -> None:
    """Nodes by name, then in reverse postorder of a depth-first walk to the consumers: tf2onnx's order.

    Raises ValueError for a cycle.
    """
    ops.sort(key=lambda op: op.name)
    place = {op.name: number for number, op in enumerate(ops)}
    consumers: list[list[int]] = [[] for _ in ops]
    for number, op in enumerate(ops):
        for producer in _producers(graph, op):
            if producer.name in place or not graph.parent_graph:
                consumers[place[producer.name]].append(number)
    order = [ops[number] for number in reversed(_postorder(consumers, ops))]
    graph.reset_nodes(order)


def _producers(graph: Graph, op: Node) -> Iterator[Node]:
    for name in sorted({*op.input, *op.get_implicit_inputs()} - {""}):
        producer = graph.get_node_by_output(name)
        if producer is None:
            raise ValueError(f"no node of graph {graph.graph_name} makes {name}, which {op.name} uses")
        yield producer


def _postorder(children: Sequence[Sequence[int]], ops: Sequence[Node]) -> list[int]:
    order: list[int] = []
    state = bytearray(len(children))
    unvisited, on_stack, done = 0, 1, 2
    for root in range(len(children)):
        if state[root] != unvisited:
            continue
        state[root] = on_stack
        stack = [(root, iter(children[root]))]
        while stack:
            number, rest = stack[-1]
            child = next((child for child in rest if state[child] != done), None)
            if child is None:
                stack.pop()
                state[number] = done
                order.append(number)
            elif state[child] == on_stack:
                raise ValueError(f"the graph has a cycle through {ops[child].name}")
            else:
                state[child] = on_stack
                stack.append((child, iter(children[child])))
    return order


def _replace_all_inputs(original: Callable[..., None]) -> Callable[..., None]:
    # The names of the parameters are tf2onnx's own: some of its callers use them as keywords.
    def replace_all_inputs(graph: Graph, old_input: str, new_input: str, ops: list[Node] | None = None) -> None:
        """Asked to look at all nodes, look at those that the graph's index names as consumers."""
        original(graph, old_input, new_input, None if ops is graph.get_nodes() else ops)

    return replace_all_inputs


def _extract_sub_graph_nodes(
    graph: Graph, outputs_name: Iterable[str], input_checker: Any = None, remove_unused_inputs: bool = True
) -> list[Node]:
    """The nodes that the outputs depend on, by one walk from all of them; tf2onnx takes one from each."""
    wanted = [*outputs_name, *(() if remove_unused_inputs else (node.output[0] for node in graph.inputs))]
    found: dict[str, Node] = {}
    while wanted:
        node = graph.get_node_by_output(wanted.pop(), search_in_parent_graphs=False)
        if node is not None and node.name not in found and (input_checker is None or input_checker(node)):
            found[node.name] = node
            wanted += [*node.input, *node.get_implicit_inputs()]
    return list(found.values())


def _match_ops(matcher: GraphMatcher, ops: Iterable[Node]) -> Iterator[MatchResult]:
    """Matches in the order of the nodes; nodes of another type than the pattern's root are passed over at once."""
    root = matcher._pattern
    for op in ops:
        if root.op_type == "*" or op.type in root.op_type_set:
            match = matcher.match_op(op)
            if match:
                yield match


def _run_rewriters(original: Callable[..., None]) -> Callable[..., None]:
    def run_rewriters(graph: Graph, rewriters: Iterable[Callable[..., Any]], continue_on_error: Any) -> None:
        present = set(_op_types(graph))
        if present.isdisjoint(LOOPS.split("|")):
            rewriters = [rewriter for rewriter in rewriters if _can_apply(rewriter, present)]
        original(graph, rewriters, continue_on_error)

    return run_rewriters


def _can_apply(rewriter: Callable[..., Any], present: set[str]) -> bool:
    return all(present.intersection(needed.split("|")) for needed in NEEDED_OPS.get(rewriter.__name__, ()))


def _op_types(graph: Graph) -> Iterator[str]:
    """Those inside loops and branches too: the rewriters go on into them."""
    for node in graph.get_nodes():
        yield node.type
        for body in (node.get_body_graphs() or {}).values():
            yield from _op_types(body)


def _resolve_functions(original: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def resolve_functions(tf_graph: Any) -> list[Any]:
        """tf2onnx converts the whole graph once more to find its functions, also where there are none."""
        return original(tf_graph) if tf_graph._functions else []

    return resolve_functions
