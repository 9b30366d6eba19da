"""Published DFA codes, run from the user's own checkout of them, to compare alignkit's speed with.

Nothing of theirs is part of alignkit. An adapter imports what it needs from the checkout, builds a fully
connected tanh network in that code's own way, and runs the body of its mini-batch loop, without its
logging and accuracies. What each had to work around is said in its docstring.

An import leaves no trace: `sys.path` and `sys.modules` are as before, so that their modules called
`models` or `utils` shadow nobody's; no bytecode is written to the checkout; what they print is dropped; the
global random generators keep their state.
"""

from __future__ import annotations

import importlib
import io
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from alignkit.benchmark.plain import Step, check_sizes
from alignkit.errors import AlignkitError

Measure = Callable[[Tensor, Tensor], list[float]]
"""Takes a batch, returns the mean cosine at z_l of every hidden layer."""


@dataclass(frozen=True)
class Trainee:
    """A network of a published code, and what its step comes to.

    With e = softmax(y) - onehot [N, C], h_l moves by e B_l pulled back through tanh, times the learning
    rate, times 1/N where the reduction is "mean".
    """

    step: Step
    measure: Measure | None  # None: the code measures no alignment of such a network
    layers: list[nn.Linear]  # hidden layers, then the output layer
    feedback: list[Tensor]  # B_l [C, d_l], normalisation included
    hidden_reduction: Literal["mean", "sum"]
    output_reduction: Literal["mean", "sum"]


class Builds(Protocol):
    """Builds a network; called where the code's modules can be imported."""

    def __call__(self, *, sizes: Sequence[int], lr: float, device: torch.device, seed: int) -> Trainee: ...


@dataclass(frozen=True)
class Published:
    """A published code: how a checkout of it is told, and how a network of it is built."""

    url: str
    commit: str  # the one that the adapter was tried with
    files: tuple[str, ...]  # in every checkout of it, and of no other
    root: str  # the folder that its modules are imported from
    build: Builds
    unused: tuple[str, ...] = ()  # packages that its modules import and the DFA path does not use


def recognise(checkout: Path) -> str:
    """Which published code a directory is a checkout of, by the files in it: a key of `PUBLISHED`.

    Raises
    ------
    AlignkitError
        If there is no such directory, or it is none of them.
    """
    for name, published in PUBLISHED.items():
        if all((checkout / file).is_file() for file in published.files):
            return name
    got = "another directory" if checkout.is_dir() else "a file" if checkout.exists() else "nothing there"
    known = "; ".join(f"{name} (with {published.files[0]})" for name, published in PUBLISHED.items())
    raise AlignkitError(
        f"{checkout}: expected a checkout of one of {known}; got {got}. Clone one of "
        f"{', '.join(published.url for published in PUBLISHED.values())} and give the folder that git makes"
    )


def build(checkout: Path, *, sizes: Sequence[int], lr: float, device: torch.device | str, seed: int = 0) -> Trainee:
    """A fully connected tanh network of a published code, trained by DFA with cross-entropy and SGD.

    Its step is the body of that code's training loop; weights, feedback and the reduction over the batch are the
    code's own (see the adapters), so that networks of different codes do not learn at the same pace. Its measurement
    is the one that the code makes during training: the batch through the DFA network and through a copy of it that
    back-propagates. The codes differ in what they report; what all have is returned, the mean over samples of the
    cosine at every hidden layer's z_l. biotorch measures none under DFA, dfa-dynamics needs two hidden layers.

    Parameters
    ----------
    checkout
        The folder of a clone, as `recognise` takes it.
    sizes
        Units of the input, of every hidden layer, and of the output.
    lr
        What the code's optimiser is given.
    device
        Where the network lies, and where batches must.
    seed
        What `torch.manual_seed` is given before the network is built.

    Raises
    ------
    AlignkitError
        If the checkout is none that is known or does not run, or the code cannot build such a network.
    """
    name = recognise(checkout)
    check_sizes(sizes)
    published = PUBLISHED[name]
    with (
        _importing_from((checkout / published.root).resolve(), unused=published.unused),
        torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()),
        _quiet(),
    ):
        torch.manual_seed(seed)
        try:
            return published.build(sizes=sizes, lr=lr, device=torch.device(device), seed=seed)
        except AlignkitError:
            raise
        except Exception as error:  # a code that is not ours may fail in any way
            raise AlignkitError(
                f"{checkout}: expected {name} to build a network of sizes {tuple(sizes)} on {device} with torch "
                f"{torch.__version__}; got {type(error).__name__}: {error}. "
                f"Check out commit {published.commit}, which alignkit was tried with, or take another device"
            ) from error


def _tinydfa(*, sizes: Sequence[int], lr: float, device: torch.device, seed: int) -> Trainee:
    """TinyDFA (Launay et al. 2020), put together like its MNIST example: a DFALayer after each tanh, DFA on top.

    All layers share one B ~ U(-1, 1), sliced and divided by the root of the largest width. The network
    draws it in its first forward pass, which prints; so one runs without gradients while it is built.
    """
    tinydfa = importlib.import_module("tinydfa")
    alignment = importlib.import_module("tinydfa.alignment")
    layers = [nn.Linear(i, o) for i, o in pairwise(sizes)]
    points = [tinydfa.DFALayer() for _ in layers[:-1]]
    stages = [stage for layer, point in zip(layers, points, strict=False) for stage in (layer, nn.Tanh(), point)]
    dfa = tinydfa.DFA(points)
    model = nn.Sequential(*stages, layers[-1], dfa).to(device)
    with torch.no_grad():
        model(torch.zeros(1, sizes[0], device=device))
    criterion = nn.CrossEntropyLoss()
    measuring = alignment.AlignmentMeasurement(model, device)  # copies the model, which only an untrained one allows

    def measure(x: Tensor, labels: Tensor) -> list[float]:
        with _quiet():
            _, alignments = measuring.measure_alignment(x, labels, criterion)
        return [alignments[layer][0] for layer in layers[:-1]]

    feedback = dfa.feedback_matrix / dfa.feedback_matrix.shape[1] ** 0.5
    return Trainee(
        step=_usual_step(model, criterion, torch.optim.SGD(model.parameters(), lr=lr)),
        measure=measure,
        layers=layers,
        feedback=[feedback[:, :width] for width in sizes[1:-1]],
        hidden_reduction="mean",
        output_reduction="mean",
    )


def _principled(*, sizes: Sequence[int], lr: float, device: torch.device, seed: int) -> Trainee:
    """The experiments of Launay, Poli and Krzakala (2019): a DFAClassifier of a layer description.

    All layers share one Gaussian B, sliced and normalised; the hidden layers get the error summed over the
    batch. The step keeps the hooks that the code leaves on every module of a network that trains. Worked
    around: their driver runs on a GPU alone, so the classifier is built without it; the warning that
    newer torch gives about their hooks is silenced in every step; on a GPU, labels are handed to
    their one-hot function on the CPU, where older torch brought them itself.
    """
    models = importlib.import_module("dfatools.models")
    utilities: Any = importlib.import_module("mltools.utilities")
    depth = len(sizes) - 2
    if depth > 10:
        raise AlignkitError(
            f"sizes: expected at most 10 hidden layers, since principled-dfa-training tells feedback points apart "
            f"by one digit; got {depth}. Take fewer layers or another code"
        )
    if device.type != "cpu":
        one_hot = utilities.to_categorical
        utilities.to_categorical = lambda labels, classes: one_hot(labels.cpu(), classes)
    description: OrderedDict[str, nn.Module] = OrderedDict(flat=utilities.Flatten())
    for index, (i, o) in enumerate(pairwise(sizes), start=1):
        description[f"lin{index}"] = nn.Linear(i, o)
        if index <= depth:
            description[f"act{index}"] = nn.Tanh()
    sample = [(torch.zeros(1, sizes[0]), torch.zeros(1, dtype=torch.int64))]
    classifier = models.DFAClassifier(device, device, description, sample, sample).to(device)
    classifier.initialize()
    classifier.model.train()
    optimiser, _ = classifier._setup_optimization((torch.optim.SGD, {"lr": lr}), None)
    criterion = nn.CrossEntropyLoss()

    def step(x: Tensor, labels: Tensor) -> None:
        with _without_warnings():
            output = classifier.infer(x)
            classifier._train(x, labels, output)
            loss = classifier._evaluate_loss(x, output, labels, criterion)
            classifier._end_batch(loss, optimiser, x, output, labels)

    def measure(x: Tensor, labels: Tensor) -> list[float]:
        classifier.validation_loader = [(x, labels)]
        with _quiet():
            classifier._end_epoch(0, None, None, None, None, verbose=False, loss_criterion=criterion)
        alignments = classifier.alignments.pop()  # [name, [mean, standard deviation]] of every module, in order
        classifier.angles.pop()
        return [mean for name, (mean, _) in alignments if "Linear" in name][:-1]

    network = classifier.model
    widest = max(sizes[1:-1])
    return Trainee(
        step=step,
        measure=measure,
        layers=[module for module in network if isinstance(module, nn.Linear)],
        feedback=[network.random_matrix[:, :width] * (widest / width) ** 0.5 for width in sizes[1:-1]],
        hidden_reduction="sum",
        output_reduction="mean",
    )


def _biotorch(*, sizes: Sequence[int], lr: float, device: torch.device, seed: int) -> Trainee:
    """BioTorch (Sanfiz and Akrout 2021): an ordinary network that a BioModule converts to the mode `dfa`.

    Layer l+1 owns B_l and puts e B_l in the place of the gradient at its input; weights and feedback are
    drawn by Xavier's law. Worked around: the warning that newer torch gives about their hooks is silenced
    in every step.
    """
    biomodule = importlib.import_module("biotorch.module.biomodule")
    stages = [stage for i, o in pairwise(sizes) for stage in (nn.Linear(i, o), nn.Tanh())]
    model = biomodule.BioModule(nn.Sequential(*stages[:-1]), mode="dfa", copy_weights=False, output_dim=sizes[-1])
    model.to(device).train()
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    criterion = nn.CrossEntropyLoss()

    def step(x: Tensor, labels: Tensor) -> None:
        with _without_warnings():
            output = torch.squeeze(model(x, labels, criterion))
            loss = criterion(output, labels)
            model.zero_grad()
            loss.backward()
            optimiser.step()

    layers: list[Any] = [module for module in model.module if isinstance(module, nn.Linear)]
    return Trainee(
        step=step,
        measure=None,
        layers=layers,
        feedback=[layer.weight_backward for layer in layers[1:]],
        hidden_reduction="mean",
        output_reduction="mean",
    )


def _dfa_dynamics(*, sizes: Sequence[int], lr: float, device: torch.device, seed: int) -> Trainee:
    """The deep experiments of Refinetti, d'Ascoli, Ohana and Goldt (2021): their FullyConnected, without biases.

    A Gaussian B of each layer's own, divided by the root of the width and drawn from seed 0 whatever the
    network's; the loss is summed over the batch. Worked around: the network leaves its feedback on the
    CPU, so it is moved to the device; torchvision, which their module imports and does not use, need not
    be there.
    """
    hidden = set(sizes[1:-1])
    if len(hidden) > 1:
        raise AlignkitError(
            f"sizes: expected hidden layers of one width, since dfa-dynamics builds no others; got {tuple(sizes)}. "
            "Give all hidden layers the same width or take another code"
        )
    models = importlib.import_module("models")
    alignment = importlib.import_module("tinydfa.alignment")
    model = models.FullyConnected(
        input_size=sizes[0], output_size=sizes[-1], hidden_size=sizes[1], n_layers=len(sizes) - 1,
        training_method="DFA", activation="tanh", feedback_init="RANDOM", weight_init="UNIFORM", seed=seed,
    ).to(device)  # fmt: skip
    model.dfa.feedback_matrix = model.dfa.feedback_matrix.to(device)
    model.train()
    criterion = nn.CrossEntropyLoss(reduction="sum")
    measuring = alignment.AlignmentMeasurement(model, device)

    def measure(x: Tensor, labels: Tensor) -> list[float]:
        with _quiet():
            alignments, _ = measuring.measure_alignment(x, labels, criterion)
        return list(alignments["layers"])

    return Trainee(
        step=_usual_step(model, criterion, torch.optim.SGD(model.parameters(), lr=lr)),
        measure=measure if len(sizes) > 3 else None,
        layers=list(model.layers),
        feedback=list(model.dfa.feedback_matrix / sizes[1] ** 0.5),
        hidden_reduction="sum",
        output_reduction="sum",
    )


PUBLISHED: dict[str, Published] = {
    "tinydfa": Published(
        url="https://github.com/lightonai/dfa-scales-to-modern-deep-learning",
        commit="336a211",
        files=("TinyDFA/tinydfa/dfa.py", "TinyDFA/tinydfa/alignment.py"),
        root="TinyDFA",
        build=_tinydfa,
    ),
    "principled-dfa-training": Published(
        url="https://github.com/lightonai/principled-dfa-training",
        commit="5a38665",
        files=("dfatools/dfatorch.py", "dfatools/models.py", "mltools/models.py"),
        root=".",
        build=_principled,
    ),
    "biotorch": Published(
        url="https://github.com/jsalbert/biotorch",
        commit="74fad0d",
        files=("biotorch/module/biomodule.py", "biotorch/layers/dfa/linear.py"),
        root=".",
        build=_biotorch,
    ),
    "dfa-dynamics": Published(
        url="https://github.com/sdascoli/dfa-dynamics",
        commit="7a009ed",
        files=("deep/models.py", "deep/tinydfa/dfa.py", "deep/tinydfa/alignment.py"),
        root="deep",
        build=_dfa_dynamics,
        unused=("torchvision",),
    ),
}
"""The codes that can be compared with, by name."""


def _usual_step(model: nn.Module, criterion: nn.Module, optimiser: torch.optim.Optimizer) -> Step:
    def step(x: Tensor, labels: Tensor) -> None:
        optimiser.zero_grad()
        loss = criterion(model(x), labels)
        loss.backward()
        optimiser.step()

    return step


@contextmanager
def _importing_from(root: Path, *, unused: Sequence[str]) -> Iterator[None]:
    """Import from a folder first, with empty modules for the missing ones of `unused`; then undo all of it."""
    theirs = {entry.stem for entry in root.iterdir() if entry.is_dir() or entry.suffix == ".py"}
    # looked up before the folder is on the path
    absent = [name for name in unused if name not in sys.modules and find_spec(name) is None]
    theirs.update(absent)
    shadowed = _modules_of(theirs)
    path, dont_write_bytecode = list(sys.path), sys.dont_write_bytecode
    try:
        for name in shadowed:
            del sys.modules[name]
        sys.modules.update({name: ModuleType(name) for name in absent})
        sys.path.insert(0, str(root))
        sys.dont_write_bytecode = True
        importlib.invalidate_caches()
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, dont_write_bytecode
        for name in _modules_of(theirs):
            del sys.modules[name]
        sys.modules.update(shadowed)


def _modules_of(packages: set[str]) -> dict[str, ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in packages}


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what is printed and warned."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        stack.enter_context(_without_warnings())
        yield


@contextmanager
def _without_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
