"""The shapes that annotations name: checked where `--shapes` asks for it, remarks everywhere else."""

from __future__ import annotations

import subprocess
import sys
import typing

import pytest
import torch

from alignkit.networks.losses import is_right
from alignkit.numerics.products import matmul


def test_wrong_shapes_are_seen_where_they_are_asked_for(pytestconfig: pytest.Config) -> None:
    output, classes = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)
    assert is_right(output, classes).shape == (2, 3)
    if pytestconfig.getoption("--shapes"):
        from jaxtyping import TypeCheckError

        with pytest.raises(TypeCheckError, match="targets"):
            is_right(output, classes.double())
        with pytest.raises(TypeCheckError, match=r"parameter 'b'"):
            matmul(output, torch.zeros(2, 3, 4))
    else:
        assert typing.get_type_hints(matmul)["return"] is torch.Tensor


def test_nothing_checks_shapes_at_run_time() -> None:
    script = (
        "import sys, alignkit.training.loop as loop; "
        "assert loop.train_cohort and not {'jaxtyping', 'beartype'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
