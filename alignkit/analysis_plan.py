"""What was going to be tested, fixed before the runs: the analysis plan, its hash and its history.

`alignkit run` stores the plan's hash beside the records, with the number of runs that had finished by then. A
claim counts as declared beforehand only if the plan in force when the first run started holds it, word for
word; whatever came later is judged as exploration, and the report says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignkit.errors import RecordsError
from alignkit.files import read_object, write_text
from alignkit.study import Claim, Study

FILE = "analysis_plan.json"
PLAN_FORMAT = 1
_MEND = "Restore the file. Without it no claim counts as declared before the runs"


def analysis_plan(study: Study) -> dict[str, Any]:
    """All that decides a verdict beside the data: claims, seeds, and the cells that are averaged over.

    The seeds belong to it: to add some after a look at the results is to test twice. Defaults are left out,
    so that a later option changes no plan.
    """
    plan: dict[str, Any] = {
        "claims": [_written(claim) for claim in study.claims],
        "seeds": list(study.seed_list),
        "held_out_seeds": list(study.held_out_seeds),
        "designs": study.model_dump(mode="json", include={"designs"}, exclude_defaults=True).get("designs", {}),
    }
    return {key: value for key, value in plan.items() if value or key in ("claims", "seeds")}


def plan_hash(plan: Mapping[str, Any]) -> str:
    """The hash of an analysis plan, 16 hexadecimal digits."""
    text = json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Entry:
    """An analysis plan, and how many runs had finished when it came into force."""

    plan: Mapping[str, Any]
    finished_runs: int

    @property
    def hash(self) -> str:
        return plan_hash(self.plan)

    def claim(self, name: str) -> dict[str, Any] | None:
        return next((claim for claim in self.plan["claims"] if claim["name"] == name), None)


Status = Literal["declared", "changed", "added"]


@dataclass(frozen=True)
class Registration:
    """The analysis plans that a study's records were made under, the oldest first.

    `declared` is the one in force when the first run finished; None if the history begins later, or was lost.
    """

    entries: tuple[Entry, ...] = ()

    @property
    def declared(self) -> Entry | None:
        before = [entry for entry in self.entries if entry.finished_runs == 0]
        return before[-1] if before else None

    def status(self, claim: Claim) -> Status:
        """Whether a claim stands as it was declared before the runs, was changed since, or added."""
        known = self.declared.claim(claim.name) if self.declared else None
        if known is None:
            return "added"
        return "declared" if known == _written(claim) else "changed"

    def since(self, claim: Claim) -> int | None:
        """How many runs had finished when the claim came to read as it does; None where that is unknown."""
        for entry in self.entries:
            if entry.claim(claim.name) == _written(claim):
                return entry.finished_runs
        return None

    def removed(self, study: Study) -> tuple[str, ...]:
        """Confirmatory claims that were declared and are no longer there. They still count in their family."""
        if self.declared is None:
            return ()
        present = {claim.name for claim in study.claims}
        declared = self.declared.plan["claims"]
        return tuple(
            claim["name"]
            for claim in declared
            if claim["name"] not in present and claim.get("family", "confirmatory") == "confirmatory"
        )

    def notes(self, study: Study) -> tuple[str, ...]:
        """What changed since the plan was declared, a sentence each."""
        if self.declared is None:
            if not study.claims:
                return ()
            return ("No analysis plan was stored before the first run finished: every claim is judged as exploration.",)
        found = []
        for claim in study.claims:
            status, since = self.status(claim), self.since(claim)
            if status != "declared":
                when = "after the records existed" if not since else f"when {since:,} runs had finished"
                found.append(f"Claim {claim.name} was {status} {when}: it is judged as exploration.")
        found += [
            f"Claim {name} was declared and then removed: it still counts in its family."
            for name in self.removed(study)
        ]
        for kind, now in (("seeds", list(study.seed_list)), ("held_out_seeds", list(study.held_out_seeds))):
            before = self.declared.plan.get(kind, [])
            if now != before:
                found.append(
                    f"{'Seeds' if kind == 'seeds' else 'Held-out seeds'} changed after runs had finished, from "
                    f"{len(before)} to {len(now)}: to add seeds after a look at the results is to test twice, and the "
                    "p-values do not allow for it."
                )
        if analysis_plan(study).get("designs") != self.declared.plan.get("designs"):
            found.append("The designs changed after runs had finished: a claim's effect is averaged over other cells.")
        return tuple(found)


def register(directory: Path, study: Study, *, finished_runs: int) -> None:
    """Store the study's analysis plan below `directory`, if it is not the last one there."""
    path = directory / FILE
    entries = list(read(directory).entries) if path.exists() else []
    entry = Entry(analysis_plan(study), finished_runs)
    if entries and entries[-1].hash == entry.hash:
        return
    history = [
        {"hash": known.hash, "finished_runs": known.finished_runs, "plan": known.plan} for known in (*entries, entry)
    ]
    content = {"format": PLAN_FORMAT, "history": history}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read(directory: Path) -> Registration:
    """The history of analysis plans below `directory`; empty where there is none.

    Raises `RecordsError` where the file is damaged, or a plan does not have the hash that is stored with it.
    """
    path = directory / FILE
    if not path.exists():
        return Registration()
    content = read_object(path, _MEND)
    entries = []
    try:
        if content["format"] != PLAN_FORMAT:
            raise RecordsError(
                f"{path}: expected analysis plans of format {PLAN_FORMAT}; got {content['format']!r}. {_MEND}"
            )
        for known in content["history"]:
            entry = Entry(dict(known["plan"]), int(known["finished_runs"]))
            if not all(isinstance(claim["name"], str) for claim in entry.plan["claims"]) or "seeds" not in entry.plan:
                raise KeyError("name")
            if entry.hash != known["hash"]:
                raise RecordsError(
                    f"{path}: a plan does not have the hash {known['hash']} that is stored with it: it was edited "
                    f"later. {_MEND}"
                )
            entries.append(entry)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RecordsError(f"{path}: expected a history of analysis plans; got something else. {_MEND}") from None
    return Registration(tuple(entries))


def _written(claim: Claim) -> dict[str, Any]:
    """A claim as the plan holds it: what it says in words for practitioners is no part of the test."""
    return claim.model_dump(mode="json", exclude_defaults=True, exclude={"practice", "statement"})
