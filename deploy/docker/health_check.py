"""The container's health check: status 0 as long as the HTTP port answers."""

from __future__ import annotations

import os
import ssl
import sys
from urllib.error import URLError
from urllib.request import urlopen

_TIMEOUT_S = 8.0


def main() -> int:
    """0 alive, 1 not."""
    is_tls = bool(os.environ.get("ULTRAVOX_TLS_CERTIFICATE"))
    port = os.environ.get("ULTRAVOX_PORT", "8000")
    url = f"{'https' if is_tls else 'http'}://127.0.0.1:{port}/health/live"
    # on loopback no certificate's name can fit, and nobody else is there
    context = ssl._create_unverified_context() if is_tls else None  # noqa: S323
    try:
        with urlopen(url, timeout=_TIMEOUT_S, context=context):  # noqa: S310
            return 0
    except (URLError, OSError) as exc:
        print(f"{url}: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
