"""A GPU that computes nothing, for machines that have none: it works out shapes, types and devices, but no numbers.

A branch behind `is_cuda` never runs where there is no GPU, so a plain mistake there waits for the first user who has
one. Here it runs. The device is Python alone (torch calls such a one "privateuse1"); its tensors are torch's fake
tensors, and they say that they lie on a GPU. What a GPU would refuse, or be slowed down by, is an error:

- one operation on tensors of different devices;
- whatever makes the host wait for the device: `item()`, `bool()`, `nonzero()`, a mask as an index, a copy to the host, a
  decomposition whose success torch looks up. Only the functions named in `reads` may do it;
- a copy from the host to the device, which waits too. Only the functions named in `sends` may do it.

What comes back is made up: arrays of zeros, 1 for a single number, yes to a question. A test here says nothing of numbers.

Once made, the device stays for as long as the process does, and constants that alignkit keeps would be fake for every
later test. Hence `in_a_process`; and one process for all cases, since torch takes seconds to start.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import alignkit

DEVICE = "pydev"
PACKAGE = Path(alignkit.__file__).parent
SECONDS = 300
"""After which a process of its own counts as stuck."""

_ATEN = torch.ops.aten
_COPIES = (_ATEN._to_copy.default, _ATEN.to.dtype_layout)  # the second in inference mode, before the first
_INDEXED = (_ATEN.index, _ATEN.index_put, _ATEN.index_put_)  # by tensors on the host, too: they are sent
_ANSWERED = (_ATEN._local_scalar_dense.default, _ATEN.allclose.default, _ATEN.equal.default)  # by one number
_LOOKED_UP = (_ATEN._linalg_svd, _ATEN._linalg_eigh, _ATEN.linalg_pinv, _ATEN.linalg_inv_ex, _ATEN._linalg_solve_ex)


class Question(NamedTuple):
    """A line of alignkit that asks whether a tensor lies on a GPU, by `is_cuda` or by a function that answers with it."""

    file: str
    line: int
    branch: int
    """The first line of what runs on a GPU alone, behind an `if`. 0 where it stands on the same line, or everything
    but the branch runs there."""


class Crossing(NamedTuple):
    """A copy between host and device, and the function of alignkit that makes it."""

    direction: str  # "read" from the device or "sent" to it
    function: str


class HostWaits(Exception):
    """The host would wait for the device, where it must not."""


class TwoDevices(Exception):
    """An operation has tensors on the host and tensors on the device."""


class FakeGPU(FakeTensorMode):
    """Inside this context tensors on `DEVICE` are a GPU's. One a process.

    `asked` are the questions that such a tensor answered, with the branch that was taken then, and `crossings` the
    copies to and fro, in their order.
    """

    avoid_device_init = True  # torch.tensor(…, device=…) then makes its numbers on the host

    def __init__(self, *, reads: Collection[str], sends: Collection[str]) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.asked: set[Question] = set()
        self.crossings: list[Crossing] = []
        self._answering = set(_answering())
        self._allowed = {"read": frozenset(reads), "sent": frozenset(sends)}
        _setup_privateuseone_for_python_backend(rename=DEVICE)
        FakeTensor.is_cuda = property(self._is_cuda)
        FakeTensor.numpy = _zeros
        torch.autograd.grad = _on_this_thread(torch.autograd.grad)

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every operation comes through here."""
        kwargs = kwargs or {}
        direction = _direction(func, args, kwargs)
        if direction is not None:
            self._cross(direction)
        if direction == "sent" and func in _COPIES:
            source, dtype = args[0], kwargs.get("dtype") or args[0].dtype
            with self:  # not the copy itself: of a constant, torch would try to make it
                return torch.empty_strided(source.shape, source.stride(), dtype=dtype, device=kwargs["device"])
        if direction == "read" and func in _ANSWERED:
            return True if func is not _ANSWERED[0] or args[0].dtype == torch.bool else 1
        return super().dispatch(func, types, args, kwargs)

    def _cross(self, direction: str) -> None:
        frame = next(_frames_of_alignkit(), None)
        function = "" if frame is None else frame.f_code.co_qualname.partition(".<locals>")[0]
        if function not in self._allowed[direction]:
            does, argument = ("reads from", "reads") if direction == "read" else ("sends to", "sends")
            raise HostWaits(
                f"{function or 'a test'} {does} the device, and the host waits for it. Where it may, name it in `{argument}`"
            )
        self.crossings.append(Crossing(direction, function))

    def _is_cuda(self, tensor: FakeTensor) -> bool:
        if tensor.device.type != DEVICE:
            return False
        frame: FrameType | None = sys._getframe(1)
        if frame is not None and _of_alignkit(frame):
            self._note(frame, branch=0)
            while frame is not None and (frame.f_code.co_name in self._answering or frame.f_code.co_name[0] == "<"):
                frame = frame.f_back
            if frame is not None and _of_alignkit(frame):
                self._note(frame, branch=0)
                self._follow(frame)
        return True

    def _note(self, frame: FrameType, *, branch: int) -> None:
        file = Path(frame.f_code.co_filename).relative_to(PACKAGE).as_posix()
        self.asked.add(Question(file, frame.f_lineno, branch))

    def _follow(self, asking: FrameType) -> None:
        """Note to which line a function goes once it has the answer."""
        file, line = Path(asking.f_code.co_filename).relative_to(PACKAGE).as_posix(), asking.f_lineno

        def trace(frame: FrameType, event: str, _: Any) -> None:
            if event == "line":
                self.asked.add(Question(file, line, frame.f_lineno))
            frame.f_trace = None
            sys.settrace(None)

        asking.f_trace = trace
        sys.settrace(lambda *_: None)


def _direction(func: Any, args: Any, kwargs: Any) -> str | None:
    """Whether an operation reads from the device, sends to it, or neither."""
    if func in _COPIES:
        return _way(args[0].device, kwargs.get("device") or args[0].device)
    if func is _ATEN.copy_.default:
        return _way(args[1].device, args[0].device)
    devices = _devices([*args, *kwargs.values()])
    if len(devices) > 1:
        if func.overloadpacket not in _INDEXED:
            raise TwoDevices(f"{func} of tensors on {' and '.join(sorted(devices))}")
        return "sent"
    if DEVICE in devices and func.overloadpacket in _LOOKED_UP:
        return "read"
    return "read" if func in _ANSWERED and args[0].device.type == DEVICE else None


def _way(source: torch.device, target: torch.device) -> str | None:
    if source.type == target.type:
        return None
    return "sent" if target.type == DEVICE else "read"


def _devices(values: Iterable[Any]) -> set[str]:
    """The kinds of device that tensors lie on, but for those of a single number: one on the host goes with any."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, torch.Tensor):
            if value.dim():
                found.add(value.device.type)
        elif isinstance(value, list | tuple):
            found |= _devices(value)
    return found


def _zeros(tensor: torch.Tensor, *, force: bool = False) -> np.ndarray:
    """`Tensor.numpy`, of fake tensors."""
    if tensor.device.type != "cpu":
        raise TypeError(f"can't convert a tensor on {tensor.device} to numpy: use Tensor.cpu() first")
    return np.zeros(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


def _on_this_thread(grad: Callable[..., Any]) -> Callable[..., Any]:
    """`torch.autograd.grad` without the device's own thread, where an error would end the process."""

    def found(*args: Any, **kwargs: Any) -> Any:
        with torch.autograd.set_multithreading_enabled(False):
            return grad(*args, **kwargs)

    return found


def _frames_of_alignkit() -> Iterator[FrameType]:
    """The frames of alignkit's own functions, from the innermost out."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _of_alignkit(frame):
            yield frame
        frame = frame.f_back


def _of_alignkit(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(f"{PACKAGE}{os.sep}")


def questions() -> set[Question]:
    """Every question of alignkit."""
    answering = _answering()
    return {
        Question(file, line, branch)
        for file, source in _sources("is_cuda", *answering)
        for line, branch in questions_in(source, answering)
    }


def questions_in(source: str, answering: dict[str, bool]) -> set[tuple[int, int]]:
    """The lines of a module's questions, and of the branches that hang on them. Of functions that answer, whether they
    say True of a GPU."""

    def search(node: ast.AST, branch: int, positive: bool) -> Iterator[tuple[int, int]]:
        answer = _answer(node, answering)
        if answer is not None:
            line = node.lineno if isinstance(node, ast.Call) else node.end_lineno
            yield line, branch if answer == positive else 0
        if isinstance(node, ast.If):
            yield from search(node.test, node.body[0].lineno, True)
            rest = [*node.body, *node.orelse]
            branch = 0
        else:
            rest = [*ast.iter_child_nodes(node)]
        for child in rest:
            yield from search(child, branch, positive ^ _negates(node))

    return set(search(ast.parse(source), 0, True))


def _answer(node: ast.AST, answering: dict[str, bool]) -> bool | None:
    """What a GPU's tensor makes of an expression; None if it does not ask."""
    if isinstance(node, ast.Attribute) and node.attr == "is_cuda":
        return True
    if not isinstance(node, ast.Call):
        return None
    return answering.get(getattr(node.func, "id", getattr(node.func, "attr", "")))


def _negates(node: ast.AST) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _answering() -> dict[str, bool]:
    return {name: answer for _, source in _sources("is_cuda") for name, answer in answering_in(source).items()}


def answering_in(source: str) -> dict[str, bool]:
    """The functions of a module that return what a tensor answers, and whether they return True of a GPU's."""

    def search(node: ast.AST, positive: bool) -> Iterator[bool]:
        if _answer(node, {}):
            yield positive
        if not isinstance(node, ast.IfExp):  # which returns something else
            for child in ast.iter_child_nodes(node):
                yield from search(child, positive ^ _negates(node))

    return {
        function.name: answer
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef)
        for returned in ast.walk(function)
        if isinstance(returned, ast.Return)
        for answer in search(returned, True)
    }


def deciding_by_name() -> set[str]:
    """Functions of alignkit that tell a GPU by the name of its device, or that call `torch.cuda`, but for benchmarks."""
    return {
        function
        for file, source in _sources("cpu", "cuda")
        if not file.startswith("benchmark/")
        for function in deciding_by_name_in(source)
    }


def deciding_by_name_in(source: str) -> set[str]:
    """Such functions in a module's source, as `Class.function`; "" for the module's own lines."""

    def search(node: ast.AST, name: str) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = f"{name}.{node.name}".lstrip(".")
        if _tells_by_name(node):
            yield name
        for child in ast.iter_child_nodes(node):
            yield from search(child, name)

    return set(search(ast.parse(source), ""))


def _tells_by_name(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "cuda" and isinstance(node.value, ast.Name) and node.value.id == "torch"
    parts: list[ast.AST] = []
    if isinstance(node, ast.Compare):
        parts = [node.left, *node.comparators]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
        parts = [*node.args]
    return any(isinstance(part, ast.Constant) and part.value in ("cpu", "cuda") for part in parts)


def _sources(*words: str) -> Iterator[tuple[str, str]]:
    """Path and text of alignkit's modules that have one of these words."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if any(word in source for word in words):
            yield path.relative_to(PACKAGE).as_posix(), source


def in_a_process(module: str, function: str) -> Any:
    """What a function of a test module returns, as JSON, called in a process of its own where warnings are errors."""
    call = f"import fake_gpu, {module}; fake_gpu.print_as_json({module}.{function})"
    folders = [str(Path(__file__).parent), str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    done = subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, timeout=SECONDS, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{module}.{function} ended with status {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def print_as_json(function: Callable[[], Any]) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    print(json.dumps(function()))
