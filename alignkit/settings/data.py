"""The section `[data]`: a class a source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alignkit.settings.types import Count, Flag, Index, Positive, Section, Seed


class Digits(Section):
    """scikit-learn's 8x8 digits (1,797 images, 10 classes), which come with alignkit."""

    name: Literal["digits"] = "digits"
    shuffle_labels: Flag = False


class Teacher(Section):
    """Inputs with a known correlation, labelled by a random network: the ground truth is known."""

    name: Literal["teacher"]
    task: Literal["classification", "regression"] = "classification"
    samples: Annotated[int, Field(strict=True, ge=20, le=10_000_000)] = 2000
    inputs: Count = 32
    outputs: Count = 5
    teacher_width: Count = 32
    teacher_depth: Index = 1
    correlation: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    noise: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    seed: Seed = 0
    shuffle_labels: Flag = False


class Images(Section):
    """Images in a local folder of Parquet files, in the schema of the Hugging Face hub. `validation` counts
    the training images that are held out (0: none); by default, a tenth of them."""

    name: Literal["images"]
    path: str
    validation: Index | None = None
    train_samples: Count | None = None
    test_samples: Count | None = None
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None = None
    std: tuple[Positive, ...] | None = None
    shuffle_labels: Flag = False


DataSection = Annotated[Digits | Teacher | Images, Field(discriminator="name")]
