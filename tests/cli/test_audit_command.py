"""`alignkit audit`: what it writes and prints, and its exit status."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from planted import planted_records, turned
from synthetic import full_study

from alignkit.auditing.page import FILES
from alignkit.cli.main import main
from alignkit.records.store import Records


def call(*arguments: str, capsys: pytest.CaptureFixture[str], records: Records | None = None) -> tuple[int, str, str]:
    """Exit status and both streams; `records` are read in the place of a directory's."""
    with pytest.MonkeyPatch.context() as patched, pytest.raises(SystemExit) as stopped:
        patched.setattr(sys, "argv", ["alignkit", *arguments])
        if records is not None:
            patched.setattr("alignkit.records.store.load", lambda directory: records)
        main()
    out = capsys.readouterr()
    return int(stopped.value.code or 0), out.out, out.err


def test_status_1_where_a_robust_verdict_is_contradicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = planted_records({"": turned(9, layer=2)})
    status, out, err = call("audit", str(tmp_path), capsys=capsys, records=records)
    assert status == 1 and err == ""
    assert "contradicted beyond chance: width" in out and "robust" in out
    assert all((tmp_path / name).stat().st_size > 500 for name in FILES)


def test_status_0_where_none_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call("audit", str(tmp_path), capsys=capsys, records=planted_records({}))
    assert status == 0 and "none contradicted" in out and str(tmp_path.name) in out


def test_status_0_where_a_verdict_that_is_not_robust_meets_an_opposite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = call("audit", str(tmp_path), capsys=capsys, records=planted_records({"delta": turned(11)}))
    assert status == 0 and "contested" in out


def test_status_2_with_one_message_where_the_input_is_at_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = call("audit", str(tmp_path / "nowhere"), capsys=capsys)
    assert status == 2 and "no such directory" in err and "Traceback" not in err
    bare = full_study()
    object.__setattr__(bare, "study", bare.study.model_copy(update={"claims": ()}))
    status, _, err = call("audit", str(tmp_path), capsys=capsys, records=bare)
    assert status == 2 and "expected a study with claims" in err
    assert not [name for name in FILES if (tmp_path / name).exists()]
