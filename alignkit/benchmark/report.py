"""The benchmark on paper: one JSON file a machine, and a table to read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignkit.benchmark.speed import Row, Speed
from alignkit.records.files import read_object, write_text

REACHED = {True: " ✓", False: " ✗", None: ""}
RATIOS = {
    "published": "{:.2f} times the fastest published code",
    "plain": "{:.2f} times the plain loop",
    "limit": "{:.0%} of the bare products' rate",
    "step": "{:.2f} plain steps",
    "precision": "{:.2f} times as fast as in float32",
    "angles": "angles {:.2f} steps",
    "everything": "everything {:.2f} steps",
    "share": "{:.1%} of the time",
}


def write_speed(speed: Speed, directory: Path) -> Path:
    """Writes `<machine>.json` and `<machine>.md` below `directory`; returns the latter.

    Where the machine has results there already, the table compares with them: a regression shows.
    """
    processor = re.sub(r"\((?:R|TM)\)", "", speed.machine["name"])
    name = re.sub(r"[^a-z0-9]+", "-", f"{processor} {speed.machine['cores']} cores".lower()).strip("-")
    before = directory / f"{name}.json"
    earlier = read_object(before, "Move it away to start anew") if before.exists() else {}
    page = directory / f"{name}.md"
    write_text(page, to_markdown(speed, earlier))
    write_text(before, json.dumps(_rounded(speed.to_json()), indent=1, ensure_ascii=False) + "\n")
    return page


def to_markdown(speed: Speed, earlier: dict[str, Any] | None = None) -> str:
    """The table, with ratios to the earlier results' medians where there are some."""
    machine, limits = speed.machine, speed.limits
    rates = []
    for name, value in limits.items():
        count = int(name.rsplit("_", 1)[1])
        verb, unit = ("multipl", "GFLOP/s") if "gemm" in name else ("cop", "GB/s")
        matrices = " matrices" if "gemm" in name else ""
        rates.append(f"{_cores(count)} {verb}{'ies' if count == 1 else 'y'}{matrices} at {value:g} {unit}")
    versions = f"torch {machine['torch']}, Python {machine['python']}, {machine['system']}"
    lines = [
        f"# Speed on {machine['name']}",
        "",
        f"`alignkit bench` on {_cores(machine['cores'])} ({machine['device']}, {machine['capability']}, {versions}), "
        f"{speed.seconds:.0f} seconds. {'; '.join(rates)}.",
        "",
        "Times are milliseconds per network and step, medians over rounds in which all take turns [quartiles]. "
        "*Plain loop*: one network in a loop of plain PyTorch without autograd. *Bare products*: the matrix products "
        "of a DFA step alone, the machine's limit. On several cores, alignkit and the bare products run a process a "
        "core, the others use as many threads.",
        "",
        _published(speed),
        "",
    ]
    for row in speed.rows:
        lines += [*_row(row, earlier or {}), ""]
    lines += ["## Memory", "", "| cohort | modelled, MiB | counted, MiB | modelled / counted |", "|---|---:|---:|---:|"]
    lines += [
        f"| {case['what']} | {case['modelled'] / 2**20:.1f} | {case['counted'] / 2**20:.1f} | {case['ratio']:.2f} |"
        for case in speed.memory
    ]
    lines += ["", "## How cost grows", ""]
    lines += ["Milliseconds on one core; the exponent is that of a power law through the upper half.", ""]
    for curve in speed.growth:
        lines += [f"**{curve['what']}** (per {curve['per']}), exponent {curve['exponent']:.2f}", ""]
        lines += _table(map(str, curve["values"]), [[f"{value:.3g}" for value in curve["milliseconds"]]])
        lines.append("")
    lines += ["## Where a step's time goes", ""]
    for name, shares in speed.profiles.items():
        parts = ", ".join(f"{operation} {share:.0%}" for operation, share in shares)
        lines += [f"- {name}: {parts}."]
    return "\n".join(lines) + "\n"


def _published(speed: Speed) -> str:
    if not speed.published:
        return "No checkout of a published code was given (`--published`), so none was compared with."
    return f"Published codes, from checkouts: {', '.join(speed.published)}."


def row_text(row: Row) -> str:
    """What was timed and what it comes to, beside what was to be reached."""
    measured = [
        RATIOS.get(name, f"{name} {{:.2f}} steps").format(value)
        + (REACHED[row.reached] + _target(row) if row.target and row.target[0] == name else "")
        for name, value in row.ratios.items()
    ]
    unmeasured = [] if row.target is None or row.reached is not None else [f"not measured{_target(row)}"]
    return f"{row.what} ({_cores(row.cores)}): {'; '.join([*measured, *unmeasured])}."


def _row(row: Row, earlier: dict[str, Any]) -> list[str]:
    what, _, rest = row_text(row).partition(" (")
    title = f"**{what}** ({rest}"
    if not row.timings:
        return [title]
    same = [old for old in earlier.get("rows", []) if (old["name"], old["cores"]) == (row.name, row.cores)]
    known = same[0]["timings"] if same else {}
    cells = [f"{t.median:.3g} [{t.low:.3g}, {t.high:.3g}]" for t in row.timings.values()]
    rows = [cells]
    if known:
        changes = [
            f"{timing.median / known[name]['median']:.2f} of before" if name in known else "new"
            for name, timing in row.timings.items()
        ]
        rows.append(changes)
    return [title, "", *_table(row.timings, rows)]


def _target(row: Row) -> str:
    assert row.target is not None
    name, side, value = row.target
    size = f"{value:.0%}" if name in ("limit", "share") else f"{value:g}"
    return f" (to reach: {side} {size})"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    head = list(head)
    lines = [head, ["---:"] * len(head), *(list(row) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _cores(count: int) -> str:
    return "one core" if count == 1 else f"{count} cores"


def _rounded(value: Any) -> Any:
    """Numbers to five significant digits: what is beyond them is noise."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
