"""plan.json: what each run is, and what the study's own rules and measures are called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alignkit.columns import FORMAT_VERSION, RUNS
from alignkit.errors import RecordsError, without_control_characters
from alignkit.records.files import read_object

_TO_PLAN_ANEW = "Run the study again into the same directory: it writes this file anew and repeats no finished run"


class _PlannedRun(BaseModel):
    model_config = ConfigDict(strict=True)
    run_id: str
    rule: str
    cell: str
    designs: str
    bp_run_id: str
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    levels: dict[str, str | bool | int | float | None]
    replicate: str = ""
    bp_replicate: str = ""
    tunes: bool = False


class _OwnColumn(BaseModel):
    model_config = ConfigDict(strict=True)
    name: str
    meaning: str
    label: str = ""
    unit: str = ""
    better: Literal["", "higher", "lower"] = ""
    digits: Annotated[int, Field(ge=0, le=12)] | None = None


class _PlanFile(BaseModel):
    """What plan.json holds."""

    model_config = ConfigDict(strict=True)
    format: int
    study: str | None = None
    factors: list[str]
    runs: Annotated[list[_PlannedRun], Field(min_length=1)]
    rules: dict[str, dict[str, str]] = {}
    """How rules of the user's own call and colour themselves."""
    columns: list[_OwnColumn] = []
    """What measures of the user's own record."""

    @model_validator(mode="after")
    def _is_consistent(self) -> _PlanFile:
        names = list(RUNS)
        if (
            len({*self.factors, *names[: names.index("held_out") + 1]})
            != len(self.factors) + names.index("held_out") + 1
        ):
            raise ValueError(f"expected factors with different names of their own; got {self.factors}")
        seen: set[str] = set()
        for run in self.runs:
            if run.run_id in seen:
                raise ValueError(f"expected every run once; got {run.run_id} twice")
            if run.levels.keys() != set(self.factors):
                raise ValueError(f"run {run.run_id}: expected levels of {self.factors}; got {list(run.levels)}")
            seen.add(run.run_id)
        return self


def read_plan(directory: Path) -> dict[str, Any]:
    path = directory / "plan.json"
    plan = without_control_characters(read_object(path, _TO_PLAN_ANEW))
    if plan.get("format") != FORMAT_VERSION:
        raise RecordsError(
            f"{path}: expected records of format {FORMAT_VERSION}; got {plan.get('format')!r}. "
            "Read them with the alignkit that wrote them, or run the study again in a new directory"
        )
    try:
        return _PlanFile.model_validate(plan).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RecordsError(f"{path}: {place + ': ' if place else ''}{first['msg']}. {_TO_PLAN_ANEW}") from None
