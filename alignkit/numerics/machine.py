"""What computes: the name of a processor or GPU."""

from __future__ import annotations

import functools
import platform
import re
from pathlib import Path

import torch


@functools.cache
def device_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()


def _processor() -> str:
    try:
        line = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        line = None
    return line.group(1).strip() if line else platform.processor() or platform.machine()
