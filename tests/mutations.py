"""Damages files: bits, bytes, cuts, and what only a reader of the format meets, such as other sizes in sound headers.

Each change follows from the dice alone, so that whatever a test finds can be made again.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from exporter.protobuf import BYTES, VARINT, encoded, fields, varint

# What a number or a text in JSON becomes.
ODD: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, -(2**63), 2**70, 1.5, float("nan"), float("inf"), "", "x", "a\0b", "../x",
    "/etc/passwd", "http://x/y", "\ud800", "x" * 5000, [], {}, [[]], [None], {"a": 1}, ["x", "x"], [-1, 2**40],
]  # fmt: skip
NUMBERS = [0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
TEXTS = [b"", b"\0", b"\xff\xfe", b"../../x", b"x" * 10_000]
WORDS = [b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 4, b"\0" * 4, b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\0" * 8]


def damaged(path: Path, dice: Random) -> bytes:
    """Another content for the file, in the way of its kind as often as not."""
    data = path.read_bytes()
    if path.suffix == ".h5":
        # libhdf5 goes round in circles in some files; they have no checksums, so that a cut is all that it notices.
        return data[: dice.randrange(len(data))]
    if path.suffix == ".keras":
        return _archive(path, dice)
    if dice.random() < 0.4:
        return _bytes(data, dice)
    if path.suffix == ".json":
        return _json(data, dice)
    if path.suffix == ".safetensors":
        end = 8 + int.from_bytes(data[:8], "little")
        header = _json(data[8:end], dice)
        return len(header).to_bytes(8, "little") + header + data[end:]
    return _message(data, dice) if path.suffix == ".onnx" else _bytes(data, dice)


def _bytes(data: bytes, dice: Random) -> bytes:
    if not data or dice.random() < 0.1:
        return data[: dice.randrange(len(data) + 1)]
    found = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        place, length = dice.randrange(len(found)), dice.randrange(1, 32)
        change = dice.choice(["bit", "byte", "word", "word", "cut", "copy"])
        if change == "bit":
            found[place] ^= 1 << dice.randrange(8)
        elif change == "byte":
            found[place] = dice.choice([0, 127, 128, 255])
        elif change == "word":
            word = dice.choice(WORDS)
            found[place : place + len(word)] = word
        elif change == "cut" and len(found) > length:
            del found[place : place + length]
        else:
            start = dice.randrange(len(found))
            found[place:place] = found[start : start + length]
    return bytes(found)


def _json(data: bytes, dice: Random) -> bytes:
    """With something else, or something twice, or something less, at one place in it."""
    content = json.loads(data)
    holder, key = dice.choice(list(_places(content)))
    change = dice.random()
    if change < 0.65:
        holder[key] = dice.choice(ODD)
    elif change < 0.8:
        other, place = dice.choice(list(_places(content)))
        holder[key] = json.loads(json.dumps(other[place]))
    else:
        del holder[key]
    return json.dumps(content).encode()


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    stack = [content]
    while stack:
        holder = stack.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            yield holder, key
            if isinstance(holder[key], (dict, list)):
                stack.append(holder[key])


def _message(data: bytes, dice: Random) -> bytes:
    """A protobuf message with another value, or an order, or a number of fields, at some depth in it."""
    try:
        found = list(_fields(data))
    except ValueError:
        found = []
    if not found:
        return _bytes(data, dice)
    place = dice.randrange(len(found))
    tag, value = found[place]
    change = dice.random()
    if change < 0.7 and tag & 7 == BYTES and len(value) > 1:
        value = _message(value, dice)
    elif change < 0.8:
        found += [found[place]]
    elif tag & 7 == BYTES:
        value = dice.choice(TEXTS)
    elif tag & 7 == VARINT:
        value = encoded(dice.choice(NUMBERS))
    found[place : place + 1] = [] if change > 0.95 else [(tag, value)]
    return b"".join(encoded(tag) + (encoded(len(value)) if tag & 7 == BYTES else b"") + value for tag, value in found)


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag of each field and its content; that of a number is the number as it is written."""
    end = 0
    for each in fields(data, 0, len(data)):
        tag, _ = varint(data, end, len(data))
        yield tag, data[each.start : each.stop]
        end = each.stop


def _archive(path: Path, dice: Random) -> bytes:
    """The archive, sound, with a member that is not; or not sound itself."""
    if dice.random() < 0.25:
        return _bytes(path.read_bytes(), dice)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = dice.choice(sorted(members))
    members[name] = (
        _json(members[name], dice) if name.endswith(".json") else members[name][: dice.randrange(len(members[name]))]
    )
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return made.getvalue()
