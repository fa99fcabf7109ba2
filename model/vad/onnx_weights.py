"""Reads the weights out of an ONNX file, and nothing else of it.

An ONNX file is a protobuf message: fields, each a number and a value.

Source: github.com/onnx/onnx, `onnx/onnx.proto` (ModelProto, GraphProto, TensorProto).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.float32]]

_MODEL_GRAPH: Final = 7
_GRAPH_INITIALIZER: Final = 5
_TENSOR_DIMS: Final = 1
_TENSOR_TYPE: Final = 2
_TENSOR_NAME: Final = 8
_TENSOR_RAW: Final = 9
_FLOAT: Final = 1  # TensorProto.DataType
# How a field's value is written.
_VARINT, _EIGHT_BYTES, _COUNTED, _FOUR_BYTES = 0, 1, 2, 5


def read_weights(path: Path) -> Weights:
    """The float32 arrays of the file's graph by name; those of other types are left.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no ONNX file, or it is damaged.
    """
    weights: Weights = {}
    for number, graph in _fields(path.read_bytes()):
        if number != _MODEL_GRAPH or isinstance(graph, int):
            continue
        for inner, tensor in _fields(graph):
            if inner == _GRAPH_INITIALIZER and not isinstance(tensor, int):
                weights.update(_floats(tensor))
    if not weights:
        raise ValueError("no weights in it")
    return weights


def _floats(tensor: bytes) -> Weights:
    shape: list[int] = []
    name, raw, data_type = "", b"", 0
    for number, value in _fields(tensor):
        if isinstance(value, int):
            if number == _TENSOR_DIMS:
                shape.append(value)
            elif number == _TENSOR_TYPE:
                data_type = value
        elif number == _TENSOR_NAME:
            name = value.decode("utf-8")
        elif number == _TENSOR_RAW:
            raw = value
    if data_type != _FLOAT or len(raw) != 4 * math.prod(shape):
        return {}
    return {name: np.frombuffer(raw, dtype="<f4").reshape(shape)}


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _COUNTED:
            num_bytes, at = _varint(message, at)
        elif kind in (_FOUR_BYTES, _EIGHT_BYTES):
            num_bytes = 4 if kind == _FOUR_BYTES else 8
        else:
            raise ValueError(f"field {number} is of the unknown kind {kind}")
        if at + num_bytes > len(message):
            raise ValueError(f"field {number} is cut short")
        yield number, message[at : at + num_bytes]
        at += num_bytes


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first -> (number, where the next thing begins)."""
    number = shift = 0
    while True:
        if at >= len(message):
            raise ValueError("a number is cut short")
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at
