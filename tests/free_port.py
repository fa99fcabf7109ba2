"""Ports for servers of tests: free now, and still free when the server starts."""

from __future__ import annotations

import secrets
import socket
from typing import Final

# Below the range of which the kernel gives ports to connections (32,768 and up): a
# port from there is often taken again between the asking and the listening, above all
# beside another test run. From 20,000 on Asterisk's SIP and RTP ports begin.
_FIRST: Final = 10_000
_NUM_PORTS: Final = 10_000
_given: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on; another one at each call."""
    while len(_given) < _NUM_PORTS:
        # not `random`, which hypothesis seeds alike in every process
        port = _FIRST + secrets.randbelow(_NUM_PORTS)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError("no free port")
