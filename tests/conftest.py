"""Shared by all tests: one thread, no user caches, and small ready-made settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

CIFAR10 = Path(os.environ.get("ALIGNKIT_CIFAR10", Path(__file__).parents[2] / "shared" / "data" / "cifar10"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shapes", action="store_true", help="check the annotated shapes of tensors at every call")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--shapes"):
        import shapes

        shapes.install()


@pytest.fixture
def cifar10() -> Path:
    if not CIFAR10.is_dir():
        pytest.skip(f"CIFAR-10 is not at {CIFAR10}; set ALIGNKIT_CIFAR10 to a folder of its Parquet files")
    return CIFAR10


@pytest.fixture(scope="module")
def without_pdf() -> Iterator[None]:
    """Figures of reports as SVG alone: to subset the fonts of a PDF is most of a small report's time."""
    from alignkit.figures.style import save_svg

    with pytest.MonkeyPatch.context() as patched:
        for module in ("alignkit.report.page", "alignkit.papers.launay2019.page"):
            patched.setattr(f"{module}.save_figure", lambda figure, *, name: (save_svg(figure, name=name), b"%PDF"))
        yield
