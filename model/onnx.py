"""onnxruntime as this service wants it: without telemetry."""

from __future__ import annotations

import os
from types import ModuleType


def import_onnxruntime() -> ModuleType:
    """The only way to onnxruntime in this project.

    From 1.29 on, its official Linux wheels send usage data to Microsoft by default:
    importing the package starts two threads, opens a database in the home directory
    and names the machine. The switch is read at import and must be set before; a value
    that the operator has set stands. `disable_telemetry_events()` comes too late.

    Source: github.com/microsoft/onnxruntime, `core/platform/telemetry_1ds.cc` (1.31).
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    module: ModuleType = onnxruntime
    return module
