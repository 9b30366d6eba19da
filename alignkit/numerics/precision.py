"""How numbers are computed: threads, and the precision in which matrix products take their factors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, get_args

import torch

from alignkit.errors import StudyError
from alignkit.numerics.allocator import keep_freed_memory
from alignkit.settings.training import MatmulPrecision

_backends: Any = torch.backends  # torch's annotations lack what follows
_DECIDES = {
    "cuda": (_backends.cuda.matmul, _backends.cudnn.conv),
    "cpu": (_backends.mkldnn.matmul, _backends.mkldnn.conv),
}
"""Where torch keeps the precision of products and of convolutions, by kind of device."""


@contextlib.contextmanager
def reproducible(device: str) -> Iterator[None]:
    """Arithmetic that is the same on every machine of a kind, inside.

    On a CPU one thread, so that sums have one order; everywhere products of float32, whatever the process was set to.
    """
    threads = torch.get_num_threads()
    if device.startswith("cpu"):
        torch.set_num_threads(1)
        keep_freed_memory()
    try:
        with _rounding("float32", *_DECIDES):
            yield
    finally:
        torch.set_num_threads(threads)


def multiplying_in(precision: MatmulPrecision, device: str) -> contextlib.AbstractContextManager[None]:
    """Products in the precision that a study asks for, inside; to be used in `reproducible`, which sets float32."""
    return contextlib.nullcontext() if precision == "float32" else _rounding(precision, _kind(device))


def check_precisions(precisions: Iterable[MatmulPrecision], device: str) -> None:
    """Raise `StudyError` where products on this device would take their factors in another precision than asked."""
    for precision in dict.fromkeys(precisions):
        if not _supports(precision, device):
            names = [f'"{other}"' for other in supported_precisions(device)]
            raise StudyError(
                f"training.matmul_precision: expected {' or '.join(names)}, in which the {_kind(device)} here "
                f'multiplies; got "{precision}". Take one of those, or another device ("tf32": a GPU of 2020 or later; '
                '"bf16": a processor with AMX)'
            )


def supported_precisions(device: str) -> list[MatmulPrecision]:
    """The matmul precisions that this device supports, float32 first."""
    return [precision for precision in get_args(MatmulPrecision) if _supports(precision, device)]


def _supports(precision: MatmulPrecision, device: str) -> bool:
    """Whether products on the device keep the bits of a precision: numbers that need 7, 9 and 12 of them show it."""
    bits = torch.tensor([7.0, 9.0, 12.0], device=device)
    factor = (1.0 + 2.0**-bits).repeat_interleave(64).view(3, 1, 64).expand(3, 64, 64)
    try:
        with _rounding(precision, _kind(device)):
            product = torch.bmm(factor, torch.eye(64, device=device).expand(3, 64, 64))
    except RuntimeError:  # torch knows that this kind of device does not have it
        return False
    kept = (product[:, 0, 0] == factor[:, 0, 0]).tolist()
    return kept == {"float32": [True, True, True], "tf32": [True, True, False], "bf16": [True, False, False]}[precision]


@contextlib.contextmanager
def _rounding(precision: MatmulPrecision, *kinds: str) -> Iterator[None]:
    decisive = [setting for kind in kinds for setting in _DECIDES[kind]]
    before = [setting.fp32_precision for setting in decisive]
    try:
        for setting in decisive:
            setting.fp32_precision = "ieee" if precision == "float32" else precision
        yield
    finally:
        for setting, known in zip(decisive, before, strict=True):
            setting.fp32_precision = known


def _kind(device: str) -> str:
    return device.partition(":")[0]
