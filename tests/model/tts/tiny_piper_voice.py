"""A piper voice of a few hundred bytes: every phoneme is a short tone.

An ONNX file with piper's inputs (input, input_lengths, scales) and output, written by
hand so that no ONNX package is needed.  Its pitch says nothing; its length does: 50 ms
for each phoneme id.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

RATE_HZ = 16_000
SAMPLES_PER_PHONEME = 800
_FLOAT, _INT64 = 1, 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _node(op: str, inputs: list[str], output: str, attribute: bytes = b"") -> bytes:
    names = b"".join(_bytes(1, name) for name in inputs)
    return names + _bytes(2, output) + _bytes(4, op) + attribute


def _tensor(name: str, kind: int, shape: list[int], raw: bytes) -> bytes:
    dims = b"".join(_number(1, size) for size in shape)
    return dims + _number(2, kind) + _bytes(8, name) + _bytes(9, raw)


def _value(name: str, kind: int, shape: list[str | int]) -> bytes:
    dims = b"".join(
        _bytes(1, _number(1, size) if isinstance(size, int) else _bytes(2, size))
        for size in shape
    )
    tensor = _number(1, kind) + _bytes(2, dims)
    return _bytes(1, name) + _bytes(2, _bytes(1, tensor))


def _model() -> bytes:
    at = np.arange(SAMPLES_PER_PHONEME) / RATE_HZ
    tone = (0.002 * np.sin(2 * np.pi * 440 * at)).astype("<f4")
    column, flat = struct.pack("<2q", -1, 1), struct.pack("<4q", 1, 1, 1, -1)
    to_float = _bytes(5, _bytes(1, "to") + _number(3, _FLOAT) + _number(20, 2))
    nodes = [
        _node("Cast", ["input"], "ids", to_float),
        _node("Reshape", ["ids", "column"], "id_column"),
        _node("MatMul", ["id_column", "tone"], "tones"),
        _node("Reshape", ["tones", "flat"], "output"),
    ]
    initializers = [
        _tensor("column", _INT64, [2], column),
        _tensor("tone", _FLOAT, [1, SAMPLES_PER_PHONEME], tone.tobytes()),
        _tensor("flat", _INT64, [4], flat),
    ]
    inputs = [
        _value("input", _INT64, ["batch", "phonemes"]),
        _value("input_lengths", _INT64, ["batch"]),
        _value("scales", _FLOAT, [3]),
    ]
    graph = b"".join(
        [
            *(_bytes(1, node) for node in nodes),
            _bytes(2, "tiny"),
            *(_bytes(5, tensor) for tensor in initializers),
            *(_bytes(11, value) for value in inputs),
            _bytes(12, _value("output", _FLOAT, [1, 1, 1, "samples"])),
        ]
    )
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13))


def write_voice(folder: Path, name: str, language: str) -> Path:
    """NAME.onnx and NAME.onnx.json; letters are phonemes."""
    path = folder / f"{name}.onnx"
    path.write_bytes(_model())
    symbols = "_^$ abcdefghijklmnopqrstuvwxyz,.?!0123456789"
    settings = {
        "audio": {"sample_rate": RATE_HZ},
        "espeak": {"voice": language},
        "inference": {"noise_scale": 0.667, "length_scale": 1.0, "noise_w": 0.8},
        "phoneme_type": "text",
        "num_symbols": len(symbols),
        "num_speakers": 1,
        "phoneme_id_map": {symbol: [i] for i, symbol in enumerate(symbols)},
    }
    Path(f"{path}.json").write_text(json.dumps(settings))
    return path
