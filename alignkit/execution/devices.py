"""Which device trains, and with how many worker processes."""

from __future__ import annotations

import os
import re

import torch

from alignkit.errors import AlignkitError


def choose_device(name: str = "auto") -> str:
    """The torch device of a `--device` option: "auto" takes a GPU where there is one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    reason = "not supported"
    try:
        if re.fullmatch(r"(cpu|cuda)(:\d+)?", name):
            torch.empty(1, device=name)
            return name
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
    raise AlignkitError(
        f'--device: expected "auto", "cpu" or a CUDA device that exists; got "{name}" ({reason}). '
        "Leave it out to use what there is"
    )


def default_workers(device: str) -> int:
    if device.startswith("cuda"):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
