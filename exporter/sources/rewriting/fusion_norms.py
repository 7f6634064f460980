"""Layer normalisation, as Keras computes it, as the ops that runtimes know it by."""

from __future__ import annotations

from itertools import product

import numpy as np

from exporter.sources.rewriting.onnx_editor import Constant as ConstantValue
from exporter.sources.rewriting.onnx_editor import Editor, Node
from exporter.sources.rewriting.patterns import (
    Constant,
    Either,
    Match,
    Op,
    Value,
    discard,
    find,
    put,
    reduced_axes,
    scalar_of,
    step,
)

X, EPSILON, GAMMA, BETA = Value("x"), Constant("epsilon"), Constant("gamma"), Constant("beta")
# The first opsets with these ops.
LAYER_NORM_OPSET, RMS_NORM_OPSET = 17, 23
# The computation has single precision in ONNX (`stash_type`) and in Keras.
NORMED_DTYPES = ("float32", "float16")


def _layer_norm(has_gamma: bool, has_beta: bool) -> Op:
    mean = Op("ReduceMean", X, label="mean")
    centred = Op("Sub", X, mean, label="centred")
    variance = Op("ReduceMean", Op("Mul", centred, centred, label="square"), label="variance")
    root = Op("Sqrt", Op("Add", variance, EPSILON), label="deviation")
    scale = Op("Reciprocal", root)
    scale = Op("Mul", scale, GAMMA) if has_gamma else scale
    shift = Op("Mul", Op("Neg", mean), scale)
    return Op("Add", Op("Mul", X, scale), Op("Add", shift, BETA) if has_beta else shift)


LAYER_NORM = Either(tuple(_layer_norm(gamma, beta) for gamma, beta in product((True, False), repeat=2)))

_RMS = Op("Sqrt", Op("Add", Op("ReduceMean", Op("Mul", X, X), label="mean"), EPSILON))
RMS_NORM = Op("Mul", Op("Mul", X, Op("Reciprocal", _RMS)), GAMMA)


def fuse_layer_norm(editor: Editor, root: Node, opset: int) -> bool:
    """`x · s + (β - μ · s)` with `s = γ / √(σ² + ε)` is `LayerNormalization`: `(x - μ) / √(σ² + ε) · γ + β`.

    The op normalises the last axes. Where another single axis is normalised, as behind a convolution whose channels
    come first, the axis is moved if a transposition on either side is saved by that. Otherwise, and before opset 17,
    the second formula is written out: fewer ops than the first, and ONNX Runtime fuses it where it can.
    """
    match = find(editor, LAYER_NORM, root)
    if match is None:
        return False
    x, axes = match.values["x"], reduced_axes(editor, match.labelled["mean"])
    shape = editor.shape(x)
    if shape is None or not axes or axes != reduced_axes(editor, match.labelled["variance"]):
        return False
    if not all(match.labelled[name].get("keepdims", 1) for name in ("mean", "variance")):
        return False
    epsilon = scalar_of(editor, match.values["epsilon"])
    if epsilon is None or str(editor.dtype(x)) not in NORMED_DTYPES:
        return False
    norm = _Norm(editor, root, match, axes, shape, float(epsilon))
    fused = opset >= LAYER_NORM_OPSET and (norm.fuse_last_axes() or norm.fuse_before() or norm.fuse_behind())
    return fused or norm.write_out()


class _Norm:
    """One layer normalisation that was found, and the forms that it can take. Each says whether it applied."""

    def __init__(
        self,
        editor: Editor,
        root: Node,
        match: Match,
        axes: list[int],
        shape: tuple[int | None, ...],
        epsilon: float,
    ) -> None:
        self.editor, self.root, self.match = editor, root, match
        self.x, self.axes, self.shape, self.epsilon = match.values["x"], axes, shape, epsilon
        self.rank = len(shape)

    @property
    def is_over_last_axes(self) -> bool:
        return self.axes == list(range(self.axes[0], self.rank))

    def fuse_last_axes(self) -> bool:
        parameters = self._parameters() if self.is_over_last_axes else None
        if parameters is None:
            return False
        put(
            self.editor,
            self.root,
            "LayerNormalization",
            [self.x, *parameters],
            axis=self.axes[0] - self.rank,
            epsilon=self.epsilon,
        )
        return True

    def fuse_before(self) -> bool:
        """norm(transpose(x)) = transpose(norm(x)), where only the norm uses the transposed."""
        transpose = self.editor.producer(self.x)
        if transpose is None or transpose.op_type != "Transpose" or self.x in self.editor.outputs:
            return False
        if any(user not in self.match.nodes for user in self.editor.consumers(self.x)):
            return False
        order, parameters = transpose.get("perm"), self._parameters()
        if order is None or parameters is None or order[self.axes[0]] != self.rank - 1:
            return False
        inside = transpose.inputs[0]
        normed = step(
            self.editor, "LayerNormalization", [inside, *parameters], self.root, inside, axis=-1, epsilon=self.epsilon
        )
        put(self.editor, self.root, "Transpose", [normed], perm=list(order))
        return True

    def fuse_behind(self) -> bool:
        """transpose(norm(x)) = norm(transpose(x)), where all that uses the norm is the same transposition."""
        output = self.root.outputs[0]
        users = self.editor.consumers(output)
        if output in self.editor.outputs or any(user.outputs[0] in self.editor.outputs for user in users[1:]):
            return False
        orders = {tuple(user.get("perm") or ()) if user.op_type == "Transpose" else () for user in users}
        if len(orders) != 1:
            return False
        order, parameters = orders.pop(), self._parameters()
        if parameters is None or not order or order[-1] != self.axes[0]:
            return False
        moved = step(self.editor, "Transpose", [self.x], users[0], users[0].outputs[0], perm=list(order))
        first, *others = users
        for user in others:
            self.editor.bypass(user, first.outputs[0])
        inputs = [moved, *parameters]
        self.editor.add_node(
            "LayerNormalization", inputs, like=self.root, outputs=first.outputs, axis=-1, epsilon=self.epsilon
        )
        discard(self.editor, first)
        return True

    def write_out(self) -> bool:
        if self.is_over_last_axes:
            self._square_by_power()
        steps = [(op, name) for op, name in (("Mul", "gamma"), ("Add", "beta")) if name in self.match.values]
        # Without the leading axes of size 1, where that is possible, as ONNX Runtime wants them.
        parameters = (self._parameters() if self.is_over_last_axes and steps else None) or []
        named = dict(zip([name for _, name in steps], parameters[-len(steps) :], strict=False))
        inputs = [self.match.labelled[label].outputs[0] for label in ("centred", "deviation")]
        output = self.root.outputs[0]
        op_type = "Div"
        for following, name in steps:
            parameter = named.get(name, self.match.values[name])
            inputs = [step(self.editor, op_type, inputs, self.root, output), parameter]
            op_type = following
        put(self.editor, self.root, op_type, inputs)
        return True

    def _square_by_power(self) -> None:
        """The form in which ONNX Runtime looks for a square."""
        square = self.match.labelled["square"]
        two = self.editor.add_constant(np.array(2, self.editor.dtype(self.x)), f"{self.root.name}/two")
        power = step(self.editor, "Pow", [square.inputs[0], two], square, self.x)
        self.editor.replace_uses(square.outputs[0], power)
        discard(self.editor, square)

    def _parameters(self) -> list[str] | None:
        """The names of γ and β in the shape of the normalised axes; None where they have another shape."""
        normalised = tuple(self.shape[axis] for axis in self.axes)
        found: list[str] = []
        for name in ("gamma", "beta"):
            if name in self.match.values:
                value = _over(self.editor.constants[self.match.values[name]], self.axes, self.rank, normalised)
                if value is None:
                    return None
                found.append(self.editor.add_constant(value, self.match.values[name]))
            elif name == "gamma":
                if None in normalised:
                    return None
                ones = np.ones([size or 1 for size in normalised], self.editor.dtype(self.x))
                found.append(self.editor.add_constant(ones, f"{self.root.name}/ones"))
        return found


def fuse_rms_norm(editor: Editor, root: Node, opset: int) -> bool:
    """`x · 1/√(mean(x²) + ε) · γ` over the last axes is `RMSNormalization`."""
    match = find(editor, RMS_NORM, root) if opset >= RMS_NORM_OPSET else None
    if match is None:
        return False
    x, axes = match.values["x"], reduced_axes(editor, match.labelled["mean"])
    shape, epsilon = editor.shape(x), scalar_of(editor, match.values["epsilon"])
    if shape is None or not axes or epsilon is None or axes != list(range(axes[0], len(shape))):
        return False
    if str(editor.dtype(x)) not in NORMED_DTYPES or not match.labelled["mean"].get("keepdims", 1):
        return False
    normalised = tuple(shape[axis] for axis in axes)
    gamma = _over(editor.constants[match.values["gamma"]], axes, len(shape), normalised)
    if gamma is None:
        return False
    inputs = [x, editor.add_constant(gamma, match.values["gamma"])]
    put(editor, root, "RMSNormalization", inputs, axis=axes[0] - len(shape), epsilon=float(epsilon))
    return True


def _over(
    parameter: ConstantValue, axes: list[int], rank: int, normalised: tuple[int | None, ...]
) -> ConstantValue | None:
    """The parameter, which broadcasts against values of that rank, without the axes that are not normalised."""
    if len(parameter.shape) > rank:
        return None
    padded = (1,) * (rank - len(parameter.shape)) + tuple(parameter.shape)
    if any(size != 1 for axis, size in enumerate(padded) if axis not in axes):
        return None
    kept = tuple(padded[axis] for axis in axes)
    return parameter.reshape(kept) if kept == normalised else None
