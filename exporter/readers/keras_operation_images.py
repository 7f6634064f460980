"""The shapes that operations of `keras.ops` on images and maps of features give, as in Keras 3.15."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.readers.keras_operation import Operation
from exporter.readers.keras_operation_shapes import Size
from exporter.readers.keras_shapes import Called, windows
from exporter.records import Shape


def _space(call: Operation) -> tuple[int, int]:
    """The axes of height and width, from the back."""
    return (-2, -1) if call.config.get("data_format") == "channels_first" else (-3, -2)


def _with_space(call: Operation, sizes: Sequence[Size]) -> Shape:
    found = list(call.shape)
    for axis, size in zip(_space(call), sizes, strict=True):
        found[axis] = size
    return tuple(found)


def resized(call: Operation) -> Shape:
    return _with_space(call, [int(size) for size in call.config["size"]])


def gray(call: Operation) -> Shape:
    found = list(call.shape)
    found[-3 if call.config.get("data_format") == "channels_first" else -1] = 1
    return tuple(found)


def padded(call: Operation) -> Shape:
    return _bordered(call, "padding", 1)


def cropped(call: Operation) -> Shape:
    return _bordered(call, "cropping", -1)


def _bordered(call: Operation, kind: str, sign: int) -> Shape:
    height, width = _space(call)
    return _with_space(
        call,
        [
            _side(call, call.shape[height], "target_height", (f"top_{kind}", f"bottom_{kind}"), sign),
            _side(call, call.shape[width], "target_width", (f"left_{kind}", f"right_{kind}"), sign),
        ],
    )


def _side(call: Operation, size: Size, target: str, borders: Sequence[str], sign: int) -> Size:
    """The size that is asked for, or that which the borders make."""
    given = call.config.get(target)
    if given is not None or size is None:
        return given
    return size + sign * sum(int(call.config.get(border) or 0) for border in borders)


def pooled(call: Operation) -> Shape:
    size, strides = call.config["pool_size"], call.config.get("strides")
    settings = {"padding": "valid", "strides": size if strides is None else strides, "pool_size": size}
    called = Called({**settings, **{k: v for k, v in call.config.items() if v is not None}}, (call.shape,))
    return called.resized(windows(called, "pool_size"))


def deepened(call: Operation) -> Shape:
    return _blocks(call, to_depth=True)


def spread(call: Operation) -> Shape:
    return _blocks(call, to_depth=False)


def _blocks(call: Operation, *, to_depth: bool) -> Shape:
    """Squares of pixels as channels, or the other way round."""
    block = int(call.config["block_size"])
    height, width = (call.shape[axis] for axis in _space(call))
    channel_axis = 1 if call.config.get("data_format") == "channels_first" else 3
    channels = call.shape[channel_axis]
    sizes = [_scaled(height, block, down=to_depth), _scaled(width, block, down=to_depth)]
    found = list(_with_space(call, sizes))
    found[channel_axis] = _scaled(channels, block**2, down=not to_depth)
    return tuple(found)


def _scaled(size: Size, factor: int, *, down: bool) -> Size:
    return None if size is None else size // factor if down else size * factor


def sequences(call: Operation) -> Shape:
    size, length = call.shape[-1], int(call.config["sequence_length"])
    count = None if size is None else 1 + (size - length) // int(call.config["sequence_stride"])
    return (*call.shape[:-1], count, length)
