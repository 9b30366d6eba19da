"""The analysis plan: what counts as declared before the runs, and what the report says of changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignkit.analysis_plan import FILE, Registration, analysis_plan, plan_hash, read, register
from alignkit.errors import RecordsError
from alignkit.study import Study

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
    assert hash_of(NORM, training={"epochs": 3}, title="Another title") == same


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
    assert notes[0] == "Claim norm was changed when 700 runs had finished: it is judged as exploration."
    assert notes[1] == "Claim width was added when 700 runs had finished: it is judged as exploration."
    assert notes[2].startswith("Seeds changed after runs had finished, from 10 to 20")
    # A study.json that was edited by hand, and never run, is in no entry.
    edited = study({**NORM, "direction": "increase"}, seeds=10)
    assert "Claim norm was changed after the records existed" in found.notes(edited)[0]


def test_a_changed_design_is_said(tmp_path: Path) -> None:
    before = study(NORM, designs={"d": {"factors": {"network.norm": ["none", "batch"]}}})
    after = study(NORM, designs={"d": {"factors": {"network.norm": ["none", "batch"], "network.width": [8, 16]}}})
    found = history(tmp_path, (0, before), (12, after))
    assert found.notes(before) == () and "averaged over other cells" in found.notes(after)[0]


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
