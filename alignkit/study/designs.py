"""From the factors of a design to its cells: levels, grids and regular fractions."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from alignkit.columns import CHECKPOINTS, LAYERS, RUNS
from alignkit.errors import StudyError, quoted
from alignkit.settings.rules import WITHOUT_FEEDBACK
from alignkit.settings.study_options import SECTIONS, Settings
from alignkit.stats.tables.levels import level_text
from alignkit.study.study import Design, Study

RESERVED = {*RUNS, *CHECKPOINTS, *LAYERS} - {"lr", "output_lr", "width"}
"""Names that a factor cannot have; those left out are options' own."""

MOST_CELLS = 100_000
MOST_RUNS = 1_000_000
"""Of a whole study: more would be planned for hours, and held in no memory."""


@dataclass(frozen=True)
class Level:
    """One level of a factor: its value in tables, and the options that it sets."""

    value: Any
    overrides: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Factor:
    """A column of the tables and the levels that it takes."""

    name: str
    levels: tuple[Level, ...]
    option: str | None = None  # the one option whose value the level is; None where levels have names

    @cached_property
    def paths(self) -> set[str]:
        return {path for level in self.levels for path, _ in level.overrides}


def column_name(path: str) -> str:
    """The table column of an option: its key, with the section in front where that says more.

    >>> column_name("network.width"), column_name("feedback.normalised")
    ('width', 'feedback_normalised')
    """
    section, _, key = path.partition(".")
    return key.replace(".", "_") if section in ("network", "training", "rule") else path.replace(".", "_")


def declared_factors(study: Study, source: str) -> dict[str, tuple[Factor, ...]]:
    """The factors of every design of a study, by the design's name."""
    declared = {
        name: tuple(_factors(design.factors, f"{source}: designs.{name}")) + tuple(_listed_factors(design))
        for name, design in study.designs.items()
    }
    meanings: dict[tuple[str, str], tuple[Any, str]] = {}
    spellings: dict[tuple[str, str | None], Any] = {}
    for name, factors in declared.items():
        for factor, level in ((owner, level) for owner in factors for level in owner.levels):
            same = spellings.setdefault((factor.name, level_text(level.value)), level.value)
            if same != level.value:
                raise StudyError(
                    f"{source}: designs.{name}: {factor.name}: expected levels that differ in more than their "
                    f"spelling; got {quoted(same)} and {quoted(level.value)}, which tables cannot tell apart. Give one "
                    "spelling to what is one level, and names to what are two"
                )
            meaning = tuple(sorted((path, str(plain(value))) for path, value in level.overrides))
            known, elsewhere = meanings.setdefault((factor.name, str(level.value)), (meaning, name))
            if known != meaning:
                raise StudyError(
                    f"{source}: designs.{name}: {factor.name} = {level.value} means something else in "
                    f"designs.{elsewhere}. Give one of the two another name"
                )
    return declared


def _factors(raw: Mapping[str, Any], place: str, prefix: str = "") -> Iterator[Factor]:
    """Factors as a study writes them: `section.key = [levels]`, or a name with a table of named levels."""
    for key, value in raw.items():
        path = f"{prefix}{key}"
        section = path.split(".")[0]
        if section in SECTIONS:
            if isinstance(value, dict):
                yield from _factors(value, place, prefix=f"{path}.")
                continue
            if not isinstance(value, list) or not value or "." not in path:
                raise StudyError(f"{place}.factors.{path}: expected section.key = [level, level, …]; got {value!r}")
            yield Factor(column_name(path), tuple(Level(plain(level), ((path, level),)) for level in value), path)
        elif isinstance(value, dict) and value and all(isinstance(level, dict) for level in value.values()):
            levels = tuple(Level(level, tuple(flat(overrides).items())) for level, overrides in value.items())
            yield Factor(key, levels)
        else:
            raise StudyError(
                f'{place}.factors.{path}: expected "section.key" = [levels] with a section of {", ".join(SECTIONS)}, '
                "or a name with a "
                f'table of levels, each setting options ("network.activation" = "tanh"); got {value!r}'
            )


def _listed_factors(design: Design) -> Iterator[Factor]:
    """The options that listed cells set, each a factor."""
    values: dict[str, dict[Any, Any]] = {}
    for cell in design.cells:
        for path, value in flat(cell).items():
            values.setdefault(path, {}).setdefault(_hashable(value), value)
    for path, levels in values.items():
        levels_there = tuple(Level(plain(level), ((path, level),)) for level in levels.values())
        yield Factor(column_name(path), levels_there, path)


def _hashable(value: Any) -> Any:
    """A value that is equal to another's exactly where the two are."""
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return tuple(sorted((key, _hashable(part)) for key, part in value.items())) if isinstance(value, dict) else value


@dataclass(frozen=True)
class Cell:
    """A combination of levels: the options it sets (dotted), and the levels it was declared with."""

    overrides: dict[str, Any]
    levels: dict[str, Any]


def cells_of(design: Design, factors: tuple[Factor, ...], place: str) -> tuple[list[Cell], str]:
    """The cells of a design, and a note on what a fraction gives up."""
    _check_factors(design, factors, place)
    if design.kind == "cells":
        if not design.cells:
            raise StudyError(
                f'{place}: kind = "cells" needs at least one cell; got none. Add cells = [{{"network.width" = 32}}, …]'
            )
        return [Cell(flat(cell), {}) for cell in design.cells], ""
    if design.cells:
        raise StudyError(f'{place}: cells belong to kind = "cells"; this design is a {design.kind}')
    if design.kind == "one_at_a_time":
        alone = [_cell((factor,), (level,)) for factor in factors for level in factor.levels]
        return [Cell({}, {}), *alone], ""
    if design.kind == "fraction":
        return _fraction(design, factors, place)
    return [_cell(factors, levels) for levels in itertools.product(*(factor.levels for factor in factors))], ""


def _check_factors(design: Design, factors: tuple[Factor, ...], place: str) -> None:
    """Factors must have names and levels that tables can tell apart, and not undo one another."""
    names: set[str] = set()
    owners: dict[str, str] = {}
    for factor in factors:
        values = [level.value for level in factor.levels]
        counts = Counter(values)
        if len(counts) < len(values):
            twice = next(value for value, count in counts.items() if count > 1)
            raise StudyError(f"{place}.factors: {factor.name} names a level twice: {quoted(twice)}. Leave one out")
        if factor.name in RESERVED:
            raise StudyError(
                f'{place}.factors: "{factor.name}" is a column of the tables. Give the factor another name'
            )
        if factor.name in names:
            raise StudyError(f'{place}.factors: two factors are called "{factor.name}". Leave one out')
        names.add(factor.name)
        for path in factor.paths if design.kind in ("grid", "fraction") else ():
            other = owners.setdefault(path, factor.name)
            if other != factor.name:
                raise StudyError(f"{place}.factors: {other} and {factor.name} both set {path}. Let one of them set it")
    if design.kind == "cells" and design.factors:
        raise StudyError(f'{place}: factors belong to the other kinds; kind = "cells" lists its cells. Leave one out')


def most_cells(design: Design, factors: tuple[Factor, ...]) -> int:
    """How many cells a design has, before they are made; of a fraction, the grid that it is chosen from."""
    if design.kind == "cells":
        return len(design.cells)
    if design.kind == "one_at_a_time":
        return 1 + sum(len(factor.levels) for factor in factors)
    return math.prod(len(factor.levels) for factor in factors)


def most_runs(study: Study, seeds: int, declared: Mapping[str, tuple[Factor, ...]]) -> int:
    """How many runs a study has at most: designs that share runs count them again."""
    cells = sum(most_cells(design, declared[name]) for name, design in study.designs.items()) if study.designs else 1
    return cells * len(study.rules) * seeds


def require_few_runs(
    study: Study, seeds: tuple[int, ...], declared: Mapping[str, tuple[Factor, ...]], source: str
) -> None:
    for name, design in study.designs.items():
        if most_cells(design, declared[name]) > MOST_CELLS:
            instead = ' levels, or kind = "one_at_a_time"' if design.kind in ("grid", "fraction") else ""
            raise StudyError(f"{source}: designs.{name}: more than {MOST_CELLS:,} cells. Take fewer{instead}")
    runs = most_runs(study, len(seeds), declared)
    if runs > MOST_RUNS:
        raise StudyError(
            f"{source}: expected at most {MOST_RUNS:,} runs; got {runs:,} with {len(seeds):,} seeds and "
            f"{len(study.rules)} rules. Take fewer seeds or cells, or make several studies of it"
        )


def _cell(factors: tuple[Factor, ...], levels: tuple[Level, ...]) -> Cell:
    overrides = {path: value for level in levels for path, value in level.overrides}
    return Cell(overrides, {factor.name: level.value for factor, level in zip(factors, levels, strict=True)})


def _fraction(design: Design, factors: tuple[Factor, ...], place: str) -> tuple[list[Cell], str]:
    """A regular fraction of the two-level factors, of the highest resolution and least aberration."""
    halvings = int(design.fraction.partition("/")[2]).bit_length() - 1
    two_level = [factor for factor in factors if len(factor.levels) == 2]
    basic = len(two_level) - halvings
    if basic < 2:
        raise StudyError(
            f"{place}: a fraction of {design.fraction} needs at least {halvings + 2} factors of two levels; "
            f'got {len(two_level)}. Add factors, or use kind = "grid"'
        )
    generators = best_generators(len(two_level), halvings)
    chosen = set()
    for signs in itertools.product((0, 1), repeat=basic):
        generated = [sum(signs[i] for i in word) + len(word) + 1 for word in generators]
        chosen.add((*signs, *(value % 2 for value in generated)))
    cells = []
    for levels in itertools.product(*(enumerate(factor.levels) for factor in factors)):
        row = tuple(index for factor, (index, _) in zip(factors, levels, strict=True) if len(factor.levels) == 2)
        if row in chosen:
            cells.append(_cell(factors, tuple(level for _, level in levels)))
    words = [tuple(sorted((*word, basic + i))) for i, word in enumerate(generators)]
    resolution = len(min(defining_words(words), key=len))
    relations = ", ".join("·".join(two_level[i].name for i in word) for word in words)
    return cells, f"fraction {design.fraction} of resolution {resolution}; constant: {relations}"


def defining_words(words: list[tuple[int, ...]]) -> list[frozenset[int]]:
    """All products of a fraction's defining words: the effects that are constant over its cells."""
    products = []
    for size in range(1, len(words) + 1):
        for some in itertools.combinations(words, size):
            product: frozenset[int] = frozenset()
            for word in some:
                product = product ^ frozenset(word)
            products.append(product)
    return products


def _word_lengths(words: list[tuple[int, ...]]) -> np.ndarray:
    """The lengths of all `defining_words`, each product a pattern of bits: there are up to 2^16, and many choices."""
    products = np.zeros(1, np.uint64)
    for word in words:
        products = np.concatenate([products, products ^ np.uint64(sum(1 << factor for factor in word))])
    return np.bitwise_count(products[1:])


def best_generators(factors: int, halvings: int) -> list[tuple[int, ...]]:
    """For each generated factor, the basic factors whose product it is.

    Searches all choices for the highest resolution, then the fewest shortest words.
    """
    basic = factors - halvings
    subsets = [s for size in range(basic, 1, -1) for s in itertools.combinations(range(basic), size)]
    best: tuple[tuple[int, int], list[tuple[int, ...]]] | None = None
    for choice in itertools.islice(itertools.combinations(subsets, halvings), 200_000):
        lengths = _word_lengths([(*s, basic + i) for i, s in enumerate(choice)])
        shortest = int(lengths.min())
        score = (-shortest, int((lengths == shortest).sum()))
        if best is None or score < best[0]:
            best = (score, list(choice))
    if best is None:
        raise StudyError(
            f"a fraction of 1/{2**halvings} of {factors} two-level factors leaves too few cells. Take a larger fraction"
        )
    return best[1]


def levels_of(
    rule: str, settings: Settings, declared: dict[str, tuple[Factor, ...]], cell: Mapping[str, Any]
) -> dict[str, Any]:
    """The level of every factor of the study: that of the cell, or the one that its settings stand for.

    None where a factor does not apply, or where no level (or no single one) stands for the settings.
    """
    found: dict[str, Any] = {}
    for factor in (factor for factors in declared.values() for factor in factors):
        if not reads_feedback(rule, settings) and all(
            path.split(".")[0] == "feedback" or path == "streams.feedback" for path in factor.paths
        ):
            found[factor.name] = None
        elif factor.paths and all(
            path.startswith("rule.") and path[5:] not in settings.rule.written for path in factor.paths
        ):
            found[factor.name] = None  # no option of this rule
        elif factor.option is not None:
            found[factor.name] = plain(_option(settings, factor.option))
        elif factor.name in cell:
            found[factor.name] = cell[factor.name]
        elif found.get(factor.name) is None:
            found[factor.name] = _standing_for(settings, factor)
    return found


def reads_feedback(rule: str, settings: Settings) -> bool:
    """Whether a run depends on its feedback options: pre-aligned weights are made from the feedback of the pair."""
    return rule not in WITHOUT_FEEDBACK or settings.network.initialisation == "pre_aligned"


def _standing_for(settings: Settings, factor: Factor) -> Any:
    """The most specific level whose options are all those of the settings; None on a tie."""
    matching = [level for level in factor.levels if all(_same(_option(settings, p), v) for p, v in level.overrides)]
    most = max((len(level.overrides) for level in matching), default=0)
    best = [level.value for level in matching if len(level.overrides) == most]
    return best[0] if len(best) == 1 else None


def _option(settings: Settings, path: str) -> Any:
    section, _, key = path.partition(".")
    return getattr(getattr(settings, section), key, None)


def _same(option: Any, written: Any) -> bool:
    return bool(plain(option) == plain(written))


def plain(value: Any) -> Any:
    """A level as a table holds it: lists become text, a missing option stays missing."""
    if isinstance(value, list | tuple):
        return "-".join(str(plain(item)) for item in value)
    if hasattr(value, "model_dump"):
        value = value.model_dump(exclude_unset=True)
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def cell_text(levels: Mapping[str, Any]) -> str:
    """A cell in words: its factors and their levels."""
    return ", ".join(f"{name}={value}" for name, value in levels.items() if value is not None)


def flat(raw: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys: {"network": {"width": 8}} → {"network.width": 8}."""
    found: dict[str, Any] = {}
    for key, value in raw.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path in SECTIONS:
            found.update(flat(value, f"{path}."))
        else:
            found[path] = value
    return found
