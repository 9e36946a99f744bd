"""Tensors that are real whatever torch is doing."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.onnx
from torch.utils._python_dispatch import _disable_current_modes


@contextmanager
def outside_modes() -> Iterator[None]:
    """Make tensors that are real, and fit for gradients, whatever modes and traces are under way."""
    # Inside an operator no trace is recorded, and none may be taken up again.
    trace = torch._C._get_tracing_state() if torch.onnx.is_in_onnx_export() else None
    if trace is not None:
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        with torch.inference_mode(False), _disable_current_modes():
            yield
    finally:
        if trace is not None:
            torch._C._set_tracing_state(trace)  # type: ignore[attr-defined]
