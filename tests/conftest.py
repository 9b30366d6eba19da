"""Shared by all tests: one thread, no user caches, and small ready-made settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

CIFAR10 = Path(os.environ.get("ALIGNKIT_CIFAR10", Path(__file__).parents[2] / "shared" / "data" / "cifar10"))


@pytest.fixture
def cifar10() -> Path:
    if not CIFAR10.is_dir():
        pytest.skip(f"CIFAR-10 is not at {CIFAR10}; set ALIGNKIT_CIFAR10 to a folder of its Parquet files")
    return CIFAR10
