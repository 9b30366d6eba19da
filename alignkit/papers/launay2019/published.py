"""What the paper says: its figures, where they are known, and its practices and hypotheses."""

from __future__ import annotations

from dataclasses import dataclass

STUDIES = (
    "as_published_bottleneck", "as_published_fc", "as_published_cnn", "defects", "ladder", "full_size_fc",
    "corrected_fc", "corrected_bottleneck", "corrected_cnn", "convolutions",
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
    corrected : the studies that judge it, each with the name of its claim, the one that counts first.
    claim : what the paper says of it, in a word or its own numbers.
    part_of : the hypothesis of which this is one of several parts, where it is one.
    a_rate : why it is a learning rate and nothing else, where it is.
    """

    title: str
    published: tuple[str, str, tuple[str, str]] | None
    corrected: tuple[tuple[str, str], ...]
    claim: str = "aligns better"
    rises: bool = True
    part_of: str = ""
    a_rate: str = ""

    @property
    def whole(self) -> str:
        """The hypothesis in full."""
        return f"{self.part_of}: {self.title}" if self.part_of else self.title


_BOTTLENECK = "A bottleneck prevents alignment"
_CONVOLUTIONS = "Convolution blocks fail for want of freedom"

_MASKS = "cosine at layers 2 and 3 .78 → .50, weights and signals at once"
_RATE = (
    "at equal widths and a fixed output rate, feedback of another length is another learning rate of the hidden layers "
    "and nothing else"
)


def _fc(title: str, factor: str, levels: tuple[str, str], claim: str, *, full_size: bool = True) -> Hypothesis:
    judged = (("full_size_fc", claim), ("corrected_fc", claim))
    return Hypothesis(title, ("as_published_fc", factor, levels), judged if full_size else judged[1:])


def _cnn(title: str, factor: str, levels: tuple[str, str], claim: str) -> Hypothesis:
    return Hypothesis(title, ("as_published_cnn", factor, levels), (("corrected_cnn", claim),))


def _bottleneck(title: str, claim: str, *, published: bool = False) -> Hypothesis:
    at = ("as_published_bottleneck", "bottleneck", ("800", "28")) if published else None
    said = _MASKS if published else "implied"
    return Hypothesis(title, at, (("corrected_bottleneck", claim),), said, rises=False, part_of=_BOTTLENECK)


def _convolutions(title: str, claim: str) -> Hypothesis:
    return Hypothesis(title, None, (("convolutions", claim),), "conjectured", part_of=_CONVOLUTIONS)


HYPOTHESES = (
    Hypothesis(
        "Normalise the feedback (fully connected)",
        ("as_published_fc", "feedback_normalised", ("false", "true")),
        (),
        a_rate=_RATE,
    ),
    _cnn("Normalise the feedback (convolutional)", "feedback_normalised", ("false", "true"), "normalised-feedback"),
    _fc("Use batch norm (fully connected)", "norm", ("none", "batch"), "batch-norm"),
    _cnn("Use batch norm (convolutional)", "norm", ("none", "batch"), "batch-norm"),
    _fc("tanh over ReLU", "unit", ("relu", "tanh"), "tanh"),
    _fc("Leaky ReLU: slope .5 over .01", "unit", ("leaky_01", "leaky_50"), "large-slope"),
    _fc("Low dropout over high (fully connected)", "dropout_rates", ("high", "low"), "low-dropout", full_size=False),
    _cnn("Low dropout over high (convolutional)", "dropout_rates", ("high", "low"), "low-dropout"),
    _bottleneck("frozen weights", "frozen", published=True),
    _bottleneck("masked signals", "masked", published=True),
    _bottleneck("feedback of low rank", "rank"),
    _bottleneck("a narrow layer: itself", "narrow-itself"),
    _bottleneck("a narrow layer: the layer before", "narrow-before"),
    _bottleneck("a narrow layer: the layer after", "narrow-after"),
    _convolutions("block 1 aligns without weight sharing", "no-sharing-1"),
    _convolutions("block 2 aligns without weight sharing", "no-sharing-2"),
    _convolutions("block 3 aligns without weight sharing", "no-sharing-3"),
    _convolutions("block 2 aligns better with more channels", "channels"),
    _convolutions("block 2 aligns better with feedback of full rank", "rank"),
)
