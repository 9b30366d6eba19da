"""What was going to be run and tested, fixed before the runs: the analysis plan, its hash and its history.

`alignkit run` stores the plan's hash beside the records, with the number of runs that had finished by then. A
claim counts as declared beforehand only if the plan in force when the first run finished holds it, word for
word, and if the study still is what that plan says; whatever came later is judged as exploration, and the
report says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignkit.errors import RecordsError
from alignkit.records.files import read_object, write_text
from alignkit.settings.study_options import SECTIONS
from alignkit.study.claim import Claim
from alignkit.study.study import Study
from alignkit.text import listed

FILE = "analysis_plan.json"
PLAN_FORMAT = 3
"""Plans of format 1 held claims, seeds and designs alone; they are read, and said to hold no more. Those before format
3 left out a claim's response where it was that of then, `FORMER_RESPONSE`."""
FORMER_RESPONSE = "signal_angle_deg"
_MEND = "Restore the file. Without it no claim counts as declared before the runs"

Rates = Mapping[str, Any]


def analysis_plan(study: Study, *, rates: Rates | None = None) -> dict[str, Any]:
    """All that decides a verdict beside the data: claims, seeds, cells, rules, settings, and how rates are tuned.

    The seeds belong to it: to add some after a look at the results is to test twice. `rates` are the tuned
    ones in force (`Plan.tuned_rates`). Defaults are left out, so that a later option changes no plan, and so
    is the folder that images lie in.
    """
    settings = study.model_dump(mode="json", include=set(SECTIONS), exclude_defaults=True)
    settings.get("data", {}).pop("path", None)
    pilot = study.pilot.model_dump(mode="json", exclude={"rates"}, exclude_defaults=True) if study.pilot else {}
    tuning = study.tuning.model_dump(mode="json", exclude_defaults=True) if study.tuning else {}
    plan: dict[str, Any] = {
        "claims": [_written(claim) for claim in study.claims],
        "seeds": list(study.seed_list),
        "held_out_seeds": list(study.held_out_seeds),
        "designs": study.model_dump(mode="json", include={"designs"}, exclude_defaults=True).get("designs", {}),
        "rules": list(study.rules),
        "settings": settings,
        "pilot": pilot,
        "tuning": tuning,
        "rates": dict(rates or {}),
    }
    return {key: value for key, value in plan.items() if value or key in ("claims", "seeds", "settings")}


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
        claim = next((claim for claim in self.plan["claims"] if claim["name"] == name), None)
        return None if claim is None else {"response": FORMER_RESPONSE, **claim}


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

    def changed(self, study: Study) -> str:
        """What of the study beside its claims changed after runs had finished, in words; "" if nothing did.

        What the declared plan does not hold (one of format 1) is compared with the first later one that does.
        """
        if self.declared is None:
            return ""
        now = _parts(analysis_plan(study, rates=self.entries[-1].plan.get("rates")))
        later = [_parts(entry.plan) for entry in self.entries[self.entries.index(self.declared) :]]
        changed = []
        for name, value in now.items():
            before = next((parts[name] for parts in later if name in parts), value)
            if name == "the tuned learning rates":  # of arms that are in both: others came with their design
                before, value = ({arm: rates[arm] for arm in before.keys() & value.keys()} for rates in (before, value))
            if value != before:
                changed.append(name + (f" (from {len(before)} to {len(value)})" if name == "the seeds" else ""))
        return listed(changed)

    def undeclared(self, study: Study, claim: Claim) -> str:
        """Why a claim of the study does not count as declared before the runs; "" where it does."""
        if self.declared is None:
            return "no analysis plan was stored before the first run finished: judged as exploration"
        if self.status(claim) != "declared":
            return f"the claim was {self._became(claim)}: judged as exploration"
        changed = self.changed(study)
        return f"{changed} changed after runs had finished: judged as exploration" if changed else ""

    def untested(self, study: Study) -> tuple[str, ...]:
        """Confirmatory claims that were declared and are not tested as such: changed since, or removed.

        They still count in their family: whoever drops or rewords a hopeless claim gains nothing by it.
        """
        if self.declared is None:
            return ()
        standing = {claim.name for claim in study.claims if not self.undeclared(study, claim)}
        return tuple(
            claim["name"]
            for claim in self.declared.plan["claims"]
            if claim["name"] not in standing and _confirmatory(claim)
        )

    def notes(self, study: Study) -> tuple[str, ...]:
        """What changed since the plan was declared, a sentence each."""
        if self.declared is None:
            if not study.claims:
                return ()
            return ("No analysis plan was stored before the first run finished: every claim is judged as exploration.",)
        notes = []
        if "settings" not in self.declared.plan:
            notes.append(
                "The plan holds claims, seeds and designs alone, as plans of format 1 do: that settings, rules and "
                "learning rates stayed as they were before the runs cannot be shown."
            )
        untested = self.untested(study)
        for claim in study.claims:
            if self.status(claim) != "declared":
                counts = ", and what was declared counts in its family as untested" if claim.name in untested else ""
                notes.append(f"Claim {claim.name} was {self._became(claim)}: it is judged as exploration{counts}.")
        present = {claim.name for claim in study.claims}
        notes += [
            f"Claim {name} was declared and then removed: it still counts in its family."
            for name in untested
            if name not in present
        ]
        changed = self.changed(study)
        if changed:
            text = f"{changed[0].upper()}{changed[1:]} changed after runs had finished"
            mend = (
                ": every claim is judged as exploration. To test them, declare the study anew, with an --out of its own"
            )
            notes.append(f"{text}{mend if study.claims else ''}.")
        before, now = self.declared.plan.get("held_out_seeds", []), list(study.held_out_seeds)
        if now != before:
            notes.append(
                f"Held-out seeds changed after runs had finished, from {len(before)} to {len(now)}: no verdict uses "
                "them, but what they confirm was not fixed beforehand."
            )
        return tuple(notes)

    def _became(self, claim: Claim) -> str:
        since = self.since(claim)
        when = "after the records existed" if not since else f"when {since:,} runs had finished"
        return f"{self.status(claim)} {when}"


def register(directory: Path, study: Study, *, finished_runs: int, rates: Rates | None = None) -> None:
    """Store the study's analysis plan below `directory`, if it is not the last one there."""
    path = directory / FILE
    entries = list(read(directory).entries) if path.exists() else []
    entry = Entry(analysis_plan(study, rates=rates), finished_runs)
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
        if content["format"] not in range(1, PLAN_FORMAT + 1):
            raise RecordsError(
                f"{path}: expected analysis plans of format 1 to {PLAN_FORMAT}; got {content['format']!r}. {_MEND}"
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
    written = claim.model_dump(mode="json", exclude_defaults=True, exclude={"practice", "statement"})
    return {"response": claim.response, **written}


def _confirmatory(written: Mapping[str, Any]) -> bool:
    return bool(written.get("family", "confirmatory") == "confirmatory")


def _parts(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan fixes beside claims, by its name in words; a plan of format 1 fixes seeds and designs alone."""
    parts = {"the seeds": plan["seeds"], "the designs": plan.get("designs", {})}
    if "settings" not in plan:
        return parts
    settings = {f"the settings of {name}": plan["settings"].get(name, {}) for name in SECTIONS}
    return {
        **parts,
        "the rules": plan.get("rules", []),
        **settings,
        "the pilot": plan.get("pilot", {}),
        "the tuning": plan.get("tuning", {}),
        "the tuned learning rates": plan.get("rates", {}),
    }
