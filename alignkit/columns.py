"""The columns of the three tables of records: their order, their types and what they mean.

Besides these, `runs` has one column per factor of the study, between `held_out` and `train_accuracy`.
Losses are means per sample. Accuracies are fractions, NaN for regression. Whatever is undefined (a
diverged run, an absent split, a zero vector, a measure that was not asked for) is NaN.
"""

from __future__ import annotations

from alignkit.errors import require_text

FORMAT_VERSION = 1

RUNS = {
    "run_id": ("string", "hash of everything that determines the run, defaults left out"),
    "study": ("string", "name of the study"),
    "rule": ("string", "what teaches the hidden layers"),
    "cell": ("string", "the combination of factor levels, as text; a BP run leaves feedback factors out"),
    "designs": ("string", "names of the study's designs that hold the run, joined by +"),
    "bp_run_id": ("string", "the BP run of the same cell and seed (for a BP run, itself; empty where there is none)"),
    "seed": ("int64", "seed: the unit of replication"),
    "held_out": ("bool", "whether the study holds the seed out: such runs confirm, and take no part in verdicts"),
    "train_accuracy": ("float64", "accuracy on the training split at the end, in evaluation mode"),
    "validation_accuracy": ("float64", "accuracy on the validation split at the end"),
    "test_accuracy": ("float64", "accuracy on the test split at the end"),
    "train_loss": ("float64", "loss on the training split at the end"),
    "validation_loss": ("float64", "loss on the validation split at the end"),
    "test_loss": ("float64", "loss on the test split at the end"),
    "lr": ("float64", "learning rate of the hidden layers"),
    "output_lr": ("float64", "learning rate of the output layer"),
    "diverged": ("bool", "whether the loss or a parameter ever was non-finite"),
    "diverged_step": ("Int64", "the first such step; missing where there is none"),
    "steps": ("int64", "number of updates"),
    "parameters": ("int64", "number of trained parameters"),
}

FROM_PLAN = frozenset({"study", "rule", "cell", "designs", "bp_run_id", "seed", "held_out"})
"""Columns of `runs` that its files leave out: the plan knows them."""

CHECKPOINTS = {
    "run_id": ("string", "the run"),
    "step": ("int64", "updates made so far"),
    "epoch": ("float64", "step divided by the updates of an epoch"),
    "mode": ("string", "mode of the measured forward pass: batch, eval or train"),
    "output_cosine": (
        "float64",
        "self-test, always 1: the rule's output-weight gradient against autograd's (NaN where it is 0); less where "
        "probe.reference_mode takes the two from passes in different modes",
    ),
    "train_loss": ("float64", "loss on the training split (its first evaluation_samples)"),
    "validation_loss": ("float64", "loss on the validation split"),
    "test_loss": ("float64", "loss on the test split"),
    "train_accuracy": ("float64", "accuracy on the training split"),
    "validation_accuracy": ("float64", "accuracy on the validation split"),
    "test_accuracy": ("float64", "accuracy on the test split"),
}

LAYERS = {
    "run_id": ("string", "the run"),
    "step": ("int64", "updates made so far"),
    "epoch": ("float64", "step divided by the updates of an epoch"),
    "layer": ("int64", "1-based index of the hidden layer, from the input"),
    "layer_name": ("string", "linear1, conv1, …"),
    "width": ("int64", "size of the layer's output h_l"),
    "signal": ("string", "teaching: the signal that taught the run; bystander: one that did not (BP runs)"),
    "signal_cosine": ("float64", "mean over samples of cos(t_l, g_l)"),
    "signal_cosine_sd": ("float64", "its standard deviation over samples: a description, never an uncertainty"),
    "signal_angle_deg": ("float64", "mean over samples of the angle between t_l and g_l, in degrees"),
    "delta_cosine": ("float64", "mean over samples of the cosine at the weight op's output"),
    "gradient_cosine": ("float64", "Frobenius cosine of the batch weight gradients"),
    "step_cosine": (
        "float64",
        "Frobenius cosine of the last displacement of W_l and -BP gradient of its batch, over weights not frozen",
    ),
    "weight_cosine": (
        "float64",
        "Frobenius cosine of the feedback and the forward weights it stands for; like all that is about feedback, "
        "undefined at layers where none enters",
    ),
    "jacobian_cosine": (
        "float64",
        "Frobenius cosine of B_l and the probe batch's mean Jacobian dy/dh_l, batch statistics held constant",
    ),
    "ceiling_cosine": ("float64", "the best mean cosine that any use of the feedback could reach"),
    "chance_z": ("float64", "signal_cosine in standard deviations of feedback redrawn from its own law"),
    "chance_p": ("float64", "two-sided p of the same"),
    "signal_gain": ("float64", "median over samples of |t_l| / |g_l|"),
    "projection": ("float64", "mean over samples of <t_l, g_l> / |g_l|^2"),
    "gate": ("float64", "median over samples of |delta of the rule| / |t_l|: what the stages let through"),
    "common_mode": ("float64", "share of the teaching signal that is the same for every sample"),
    "update_ratio": ("float64", "|dW_l| / |W_l| of the last step"),
    "effective_rank": ("float64", "(tr G)^2 / tr G^2 of the centred Gram matrix of h_l"),
    "undefined": ("int64", "samples with a zero vector in either place; excluded, never scored"),
}

MEASURE_COLUMNS = tuple(name for name in LAYERS if name not in tuple(LAYERS)[:7])


MEASURES = {
    "signal": ("signal_cosine", "signal_cosine_sd", "signal_angle_deg", "undefined"),
    "delta": ("delta_cosine",),
    "gradient": ("gradient_cosine",),
    "step": ("step_cosine", "update_ratio"),
    "weight": ("weight_cosine",),
    "jacobian": ("jacobian_cosine",),
    "ceiling": ("ceiling_cosine",),
    "chance": ("chance_z", "chance_p"),
    "size": ("signal_gain", "projection", "gate"),
    "common_mode": ("common_mode",),
    "rank": ("effective_rank",),
}
"""Groups of columns of `layers` that `probe.measures` chooses from; a group is computed together."""
ANGLES = ("signal", "delta", "gradient")
GAP = "accuracy_gap"
EXCESS = "_excess"
_ACCURACIES = frozenset({"train_accuracy", "validation_accuracy", "test_accuracy"})


def unit_of(response: str) -> str:
    """The unit of a response's summaries: "°", "points" (accuracy, of 100), or "" for a pure number.

    >>> unit_of("signal_angle_deg"), unit_of("test_accuracy"), unit_of("signal_cosine_excess")
    ('°', 'points', '')
    """
    require_text("response", response)
    name = response.removesuffix(EXCESS)
    if name.endswith("_deg"):
        return "°"
    return "points" if name == GAP or name in _ACCURACIES else ""


def digits_of(response: str) -> int:
    """Decimals that a response is printed with: degrees 1, points 2, pure numbers 3."""
    return {"°": 1, "points": 2}.get(unit_of(response), 3)


_LABELS = {
    "signal_angle_deg": "angle to the BP signal",
    "signal_cosine": "cosine with the BP signal",
    "delta_cosine": "cosine with the BP delta",
    "gradient_cosine": "cosine with the BP gradient",
    "step_cosine": "cosine of the step with the BP gradient",
    "weight_cosine": "cosine of feedback and weights",
    "jacobian_cosine": "cosine of feedback and Jacobian",
    "ceiling_cosine": "best cosine the feedback allows",
    GAP: "accuracy gap to BP",
}


def label_of(response: str) -> str:
    """A response in words, for axes and sentences.

    >>> label_of("signal_angle_deg"), label_of("effective_rank_excess")
    ('angle to the BP signal', 'effective rank, less that of untaught feedback')
    """
    require_text("response", response)
    if response.endswith(EXCESS):
        return f"{label_of(response.removesuffix(EXCESS))}, less that of untaught feedback"
    return _LABELS.get(response, response.replace("_", " "))
