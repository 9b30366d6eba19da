"""The analysis plan: what counts as declared before the runs, and what the report says of changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignkit.errors import RecordsError
from alignkit.records.registration import FILE, Registration, analysis_plan, plan_hash, read, register
from alignkit.study.plan import expand
from alignkit.study.study import Study

NORM = {
    "name": "norm", "statement": "Batch norm aligns", "factor": "norm", "levels": ["none", "batch"],
    "direction": "decrease", "smallest_effect": 2.0,
}  # fmt: skip
WIDTH = {**NORM, "name": "width", "factor": "width", "levels": [16, 64]}


def study(*claims: dict[str, Any], **options: Any) -> Study:
    return Study.parse({"name": "s", "claims": list(claims), **options})


def history(directory: Path, *steps: tuple[int, Study]) -> Registration:
    for finished, declared in steps:
        register(directory, declared, finished_runs=finished)
    return read(directory)


def test_the_hash_is_of_the_test_and_not_of_its_words() -> None:
    def hash_of(*claims: dict[str, Any], **options: Any) -> str:
        return plan_hash(analysis_plan(study(*claims, **options)))

    same = hash_of(NORM)
    assert hash_of({**NORM, "statement": "Otherwise put", "practice": "Use it"}) == same
    assert hash_of({**NORM, "family": "confirmatory", "summary": "final"}) == same  # defaults, written out
    for changed in ({"smallest_effect": 1.0}, {"direction": "increase"}, {"levels": ["batch", "none"]},
                    {"family": "exploratory"}, {"response": "signal_cosine"}, {"layer": 1}, {"summary": "auc"}):  # fmt: skip
        assert hash_of({**NORM, **changed}) != same
    assert hash_of(NORM, seeds=6) != same
    assert hash_of(NORM, designs={"d": {"factors": {"network.norm": ["none", "batch"]}}}) != same
    assert hash_of(NORM, title="Another title", description="Otherwise put") == same


CHANGES: dict[str, dict[str, Any]] = {
    "the settings of data": {"data": {"name": "digits", "shuffle_labels": True}},
    "the settings of network": {"network": {"width": 8}},
    "the settings of training": {"training": {"epochs": 3}},
    "the settings of feedback": {"feedback": {"law": "uniform"}},
    "the settings of streams": {"streams": {"feedback": 3}},
    "the settings of probe": {"probe": {"samples": 64}},
    "the rules": {"rules": ["bp", "fa"]},
    "the seeds (from 5 to 20)": {"seeds": 20},
    "the designs": {"designs": {"d": {"factors": {"network.norm": ["none", "batch"]}}}},
    "the pilot": {"pilot": {"lr": [0.1]}},
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_decides_a_verdict_is_in_the_plan(what: str, tmp_path: Path) -> None:
    before, after = study(NORM), study(NORM, **CHANGES[what])
    found = history(tmp_path, (0, before), (12, after))
    assert found.changed(before) == found.undeclared(before, before.claims[0]) == ""
    assert found.changed(after) == what
    assert found.undeclared(after, after.claims[0]) == f"{what} changed after runs had finished: judged as exploration"
    (note,) = found.notes(after)
    assert (
        note.lower().startswith(f"{what} changed after") and "declare the study anew, with an --out of its own" in note
    )
    assert found.untested(after) == ("norm",) and found.untested(before) == ()


def test_a_later_option_or_another_folder_voids_no_plan() -> None:
    def hash_of(**options: Any) -> str:
        return plan_hash(analysis_plan(study(NORM, **options)))

    assert hash_of(training={"epochs": 20}, probe={"draw": 0}, pilot=None) == hash_of()  # defaults, written out
    images = {"name": "images", "train_samples": 100}
    assert hash_of(data={**images, "path": "/here"}) == hash_of(data={**images, "path": "/there"}) != hash_of(data=images | {"path": "/here", "train_samples": 9})  # fmt: skip
    tuned = [{"pilot": {"lr": [0.1, 0.3], "rates": name}} for name in ("a.json", "b.json")]
    assert hash_of(**tuned[0]) == hash_of(**tuned[1])


def test_other_tuned_rates_are_another_plan(tmp_path: Path) -> None:
    tuned = study(NORM, pilot={"lr": [0.1, 0.3]})
    register(tmp_path, tuned, finished_runs=0, rates={"dfa | norm=none | d": [0.1, 0.1]})
    register(
        tmp_path, tuned, finished_runs=12, rates={"dfa | norm=none | d": [0.1, 0.1], "fa | norm=none | d": [0.3, 0.3]}
    )
    assert read(tmp_path).changed(tuned) == ""  # an arm that was not there before
    register(tmp_path, tuned, finished_runs=24, rates={"dfa | norm=none | d": [0.3, 0.3]})
    assert read(tmp_path).changed(tuned) == "the tuned learning rates"


def test_the_tuned_rates_are_those_that_the_runs_take() -> None:
    designs = {"d": {"factors": {"network.norm": ["none", "batch"]}}}
    tuned = study(pilot={"lr": [0.1, 0.3]}, designs=designs, seeds=2)

    class Rates(dict[str, tuple[float, float]]):
        def __contains__(self, key: object) -> bool:
            return True

        def __missing__(self, key: str) -> tuple[float, float]:
            return (0.3, 0.2)

    found = expand(tuned, fingerprint=lambda data: "", rates=Rates()).tuned_rates
    assert list(found) == [f"{rule} | norm={norm} | d" for norm in ("none", "batch") for rule in ("bp", "dfa")]
    assert all(rates == [0.3, 0.2] for rates in found.values())
    assert expand(study(designs=designs), fingerprint=lambda data: "").tuned_rates == {}


def test_a_plan_of_format_1_is_read_and_said_to_hold_less(tmp_path: Path) -> None:
    known = study(NORM, training={"epochs": 3})
    old = {key: value for key, value in analysis_plan(known).items() if key in ("claims", "seeds", "designs")}
    entry = {"hash": plan_hash(old), "finished_runs": 0, "plan": old}
    (tmp_path / FILE).write_text(json.dumps({"format": 1, "history": [entry]}), encoding="utf-8")
    assert read(tmp_path).undeclared(known, known.claims[0]) == ""
    (note,) = read(tmp_path).notes(known)
    assert "holds claims, seeds and designs alone" in note
    # From the next run on the settings are held too.
    found = history(tmp_path, (12, known), (24, study(NORM, training={"epochs": 9})))
    assert (
        found.changed(known) == "" and found.changed(study(NORM, training={"epochs": 9})) == "the settings of training"
    )
    assert json.loads((tmp_path / FILE).read_text(encoding="utf-8"))["format"] == 3


def test_a_plan_that_stays_is_stored_once(tmp_path: Path) -> None:
    found = history(tmp_path, (0, study(NORM)), (700, study(NORM)), (1400, study(NORM)))
    assert len(found.entries) == 1
    assert found.status(study(NORM).claims[0]) == "declared"
    assert found.notes(study(NORM)) == ()


def test_a_plan_may_change_until_the_first_run_has_finished(tmp_path: Path) -> None:
    found = history(tmp_path, (0, study(NORM)), (0, study(NORM, WIDTH)))
    assert found.notes(study(NORM, WIDTH)) == ()
    assert found.notes(study(NORM)) == ("Claim width was declared and then removed: it still counts in its family.",)


def test_what_changed_after_the_records_existed_is_said(tmp_path: Path) -> None:
    later = study({**NORM, "smallest_effect": 0.5}, WIDTH, seeds=20)
    found = history(tmp_path, (0, study(NORM, seeds=10)), (700, later))
    norm, width = later.claims
    assert (found.status(norm), found.since(norm)) == ("changed", 700)
    assert (found.status(width), found.since(width)) == ("added", 700)
    notes = found.notes(later)
    assert notes[0] == (
        "Claim norm was changed when 700 runs had finished: it is judged as exploration, and what was declared counts in "
        "its family as untested."
    )
    assert notes[1] == "Claim width was added when 700 runs had finished: it is judged as exploration."
    assert notes[2].startswith("The seeds (from 10 to 20) changed after runs had finished: every claim is judged")
    assert found.undeclared(later, width) == "the claim was added when 700 runs had finished: judged as exploration"
    held_out = study(NORM, seeds=10, held_out_seeds=[90])
    assert "what they confirm was not fixed beforehand" in found.notes(held_out)[0]
    assert found.undeclared(held_out, held_out.claims[0]) == ""  # no verdict uses them
    # A study.json that was edited by hand, and never run, is in no entry.
    edited = study({**NORM, "direction": "increase"}, seeds=10)
    assert "Claim norm was changed after the records existed" in found.notes(edited)[0]


def test_a_lost_plan_declares_nothing(tmp_path: Path) -> None:
    lost = read(tmp_path)
    assert lost.status(study(NORM).claims[0]) == "added"
    assert "No analysis plan was stored before the first run" in lost.notes(study(NORM))[0]
    assert lost.notes(study()) == ()
    found = history(tmp_path, (1400, study(NORM)))  # a run after the loss does not bring it back
    assert found.declared is None and found.status(study(NORM).claims[0]) == "added"


def test_an_edited_or_damaged_plan_is_refused(tmp_path: Path) -> None:
    history(tmp_path, (0, study(NORM)))
    path = tmp_path / FILE
    whole = path.read_text(encoding="utf-8")
    edited = json.loads(whole)
    edited["history"][0]["plan"]["claims"][0]["smallest_effect"] = 0.1
    path.write_text(json.dumps(edited), encoding="utf-8")
    with pytest.raises(RecordsError, match="was edited later"):
        read(tmp_path)
    for damaged in ("[]", "{", '{"format": 9, "history": []}', '{"format": 1, "history": [{}]}', '{"format": 1}'):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(RecordsError, match=FILE):
            read(tmp_path)
