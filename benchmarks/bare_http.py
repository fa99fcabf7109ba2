"""What reading a request costs before anything is done with it: bench_http's floor.

    python -m benchmarks.bare_http PORT

A uvicorn with the same parser, event loop and memory settings as the server's, over an
application that reads each body and answers "ok".
"""

from __future__ import annotations

import sys
from typing import Final

import uvicorn
from starlette.types import Receive, Scope, Send

from rest_api.freed_memory import keep_freed_memory

_ANSWER: Final = b"ok"


async def read_and_answer(scope: Scope, receive: Receive, send: Send) -> None:
    """The application."""
    assert scope["type"] == "http"
    while (await receive()).get("more_body", False):
        pass
    length = str(len(_ANSWER)).encode()
    head = {"type": "http.response.start", "status": 200}
    await send({**head, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": _ANSWER})


def main() -> int:
    keep_freed_memory()
    uvicorn.run(
        read_and_answer,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_level="warning",
        access_log=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
