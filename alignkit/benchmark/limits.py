"""The machine that a benchmark ran on, and what it can do at most."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from alignkit.benchmark.timing import Steps, interleaved
from alignkit.numerics.machine import device_name


def machine_limits(device: str, cores: int) -> dict[str, float]:
    """The rate of a large square product, in 10⁹ operations a second, and of a copy, in 10⁹ bytes a second."""
    n = 8192 if device.startswith("cuda") else 1536
    a, b, c = (torch.randn(n, n, device=device) for _ in range(3))
    source = torch.ones(2**24, device=device)
    target = torch.empty_like(source)
    rates: dict[str, float] = {}
    for used in dict.fromkeys((1, cores)):
        timings = interleaved(
            {
                "gemm": Steps(lambda: torch.mm(a, b, out=c), threads=used, device=device),
                "copy": Steps(lambda: target.copy_(source), threads=used, device=device),
            },
            seconds=0.5,
        )
        rates[f"gemm_gflops_{used}"] = round(2e-9 * n**3 / (1e-3 * timings["gemm"].median), 1)
        rates[f"copy_gb_per_s_{used}"] = round(2e-9 * source.nbytes / (1e-3 * timings["copy"].median), 1)
    return rates


def machine(device: str, cores: int) -> dict[str, Any]:
    """What ran: processor or GPU, cores, and versions."""
    return {
        "name": device_name(device),
        "device": device,
        "cores": cores,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }
