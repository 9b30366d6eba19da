"""What the paper says: its figures, where they are known, and its practices and hypotheses."""

from __future__ import annotations

from dataclasses import dataclass

STUDIES = (
    "as_published_bottleneck", "as_published_fc", "as_published_cnn", "defects", "corrected_bottleneck",
    "corrected_fc", "corrected_cnn", "convolutions",
)  # fmt: skip
"""The shipped studies of the paper, launay2019/<name>."""


@dataclass(frozen=True)
class Bottleneck:
    """A row of the bottleneck experiment: accuracies in %, and the signal's cosine at each hidden layer."""

    size: int
    initialisation: str
    train: float
    test: float
    cosines: tuple[float, float, float]


BOTTLENECK = (
    Bottleneck(1, "pytorch", 41.2, 40.5, (0.000, 0.069, 0.466)),
    Bottleneck(28, "pytorch", 46.8, 44.6, (0.033, 0.541, 0.463)),
    Bottleneck(191, "pytorch", 67.7, 47.6, (0.226, 0.826, 0.584)),
    Bottleneck(800, "pytorch", 99.5, 47.1, (0.969, 0.892, 0.677)),
    Bottleneck(800, "pre_aligned", 99.4, 46.5, (0.976, 0.961, 0.965)),
)
"""Of seed 0, 50 epochs on CIFAR-10, on the first 128 test images."""


@dataclass(frozen=True)
class Hypothesis:
    """A practice or hypothesis of the paper.

    published : the study that measures as the paper does, a factor and its two levels there, from and to; the paper
        expects the cosine to rise. None where the paper has no such experiment.
    corrected : the study and the name of its claim.
    part_of : the hypothesis of which this is one of several parts, where it is one.
    """

    title: str
    published: tuple[str, str, tuple[str, str]] | None
    corrected: tuple[str, str]
    rises: bool = True
    part_of: str = ""

    @property
    def whole(self) -> str:
        """The hypothesis in full."""
        return f"{self.part_of}: {self.title}" if self.part_of else self.title


_BOTTLENECK = "A bottleneck prevents alignment"
_CONVOLUTIONS = "Convolution blocks fail for want of freedom"

HYPOTHESES = (
    Hypothesis(
        "Normalise the feedback (fully connected)",
        ("as_published_fc", "feedback_normalised", ("false", "true")),
        ("corrected_fc", "normalised-feedback"),
    ),
    Hypothesis(
        "Normalise the feedback (convolutional)",
        ("as_published_cnn", "feedback_normalised", ("false", "true")),
        ("corrected_cnn", "normalised-feedback"),
    ),
    Hypothesis(
        "Use batch norm (fully connected)",
        ("as_published_fc", "norm", ("none", "batch")),
        ("corrected_fc", "batch-norm"),
    ),
    Hypothesis(
        "Use batch norm (convolutional)",
        ("as_published_cnn", "norm", ("none", "batch")),
        ("corrected_cnn", "batch-norm"),
    ),
    Hypothesis("tanh over ReLU", ("as_published_fc", "unit", ("relu", "tanh")), ("corrected_fc", "tanh")),
    Hypothesis(
        "Leaky ReLU: slope .5 over .01",
        ("as_published_fc", "unit", ("leaky_01", "leaky_50")),
        ("corrected_fc", "large-slope"),
    ),
    Hypothesis(
        "Low dropout over high (fully connected)",
        ("as_published_fc", "dropout_rates", ("high", "low")),
        ("corrected_fc", "low-dropout"),
    ),
    Hypothesis(
        "Low dropout over high (convolutional)",
        ("as_published_cnn", "dropout_rates", ("high", "low")),
        ("corrected_cnn", "low-dropout"),
    ),
    Hypothesis(
        "frozen weights",
        ("as_published_bottleneck", "bottleneck", ("800", "28")),
        ("corrected_bottleneck", "frozen"),
        rises=False,
        part_of=_BOTTLENECK,
    ),
    Hypothesis(
        "masked signals",
        ("as_published_bottleneck", "bottleneck", ("800", "28")),
        ("corrected_bottleneck", "masked"),
        rises=False,
        part_of=_BOTTLENECK,
    ),
    Hypothesis("feedback of low rank", None, ("corrected_bottleneck", "rank"), rises=False, part_of=_BOTTLENECK),
    Hypothesis(
        "a narrow layer: itself", None, ("corrected_bottleneck", "narrow-itself"), rises=False, part_of=_BOTTLENECK
    ),
    Hypothesis(
        "a narrow layer: the layer before",
        None,
        ("corrected_bottleneck", "narrow-before"),
        rises=False,
        part_of=_BOTTLENECK,
    ),
    Hypothesis(
        "a narrow layer: the layer after",
        None,
        ("corrected_bottleneck", "narrow-after"),
        rises=False,
        part_of=_BOTTLENECK,
    ),
    Hypothesis("block 1 aligns without weight sharing", None, ("convolutions", "no-sharing-1"), part_of=_CONVOLUTIONS),
    Hypothesis("block 2 aligns without weight sharing", None, ("convolutions", "no-sharing-2"), part_of=_CONVOLUTIONS),
    Hypothesis("block 3 aligns without weight sharing", None, ("convolutions", "no-sharing-3"), part_of=_CONVOLUTIONS),
    Hypothesis("block 2 aligns better with more channels", None, ("convolutions", "channels"), part_of=_CONVOLUTIONS),
    Hypothesis(
        "block 2 aligns better with feedback of full rank", None, ("convolutions", "rank"), part_of=_CONVOLUTIONS
    ),
)
