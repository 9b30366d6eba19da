"""Types of options: ranges and names that every section shares."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Activation = Literal["tanh", "relu", "leaky_relu", "sigmoid", "gelu", "erf", "linear"]
Stage = Literal["norm", "activation", "dropout", "pool"]
# Strict: true is no number, "8" no count, 1 no flag.
Probability = Annotated[float, Field(strict=True, ge=0.0, lt=1.0, allow_inf_nan=False)]
Slope = Annotated[float, Field(strict=True, ge=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Index = Annotated[int, Field(strict=True, ge=0, le=10_000_000_000)]
Seed = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


ProbeMode = Literal["batch", "eval", "train"]


class Section(BaseModel):
    """A section of a study: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
