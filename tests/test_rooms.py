"""The house: which rooms there are, and which may lean on which."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import alignkit

PACKAGE = Path(alignkit.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
COMPUTE = {"numerics", "networks", "rules", "measures", "training"}
JUDGE = {"settings", "study", "records", "stats", "claims", "figures", "report"}
"""Two chains that meet in the records alone; `execution` is where they are brought together."""


def room_of(module: str) -> str:
    """The folder that a module lies in; columns, texts and errors, in none, are one room."""
    parts = module.split(".")
    if len(parts) == 2 and MODULES[module].parent == PACKAGE and parts[1] != "__main__":
        return "words"
    return parts[1] if len(parts) > 1 else module


@cache
def imports_of(module: str) -> frozenset[str]:
    """The modules of alignkit that a module names in any import, those inside of functions too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    exact = {name for name in found if name in MODULES}
    return frozenset(exact - {module, *(name.rpartition(".")[0] for name in exact)} | _named(module, exact))


def _named(module: str, exact: set[str]) -> set[str]:
    """Packages of which a name is taken, and not only one of their modules."""
    taken = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in exact:
            taken |= {node.module for alias in node.names if f"{node.module}.{alias.name}" not in MODULES}
    return taken - {module}


def circles(graph: dict[str, set[str]]) -> list[str]:
    """Those that can be reached from themselves."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            here = waiting.pop()
            if here not in seen:
                seen.add(here)
                waiting += graph[here]
        return seen

    return sorted(name for name in graph if name in reached(name))


def rooms() -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {room_of(module): set() for module in MODULES}
    for module in MODULES:
        graph[room_of(module)] |= {room_of(other) for other in imports_of(module)} - {room_of(module)}
    return graph


def test_few_modules_lie_outside_of_a_room() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_no_import_goes_back_up_or_in_a_circle() -> None:
    assert circles(rooms()) == []
    assert circles({module: set(imports_of(module)) for module in MODULES}) == []


def test_statistics_know_plain_tables_alone() -> None:
    """No column of alignkit's, no rule, no unit: whatever has those words lies in `records` or `claims`."""
    others = {other for module in MODULES if room_of(module) == "stats" for other in imports_of(module)}
    known = {"alignkit.errors", "alignkit.text", "alignkit.display"}  # the last two: how results show themselves
    assert {other for other in others if room_of(other) != "stats"} <= known
    assert rooms()["words"] == set()


def test_there_are_few_levels() -> None:
    graph = rooms()

    @cache
    def level(room: str) -> int:
        return 1 + max(map(level, graph[room]), default=0)

    assert max(map(level, graph)) <= 12


def test_a_circle_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_computing_imports_no_statistics_and_judging_no_torch() -> None:
    for module in MODULES:
        room, others = room_of(module), {room_of(other) for other in imports_of(module)}
        if room in COMPUTE:
            assert not others & {"stats", "claims", "figures", "report"}, module
        if room in JUDGE:
            assert not others & (COMPUTE | {"execution", "data"}), module
            assert "import torch" not in MODULES[module].read_text(encoding="utf-8"), module


def test_a_study_is_read_without_its_rules_and_rules_are_not_measured() -> None:
    graph = rooms()
    assert "rules" not in graph["study"] and "measures" not in graph["rules"]


def test_an_audit_shares_no_code_with_what_it_audits() -> None:
    """It takes verdicts to compare them, and nothing of what asks a panel, chooses rates or judges moderators."""
    audited = {
        "study.panel", "study.hypotheses", "records.tuning", "records.summaries", "claims.panel", "claims.moderators",
        "claims.moderation", "claims.tables", "claims.measured", "claims.analysis",
    }  # fmt: skip
    own = {module: imports_of(module) for module in MODULES if room_of(module) == "auditing"}
    assert len(own) > 5 and "alignkit.claims.verdicts" in set().union(*own.values())
    for module, others in own.items():
        assert not {f"alignkit.{name}" for name in audited} & others, module
        assert not any(name.startswith("alignkit.stats.contrasts") for name in others), module


def test_sections_and_figures_ask_the_analysis_and_never_the_records() -> None:
    made_of_it = [name for name in MODULES if name.startswith(("alignkit.figures.", "alignkit.report.sections."))]
    assert len(made_of_it) > 20
    for module in [*made_of_it, "alignkit.report.charts", "alignkit.report.method", "alignkit.report.results"]:
        assert not any(name.startswith("alignkit.records") for name in imports_of(module)), module
        assert ".records" not in MODULES[module].read_text(encoding="utf-8"), module


def test_reading_and_judging_load_no_torch() -> None:
    script = (
        "import sys, alignkit; alignkit.load, alignkit.evaluate, alignkit.recommendations, alignkit.write_report, "
        "alignkit.Study; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_every_public_name_is_there() -> None:
    assert [name for name in alignkit.__all__ if getattr(alignkit, name, None) is None] == []
