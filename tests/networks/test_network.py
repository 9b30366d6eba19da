"""The engine against autograd: BP's own update is the gradient of the whole loss, layer by layer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from engine import Reference, cohort_of, members_of, reference_loss
from torch.utils._python_dispatch import TorchDispatchMode

from alignkit.errors import StudyError
from alignkit.networks.initialisation import initial_values
from alignkit.networks.losses import is_right, sample_losses
from alignkit.networks.members import Member
from alignkit.networks.parameters import per_member
from alignkit.networks.shapes import layer_shapes
from alignkit.networks.stages import ACTIVATIONS, EVALUATION, Mode, training_mode
from alignkit.numerics import streams
from alignkit.rules.bp import BP
from alignkit.rules.dfa import DFA
from alignkit.rules.shallow import Shallow
from alignkit.study.study import Study
from alignkit.training.optimisers import SGD, Adam, match_norms
from alignkit.training.update import Update

TRAINING = training_mode(3)
PROBING = Mode(batch_statistics=True)
CNN = {"kind": "cnn", "channels": [4, 3], "kernel": 3, "padding": 1, "pool": 3, "pool_stride": 2, "hidden": [6]}
NETWORKS = {
    **{f"mlp-{activation}": {"width": 7, "depth": 2, "activation": activation} for activation in ACTIVATIONS},
    "leaky": {"width": 7, "activation": "leaky_relu", "slope": 0.3},
    "batch": {"width": 9, "norm": "batch", "dropout": 0.3},
    "layer": {"widths": [8, 5], "norm": "layer", "activation": "gelu", "input_dropout": 0.2},
    "published-order": {
        "width": 6, "norm": "batch", "dropout": 0.2, "order": ["dropout", "activation", "norm", "pool"],
    },
    "orthogonal": {"width": 6, "initialisation": "orthogonal", "activation": "relu"},
    "mixed-layers": {
        "widths": [6, 5, 4],
        "layers": [{"activation": "relu"}, {"norm": "batch", "dropout": 0.4}, {"norm": "layer", "activation": "erf"}],
    },
    "cnn": {**CNN},
    "cnn-batch": {**CNN, "norm": "batch", "activation": "sigmoid", "conv_dropout": 0.3, "dropout": 0.1},
    "cnn-layer": {**CNN, "norm": "layer", "activation": "relu", "input_dropout": 0.3},
    "cnn-published-order": {**CNN, "norm": "batch", "order": ["dropout", "activation", "norm", "pool"]},
    "cnn-all-convolution": {**CNN, "hidden": []},
    "local": {**CNN, "weight_sharing": False},
    "local-batch": {**CNN, "weight_sharing": False, "norm": "batch", "conv_dropout": 0.3},
}  # fmt: skip
SHAPE = (2, 9, 9)


ROUNDINGS = 32
"""Units of rounding that a pass there and back may lose, in sums of its terms' own sizes. Of 25 seeds of each network,
half lose about two at most, whatever their norms magnify, and the worst 15."""


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", [TRAINING, PROBING, EVALUATION], ids=["train", "batch", "eval"])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_bp_is_the_gradient_of_the_loss(network, mode, dtype):
    """The truth is autograd's gradient in float64. What rounding may add to a sum grows with the sizes of its terms, not
    with the sum: the gradient of a bias that a batch norm follows is 0. And it grows with what norms magnify: they take
    means away that are up to 66 times as large as the spread, and rounded. torch's own norms lose as much. A mean of
    twice the digits would lose a tenth of it, and take 2 to 5% of a step: one more pass over the activations."""
    members = members_of(2, dtype=dtype, network=network)
    net, x, targets = cohort_of(members, shape=SHAPE)
    net.forward(x, targets, TRAINING)  # running statistics that differ from their start
    forward_pass = net.forward(x, targets, mode)
    gradients = net.parameters.like()
    signals, _ = net.backward(forward_pass, BP(net, members))
    net.write_gradients(forward_pass, BP(net, members), gradients)
    for member in range(2):
        inputs = forward_pass.inputs[0][member]
        inputs = inputs.unflatten(-1, SHAPE) if forward_pass.inputs[0].dim() == 3 else inputs
        truth = Reference(net, member, forward_pass, train=mode.batch_statistics).double()
        loss = reference_loss(net, truth(inputs.double()), targets[member])
        loss.backward()
        rounding = ROUNDINGS * torch.finfo(x.dtype).eps * truth.magnified

        def close(ours, exact, scale, rounding=rounding):
            assert (ours - exact).abs().max().item() <= rounding * scale, (ours, exact)

        size_of_loss = loss.item() + truth.sums[-1][1].abs().sum().item()
        close(sample_losses(net.loss, forward_pass.output, targets)[member].sum(), loss, size_of_loss)
        for own, hidden in zip(signals, truth.hidden, strict=True):
            close(own[member], hidden.grad.flatten(1), hidden.grad.abs().max().item())
        for layer, (given, z) in enumerate(truth.sums, start=1):
            of_layer, op = gradients.of_layer(layer), truth.layers[layer - 1]
            scale = _largest_sum(z.grad, over_positions=not net.layers[layer - 1].local)
            close(of_layer["weight"][member], op.weight.grad, scale * given.abs().max().item())
            close(of_layer["bias"][member], op.bias.grad, scale)
        for layer, y in truth.normalised.items():
            of_layer, norm = gradients.of_layer(layer), truth.norms[layer]
            close(of_layer["gain"][member], norm.weight.grad, _largest_sum(y.grad) * y.abs().max().item())
            close(of_layer["shift"][member], norm.bias.grad, _largest_sum(y.grad))


def _largest_sum(delta, *, over_positions=True):
    """The largest sum of absolute values over the samples, and positions, of a unit or channel."""
    return delta.abs().sum((0, *range(2, delta.dim())) if over_positions else 0).max().item()


@pytest.mark.parametrize("equal", [False, True], ids=["all differ", "some are equal"])
def test_an_answer_is_right_where_the_first_of_the_largest_outputs_is_the_target_s(equal):
    generator = torch.Generator().manual_seed(7)
    output = torch.randn(2, 3, 60, generator=generator).mT  # samples last in memory, as a network leaves them
    if equal:
        output[0, :20] = 0.0
        output[1, :5] = torch.nan
    targets = torch.randint(3, (60,), generator=generator).expand(2, 60)
    wanted = output.contiguous().numpy().argmax(-1) == targets.numpy()
    assert np.array_equal(is_right(output, targets), wanted)


def test_an_answer_among_equal_outputs_is_not_right_by_another_network_s_nans():
    output = torch.tensor([[[torch.nan] * 2] * 4, [[0.0, 0.0]] * 4])  # as many none as twos
    assert not is_right(output, torch.ones(2, 4, dtype=torch.int64))[1].any()


@pytest.mark.parametrize("rule", [BP, DFA, Shallow])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_to_descend_in_place_is_to_subtract_the_gradient(network, rule):
    members = members_of(2, network=network)
    (net, x, targets), (other, _, _) = (cohort_of(members, shape=SHAPE) for _ in range(2))
    rates = per_member([0.1, 0.2], x), per_member([0.3, 0.05], x)
    for step in range(1, 4):
        net.descend(net.forward(x, targets, training_mode(step)), rule(net, members), rates)
        gradients = other.parameters.like()
        other.write_gradients(other.forward(x, targets, training_mode(step)), rule(other, members), gradients)
        SGD(other.parameters, rates=rates, momentum=0.0).step(gradients)
    _close(net.parameters.storage, other.parameters.storage, 1e-12)


class _NoWaiting(TorchDispatchMode):
    """Fails where the host would wait for a device: it asks for a value, for a size that depends on one, or moves."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "bincount")

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in self.WAITING and not (name == "_to_copy" and "device" in (kwargs or {})), name
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_step_never_makes_the_host_wait(network):
    members = members_of(2, dtype="float32", network=network)
    net, x, targets = cohort_of(members, shape=SHAPE)
    rule, counter = DFA(net, members), torch.ones(1, dtype=torch.int64)
    rates = per_member([0.1, 0.2], x), per_member([0.3, 0.05], x)
    with _NoWaiting():
        net.descend(net.forward(x, targets, training_mode(counter), watch=True), rule, rates)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), _NoWaiting():
        bool(counter > 0)


def test_a_counter_on_the_device_draws_the_masks_of_its_number():
    members = members_of(2, network={"width": 9, "dropout": 0.3, "input_dropout": 0.2})
    net, x, targets = cohort_of(members, shape=SHAPE)
    by_number = net.forward(x, targets, training_mode(12))
    by_tensor = net.forward(x, targets, training_mode(torch.tensor([12])))
    assert torch.equal(by_number.output, by_tensor.output)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_parameter_that_is_not_finite_shows_in_the_next_pass(network):
    net, x, targets = cohort_of(members_of(2, network=network), shape=SHAPE)
    x[:, 0] = 0.0  # a blank image
    assert torch.isfinite(net.forward(x, targets, PROBING, watch=True).total).all() and net.parameters.finite.all()
    for key, block in net.parameters.blocks.items():
        for value in (math.inf, math.nan):
            kept = block[1, 0].item()
            block[1, 0] = value
            total = net.forward(x, targets, PROBING, watch=True).total
            assert torch.isfinite(total).tolist() == [True, False], (key, value)
            assert net.parameters.finite.tolist() == [True, False]
            block[1, 0] = kept


@pytest.mark.parametrize(
    "loss,task",
    [("cross_entropy", "classification"), ("squared_error", "classification"), ("squared_error", "regression")],
)
def test_losses_and_their_errors(loss, task):
    members = members_of(2, network={"width": 5}, training={"loss": loss})
    net, x, targets = cohort_of(members, shape=(3,), task=task)
    forward_pass = net.forward(x, targets, PROBING)
    for member in range(2):
        output = forward_pass.output[member].clone().requires_grad_()
        total = reference_loss(net, output, targets[member])
        total.backward()
        assert sample_losses(net.loss, forward_pass.output, targets)[member].sum().item() == pytest.approx(
            total.item(), rel=1e-12
        )
        _close(forward_pass.error[member], output.grad, 1e-12)


def test_running_statistics_are_those_of_torch():
    members = members_of(2, network={"width": 6, "norm": "batch"})
    net, x, targets = cohort_of(members, shape=(5,))
    references = [Reference(net, member) for member in range(2)]
    for step in range(4):
        net.forward(x + step, targets, training_mode(step))
        for member, reference in enumerate(references):
            reference(x[member] + step)
    predicted = net.predict(x)
    for member, reference in enumerate(references):
        _close(predicted[member], reference.eval()(x[member]), 1e-12)


def test_predict_is_the_forward_pass_in_evaluation_mode():
    members = members_of(2, network={**CNN, "norm": "batch", "dropout": 0.2})
    net, x, targets = cohort_of(members, shape=SHAPE)
    assert torch.equal(net.predict(x), net.forward(x, targets, EVALUATION).output)


def test_measuring_passes_leave_running_statistics_alone():
    members = members_of(1, network={"width": 6, "norm": "batch"})
    net, x, targets = cohort_of(members, shape=(5,))
    before = net.predict(x)
    net.forward(x, targets, PROBING)
    assert torch.equal(before, net.predict(x))


def test_dropout_compares_the_same_uniforms_with_every_rate():
    def kept(rate):
        members = members_of(1, network={"width": 400, "depth": 1, "dropout": rate})
        net, x, targets = cohort_of(members, shape=(3,), samples=50)
        return net.forward(x, targets, TRAINING).caches[0][-1][0]

    low, high = kept(0.2), kept(0.5)
    assert ((low > 0) | (high == 0)).all()  # what survives the higher rate survives the lower
    for rate, mask in ((0.2, low), (0.5, high)):
        assert (mask > 0).double().mean().item() == pytest.approx(
            1 - rate, abs=4 * math.sqrt(rate * (1 - rate) / mask.numel())
        )
        assert mask.max().item() == pytest.approx(1 / (1 - rate), rel=1e-4)


def test_convolutional_dropout_drops_whole_channels():
    members = members_of(1, network={**CNN, "conv_dropout": 0.5, "input_dropout": 0.5})
    net, x, targets = cohort_of(members, shape=SHAPE)
    forward_pass = net.forward(x, targets, TRAINING)
    dropped = (forward_pass.inputs[0] == 0).flatten(3)
    assert (dropped.all(-1) == dropped.any(-1)).all() and dropped.any() and not dropped.all()


def test_networks_of_different_depth_share_first_and_output_layers():
    shallow, deep = (cohort_of(members_of(1, network={"width": 6, "depth": depth}), shape=(6,))[0] for depth in (2, 4))
    assert torch.equal(shallow.weight(1), deep.weight(1))
    assert torch.equal(shallow.weight(3), deep.weight(5))
    assert not torch.equal(deep.weight(2), deep.weight(3))


def test_a_stream_with_a_seed_of_its_own_varies_alone():
    def networks(streams):
        settings = members_of(1, network={"width": 6}, streams=streams)[0].settings
        return [cohort_of([Member(settings, seed)], shape=(6,))[0].parameters.storage for seed in (0, 1)]

    assert torch.equal(*networks({"initialisation": 5}))
    assert not torch.equal(*networks({"feedback": 5}))


@pytest.mark.parametrize("law", ["pytorch", "xavier", "kaiming", "orthogonal", "zero"])
@pytest.mark.parametrize("shape", [(300, 200), (40, 30, 5, 5)])
def test_initialisations_have_the_moments_of_torch(law, shape):
    weight, bias = initial_values(law, shape, seed=1, layer=2)
    layer = torch.nn.Linear(shape[1], shape[0]) if len(shape) == 2 else torch.nn.Conv2d(shape[1], shape[0], shape[2])
    wanted = {
        "pytorch": layer.reset_parameters,
        "xavier": lambda: torch.nn.init.xavier_uniform_(layer.weight),
        "kaiming": lambda: torch.nn.init.kaiming_normal_(layer.weight),
        "orthogonal": lambda: torch.nn.init.orthogonal_(layer.weight),
        "zero": lambda: torch.nn.init.zeros_(layer.weight),
    }[law]
    wanted()
    expected = layer.weight.detach()
    assert weight.shape == shape and bias.shape == shape[:1]
    assert weight.std() == pytest.approx(expected.std().item(), rel=0.03, abs=1e-12)
    if law in ("pytorch", "xavier"):
        assert np.abs(weight).max() == pytest.approx(expected.abs().max().item(), rel=0.01)
    if law == "orthogonal":
        flat = weight.reshape(shape[0], -1)
        gram = flat @ flat.T if flat.shape[0] < flat.shape[1] else flat.T @ flat
        assert np.allclose(gram, np.eye(len(gram)), atol=1e-12)
    assert (np.abs(bias).max() > 0) == (law == "pytorch")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_that_of_torch(momentum):
    _same_path(
        lambda p: SGD(p, rates=_rates(p), momentum=momentum),
        lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=momentum),
    )


def test_adam_is_that_of_torch():
    _same_path(lambda p: Adam(p, rates=_rates(p)), lambda groups: torch.optim.Adam(groups))


def _rates(parameters):
    return per_member([0.1, 0.2], parameters.storage), per_member([0.3, 0.05], parameters.storage)


def _same_path(ours, theirs):
    net, _, _ = cohort_of(members_of(2, network={"width": 5, "depth": 1}), shape=(3,))
    parameters = net.parameters
    copies = [{key: torch.nn.Parameter(view[m].clone()) for key, view in parameters.views.items()} for m in range(2)]
    rates = [(0.1, 0.3), (0.2, 0.05)]
    reference = theirs(
        [{"params": [value], "lr": rates[m][key[0] == 2]} for m in range(2) for key, value in copies[m].items()]
    )
    optimiser = ours(parameters)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        gradients = parameters.like()
        for key, view in gradients.views.items():
            view.copy_(torch.randn(view.shape, generator=generator, dtype=view.dtype))
            for member in range(2):
                copies[member][key].grad = view[member].clone()
        optimiser.step(gradients)
        reference.step()
    for key, view in parameters.views.items():
        for member in range(2):
            _close(view[member], copies[member][key].detach(), 1e-12)


def test_norm_matching_keeps_directions_and_takes_lengths():
    net, x, targets = cohort_of(members_of(2, network={"width": 5}), shape=(3,))
    own, reference = net.parameters.like(), net.parameters.like()
    for view in (*own.views.values(), *reference.views.values()):
        view.normal_()
    own.views[1, "bias"].zero_()
    before = own.copy()
    match_norms(own, reference)
    for key, view in own.views.items():
        lengths = view.flatten(1).norm(dim=1)
        if key == (1, "bias"):
            assert (lengths == 0).all()
        else:
            _close(lengths, reference.views[key].flatten(1).norm(dim=1), 1e-12)
            _close(
                torch.nn.functional.cosine_similarity(view.flatten(1), before.views[key].flatten(1)),
                torch.ones(2).double(),
                1e-12,
            )


def test_layers_that_cannot_be_stacked_are_refused():
    settings = members_of(1, network={**CNN, "channels": [4, 4, 4]})[0].settings
    with pytest.raises(StudyError, match=r"convolution 3 gets images of 1x1, too small"):
        layer_shapes(settings, SHAPE, 4)
    with pytest.raises(StudyError, match=r'"cnn" needs images .* \[64\].*kind = "mlp"'):
        layer_shapes(settings, (64,), 4)


def test_the_network_of_the_protocol_has_its_feedback_sizes():
    settings = members_of(1, network={"kind": "cnn"})[0].settings
    layers = layer_shapes(settings, (3, 32, 32), 10)
    assert [layer.size for layer in layers] == [7200, 3136, 576, 128, 10]


def test_global_generators_are_never_touched():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    members = members_of(2, network={"width": 5, "dropout": 0.5, "initialisation": "orthogonal"})
    net, x, targets = cohort_of(members, shape=(3,))
    net.forward(x, targets, TRAINING)
    streams.permutation(0, "order", count=10)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()


def _close(ours, theirs, tolerance):
    scale = theirs.abs().max().clamp_min(1e-3).item()
    assert (ours - theirs).abs().max().item() <= tolerance * max(scale, 1.0), (ours, theirs)


@pytest.mark.parametrize("dtype,units", [(torch.float32, 2), (torch.float64, 2)])
def test_tanh_is_tanh_to_the_last_digits(dtype, units):
    z = torch.cat([torch.linspace(-30, 30, 20_001, dtype=torch.float64), 10.0 ** torch.linspace(-30, 2, 999).double()])
    z = torch.cat([z, -z]).to(dtype)
    found, wanted = ACTIVATIONS["tanh"].value(z.clone(), None), torch.tanh(z.double())
    assert ((found.double() - wanted).abs() <= units * torch.finfo(dtype).eps * wanted.abs()).all()
    ends = torch.tensor([math.inf, -math.inf, 500.0, -500.0, math.nan], dtype=dtype)
    assert ACTIVATIONS["tanh"].value(ends.clone(), None)[:4].tolist() == [1.0, -1.0, 1.0, -1.0]
    assert ACTIVATIONS["tanh"].value(ends.clone(), None)[4].isnan()
    for start in range(40):  # an element's bits do not depend on its place
        for count in (1, 3, 17, 64, 1001):
            part = z[start : start + count].clone()
            assert torch.equal(ACTIVATIONS["tanh"].value(part, None), found[start : start + count])


def test_the_last_layers_learn_at_the_output_layer_s_rate():
    training = {"dtype": "float64", "batch_size": 6, "lr": 0.2, "output_lr": 0.01, "output_layers": 2}
    training |= {"reduction": "sum", "output_reduction": "mean"}
    moved = {}
    for optimiser in ({}, {"momentum": 0.5}):  # the path without stored gradients, and the one with them
        members = members_of(2, network={"width": 5, "norm": "layer"}, training={**training, **optimiser})
        net, x, targets = cohort_of(members, shape=(3,))
        before, gradients = net.parameters.copy(), net.parameters.like()
        rule = DFA(net, members)
        forward_pass = net.forward(x, targets, training_mode(1))
        net.write_gradients(forward_pass, rule, gradients)
        Update(net, rule, BP(net, members), members).step(forward_pass)
        for (layer, name), view in net.parameters.views.items():
            rate = 0.2 if layer <= 2 else 0.01 / 6
            expected = before.views[layer, name] - rate * gradients.views[layer, name]
            assert torch.allclose(view, expected, rtol=0, atol=1e-14), (layer, name)
            moved[layer] = (view - before.views[layer, name]).abs().max().item()
    assert all(moved.values())


@pytest.mark.parametrize(
    "sections,message",
    [
        ({"training": {"output_layers": 5}}, "output_layers: expected at most 4"),
        ({"feedback": {"points": [4]}}, "feedback.points: expected different hidden layers of 1 to 3"),
        ({"feedback": {"points": [1, 1]}}, "feedback.points: expected different"),
        ({"feedback": {"points": []}}, "one or more; got"),
    ],
)
def test_layers_that_an_option_names_must_be_there(sections, message):
    with pytest.raises(StudyError, match=message):
        Study.parse({"name": "x", **sections})


def test_feedback_s_rank_is_at_most_the_number_of_outputs():
    settings = Study.parse({"name": "x", "feedback": {"rank": 5}}).settings
    with pytest.raises(StudyError, match="at most the number of outputs, 4; got 5"):
        layer_shapes(settings, (3,), 4)


@pytest.mark.parametrize("law", ["pytorch", "xavier", "kaiming", "orthogonal"])
def test_a_position_s_own_kernel_is_drawn_as_a_shared_one(law):
    shared, _ = initial_values(law, (32, 8, 5, 5), seed=0, layer=1)
    local, _ = initial_values(law, (32 * 9, 8, 5, 5), seed=0, layer=1, positions=9)
    assert local.std() == pytest.approx(shared.std(), rel=0.05)
    if law == "orthogonal":
        for position in range(9):
            kernel = local.reshape(32, 9, -1)[:, position]
            assert np.allclose(kernel @ kernel.T, np.eye(32), atol=1e-10)
