"""The plain loops against alignkit's engine; published codes against the plain loop, where checkouts are at hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from engine import cohort_of, members_of
from torch import Tensor, nn

from alignkit.benchmark.plain import dfa_cnn_step, dfa_step, plain_cnn_step, plain_step
from alignkit.benchmark.published import PUBLISHED, Trainee, build, recognise
from alignkit.errors import AlignkitError
from alignkit.networks.network import Network
from alignkit.networks.parameters import per_member
from alignkit.networks.stages import training_mode
from alignkit.rules.dfa import DFA
from alignkit.training.optimisers import SGD

STEPS = 5
SIZES = (12, 9, 9, 9, 4)


def _batch(samples: int = 16, *, inputs: tuple[int, ...] = (12,), classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(samples, *inputs, generator=generator)
    return x, torch.randint(classes, (samples,), generator=generator)


def _engine_steps(network: Network, rule: DFA, x: Tensor, labels: Tensor, *, lr: float, steps: int) -> None:
    """The loop of `train_cohort`, on one batch [1, N, …]."""
    rate = per_member([lr / x.shape[1]], network.parameters.storage)
    optimiser = SGD(network.parameters, rates=(rate, rate), momentum=0.0)
    gradients = network.parameters.like()
    for step in range(1, steps + 1):
        network.write_gradients(network.forward(x, labels, training_mode(step)), rule, gradients)
        optimiser.step(gradients)


def _layers_of(network: Network, name: str) -> list[Tensor]:
    return [network.parameters.views[layer, name][0] for layer in range(1, len(network.layers) + 1)]


def test_the_plain_step_is_the_engine_with_one_member():
    members = members_of(1, dtype="float64", network={"widths": (9, 7, 8), "activation": "tanh"})
    network, x, labels = cohort_of(members, shape=(12,), samples=16)
    rule = DFA(network, members)
    weights, biases = ([view.clone() for view in _layers_of(network, name)] for name in ("weight", "bias"))
    before = weights[0].clone()
    feedback = [matrix[0] for matrix in rule.matrices]
    for _ in range(STEPS):
        dfa_step(x[0], labels[0], weights=weights, biases=biases, feedback=feedback, lr=0.5)
    _engine_steps(network, rule, x, labels, lr=0.5, steps=STEPS)
    assert not torch.allclose(weights[0], before, atol=1e-3)
    torch.testing.assert_close(weights, _layers_of(network, "weight"), rtol=0, atol=1e-12)
    torch.testing.assert_close(biases, _layers_of(network, "bias"), rtol=0, atol=1e-12)


def test_the_plain_cnn_step_is_the_engine_with_one_member():
    settings = {
        "kind": "cnn", "channels": [32, 64, 64], "kernel": 5, "padding": 2, "pool": 3, "pool_stride": 2, "hidden": [128],
    }  # fmt: skip
    members = members_of(1, dtype="float64", network={**settings, "activation": "tanh"})
    network, x, labels = cohort_of(members, shape=(3, 32, 32), outputs=10, samples=4)
    rule = DFA(network, members)
    step = plain_cnn_step(lr=0.5, device="cpu")
    blocks, output = step.keywords["blocks"].double(), step.keywords["output"].double()
    ops = [module for module in (*blocks.modules(), output) if isinstance(module, nn.Conv2d | nn.Linear)]
    for op, weight, bias in zip(ops, _layers_of(network, "weight"), _layers_of(network, "bias"), strict=True):
        op.load_state_dict({"weight": weight, "bias": bias})
    feedback = [matrix[0] for matrix in rule.matrices]
    assert [b.shape for b in step.keywords["feedback"]] == [b.shape for b in feedback]
    for _ in range(2):
        dfa_cnn_step(x[0], labels[0], blocks=blocks, output=output, feedback=feedback, lr=0.5)
    _engine_steps(network, rule, x, labels, lr=0.5, steps=2)
    for op, weight, bias in zip(ops, _layers_of(network, "weight"), _layers_of(network, "bias"), strict=True):
        torch.testing.assert_close(op.weight.detach(), weight, rtol=0, atol=1e-12)
        torch.testing.assert_close(op.bias.detach(), bias, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("of_seed", "inputs"),
    [
        (lambda seed: plain_step(sizes=SIZES, lr=0.5, device="cpu", seed=seed), (12,)),
        (lambda seed: plain_cnn_step(lr=0.5, device="cpu", seed=seed), (3, 32, 32)),
    ],
)
def test_plain_steps_depend_on_their_seed_alone(of_seed, inputs):
    state = torch.get_rng_state()
    steps = [of_seed(seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    feedback = [step.keywords["feedback"] for step in steps]
    assert torch.equal(feedback[0][0], feedback[1][0])
    assert not torch.equal(feedback[0][0], feedback[2][0])
    steps[0](*_batch(4, inputs=inputs))


@pytest.mark.parametrize("sizes", [(4, 3), (4, 0, 3), ()])
def test_sizes_without_a_hidden_layer_are_refused(sizes):
    with pytest.raises(AlignkitError, match=r"sizes: expected .* got .*Give at least three"):
        plain_step(sizes=sizes, lr=0.1, device="cpu")


def _write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text))
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_checkout_is_recognised_by_its_files(tmp_path, name):
    _write(tmp_path, dict.fromkeys(PUBLISHED[name].files, ""))
    assert recognise(tmp_path) == name


def test_anything_else_is_refused(tmp_path):
    file = _write(tmp_path, {"README.md": ""}) / "README.md"
    wrong = {tmp_path: "another directory", file: "a file", tmp_path / "none": "nothing there"}
    for path, got in wrong.items():
        with pytest.raises(AlignkitError, match=f"expected a checkout of one of tinydfa .* got {got}. Clone one of"):
            recognise(path)


FAKE_DYNAMICS = {
    "deep/utils.py": "raise RuntimeError('not needed')",
    "deep/mappings.py": "SCALE = 1.0",
    "deep/tinydfa/__init__.py": "from .dfa import Feedback",
    "deep/tinydfa/dfa.py": """
        import torch

        class Feedback(torch.nn.Module):
            def __init__(self, matrix):
                super().__init__()
                self.feedback_matrix = matrix
        """,
    "deep/tinydfa/alignment.py": """
        class AlignmentMeasurement:
            def __init__(self, model, device):
                pass

            def measure_alignment(self, x, labels, criterion):
                print("measuring")
                return {"layers": [0.5, 0.25], "total": 0.3}, None
        """,
    "deep/models.py": """
        import torch
        import torchvision
        from mappings import SCALE
        from tinydfa import Feedback

        class FullyConnected(torch.nn.Module):
            def __init__(self, input_size, output_size, hidden_size, n_layers, seed, **options):
                super().__init__()
                print(options)
                torch.manual_seed(0)
                sizes = [input_size] + [hidden_size] * (n_layers - 1) + [output_size]
                self.layers = torch.nn.ModuleList(torch.nn.Linear(i, o) for i, o in zip(sizes, sizes[1:]))
                self.dfa = Feedback(SCALE * torch.randn(n_layers - 1, output_size, hidden_size))

            def forward(self, x):
                for layer in self.layers:
                    x = layer(x)
                return x
        """,
}


@pytest.fixture
def fake_dynamics(tmp_path: Path) -> Path:
    return _write(tmp_path, FAKE_DYNAMICS)


def test_a_checkout_is_imported_without_a_trace(fake_dynamics, monkeypatch, capfd):
    ours = {name: ModuleType(name) for name in ("models", "utils", "tinydfa", "tinydfa.dfa")}
    for name, module in ours.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "mappings", raising=False)
    vision = sys.modules.get("torchvision")
    path, state = list(sys.path), torch.get_rng_state()
    files = sorted(fake_dynamics.rglob("*"))
    trainee = build(fake_dynamics, sizes=(12, 9, 9, 4), lr=0.1, device="cpu")
    trainee.step(*_batch())
    assert trainee.measure(*_batch()) == [0.5, 0.25]
    assert sys.path == path
    assert all(sys.modules[name] is module for name, module in ours.items())
    assert "mappings" not in sys.modules and "tinydfa.alignment" not in sys.modules
    assert sys.modules.get("torchvision") is vision
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(fake_dynamics.rglob("*")) == files
    assert capfd.readouterr() == ("", "")


def test_two_checkouts_do_not_meet(fake_dynamics, tmp_path_factory):
    other = _write(tmp_path_factory.mktemp("other"), {**FAKE_DYNAMICS, "deep/mappings.py": "SCALE = 0.0"})
    found = [build(path, sizes=(12, 9, 9, 4), lr=0.1, device="cpu").feedback for path in (fake_dynamics, other)]
    assert found[0][0].any() and not found[1][0].any()


def test_a_checkout_that_does_not_run_says_so_and_leaves_no_trace(fake_dynamics):
    (fake_dynamics / "deep" / "models.py").write_text("import mappings\nimport no_such_package_of_theirs")
    path = list(sys.path)
    with pytest.raises(
        AlignkitError, match=r"expected dfa-dynamics to build .* got ModuleNotFoundError.* Check out commit"
    ):
        build(fake_dynamics, sizes=(12, 9, 9, 4), lr=0.1, device="cpu")
    assert sys.path == path and "mappings" not in sys.modules and "models" not in sys.modules


def test_networks_that_a_code_cannot_build_or_measure_are_refused(fake_dynamics):
    with pytest.raises(AlignkitError, match="expected hidden layers of one width"):
        build(fake_dynamics, sizes=(12, 9, 8, 4), lr=0.1, device="cpu")
    assert build(fake_dynamics, sizes=(12, 9, 4), lr=0.1, device="cpu").measure is None


@pytest.fixture(params=PUBLISHED)
def checkout(request: pytest.FixtureRequest) -> Path:
    """A real checkout of each code, from the folders that ALIGNKIT_PUBLISHED lists like a PATH."""
    folders = [Path(folder) for folder in os.environ.get("ALIGNKIT_PUBLISHED", "").split(os.pathsep) if folder]
    for folder in folders:
        if recognise(folder) == request.param:
            return folder
    pytest.skip(f"no checkout of {request.param}; set ALIGNKIT_PUBLISHED to folders of published codes")


class Expected:
    """DFA by hand, in float64, from a trainee's weights and feedback."""

    def __init__(self, trainee: Trainee, x: Tensor, labels: Tensor) -> None:
        def double(tensor: Tensor) -> Tensor:
            return tensor.detach().double()

        self.weights = [double(layer.weight) for layer in trainee.layers]
        self.biases = [None if layer.bias is None else double(layer.bias) for layer in trainee.layers]
        self.hidden = [double(x)]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            self.hidden.append(torch.tanh(F.linear(self.hidden[-1], weight, bias)))
        output = F.linear(self.hidden[-1], self.weights[-1], self.biases[-1])
        self.loss = F.cross_entropy(output, labels).item()
        self.error = output.softmax(1) - F.one_hot(labels, output.shape[1])
        derivatives = [1 - h * h for h in self.hidden[1:]]
        self.deltas = [(self.error @ double(b)) * slope for b, slope in zip(trainee.feedback, derivatives, strict=True)]
        self.bp_deltas, above = [], self.error
        for weight, slope in zip(reversed(self.weights[1:]), reversed(derivatives), strict=True):
            above = (above @ weight) * slope
            self.bp_deltas.insert(0, above)

    def after(self, trainee: Trainee, lr: float) -> list[Tensor]:
        """All weights and biases after a step."""
        scale = {"mean": 1 / len(self.error), "sum": 1.0}
        rates = [lr * scale[trainee.hidden_reduction]] * len(self.deltas) + [lr * scale[trainee.output_reduction]]
        moved = []
        for weight, bias, h, delta, rate in zip(
            self.weights, self.biases, self.hidden, [*self.deltas, self.error], rates, strict=True
        ):
            moved.append(weight - rate * delta.T @ h)
            if bias is not None:
                moved.append(bias - rate * delta.sum(0))
        return moved


def _same_steps(trainee: Trainee, x: Tensor, labels: Tensor, *, lr: float) -> list[float]:
    losses = []
    for _ in range(STEPS):
        expected = Expected(trainee, x, labels)
        trainee.step(x, labels)
        got = [p.detach() for layer in trainee.layers for p in (layer.weight, layer.bias) if p is not None]
        for ours, theirs in zip(expected.after(trainee, lr), got, strict=True):
            torch.testing.assert_close(theirs.double(), ours, rtol=1e-5, atol=1e-6)
        losses.append(expected.loss)
    return losses


def test_a_published_step_is_dfa(checkout, capfd):
    x, labels = _batch()
    trainee = build(checkout, sizes=SIZES, lr=0.02, device="cpu")
    first = trainee.layers[0].weight.detach().clone()
    loss = _same_steps(trainee, x, labels, lr=0.02)[0]
    assert (trainee.layers[0].weight - first).abs().max() > 1e-5
    for _ in range(300):
        trainee.step(x, labels)
    assert Expected(trainee, x, labels).loss < loss
    assert capfd.readouterr() == ("", "")


def test_a_published_step_is_dfa_with_layers_of_two_widths(checkout):
    sizes = (12, 7, 10, 4)
    if recognise(checkout) == "dfa-dynamics":
        with pytest.raises(AlignkitError, match="expected hidden layers of one width"):
            build(checkout, sizes=sizes, lr=0.02, device="cpu")
        return
    _same_steps(build(checkout, sizes=sizes, lr=0.02, device="cpu"), *_batch(), lr=0.02)


def test_a_published_measurement_is_the_cosine_at_z(checkout, capfd):
    x, labels = _batch()
    trainee = build(checkout, sizes=SIZES, lr=0.02, device="cpu")
    if trainee.measure is None:
        assert recognise(checkout) == "biotorch"
        return
    for _ in range(2):
        expected = Expected(trainee, x, labels)
        cosines = [
            F.cosine_similarity(ours, bp, dim=1).mean().item()
            for ours, bp in zip(expected.deltas, expected.bp_deltas, strict=True)
        ]
        assert trainee.measure(x, labels) == pytest.approx(cosines, abs=1e-4)
        _same_steps(trainee, x, labels, lr=0.02)  # a measurement leaves training as it was
    assert capfd.readouterr() == ("", "")


def test_a_published_network_depends_on_its_seed(checkout):
    state = torch.get_rng_state()
    trainees = [build(checkout, sizes=SIZES, lr=0.1, device="cpu", seed=seed) for seed in (0, 0, 1)]
    weights = [trainee.layers[0].weight for trainee in trainees]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), state)
