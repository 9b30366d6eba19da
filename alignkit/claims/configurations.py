"""Whole networks, not single practices: which of a design's cells may be the best, and what they have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from alignkit.claims.effects import crossed_streams, varying_factors
from alignkit.claims.tables import UNFINISHED, as_not_aligned
from alignkit.columns import better_side, label_of, unit_of
from alignkit.display import block, head_html, table_html
from alignkit.records.rows import layers_of, rows_of, summarised
from alignkit.records.store import Records
from alignkit.stats.contrasts.best_set import BestSet, CommonLevels, best_set, common_levels, in_words
from alignkit.stats.tables.levels import cell_column, level_column, level_order, numeric_levels
from alignkit.text import count, rule_name, sized

ALIGNMENTS = ("gradient_angle_deg", "signal_angle_deg", "delta_angle_deg", "signal_cosine", "delta_cosine")
"""What alignment is judged by: the first of these that was recorded."""
ACCURACY = "test_accuracy"
NOT_RANKED = frozenset({"bp", "shallow", "imposed_angle"})
LEAST_CELLS = 3
MARGINS = {"°": 2.0, "points": 1.0}
"""How near to the best is near enough on held-out seeds, where no claim of the study says so."""
MOST_NAMED = 12


@dataclass(frozen=True)
class Ranking:
    """The cells of a design by one response: which may be the best, what these share, and what held-out seeds say.

    `inside` says of how many members the held-out mean is within `margin` of the best held-out one; `best_inside`
    whether that best one is a member; both None without held-out seeds.
    """

    response: str
    found: BestSet
    common: CommonLevels | None
    margin: float
    inside: int | None = None
    best_inside: bool | None = None
    n_held_out: int = 0

    @property
    def size(self) -> int:
        return int(self.found.members.sum())

    @property
    def decides(self) -> bool:
        """Whether any cell was left out."""
        return self.size < len(self.found.members)


@dataclass(frozen=True)
class Configurations:
    """The cells of one rule in one design, ranked by alignment and by test accuracy.

    `levels` has one row per cell and a column per factor that varies. `both` marks the cells that may be the best in
    alignment and may be the best in accuracy: the intersection of two 95% sets, so that a cell which is best in both
    is in it with a chance of at least 90%. It may be empty; then no cell is likely to be best in both.
    """

    design: str
    rule: str
    n_seeds: int
    levels: pd.DataFrame
    rankings: tuple[Ranking, ...]
    common_of_both: CommonLevels | None
    warnings: tuple[str, ...] = ()

    @property
    def both(self) -> np.ndarray | None:
        if len(self.rankings) < 2:
            return None
        return np.logical_and.reduce([ranking.found.members for ranking in self.rankings])

    @property
    def names(self) -> list[str]:
        """Each cell in words: its levels of the factors that vary."""
        words = self._words()
        return [", ".join(words[str(f), str(v)] for f, v in row.items()) for _, row in self.levels.iterrows()]

    def to_frame(self) -> pd.DataFrame:
        """One row per cell: its levels, and for each response its mean, how far behind, the p of being the best."""
        frame = pd.DataFrame({"design": self.design, "rule": self.rule}, index=self.levels.index).join(self.levels)
        for ranking in self.rankings:
            name, found = ranking.response, ranking.found
            frame[name], frame[f"{name}_behind"] = found.means, found.behind
            frame[f"{name}_p_best"], frame[f"{name}_may_be_best"] = found.p, found.members
        if self.both is not None:
            frame["both_may_be_best"] = self.both
        return frame.assign(n_seeds=self.n_seeds)

    def __repr__(self) -> str:
        return f"Configurations({self.design}, {rule_name(self.rule)}: {' '.join(self.sentences())})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        marked = [name for name in frame if str(name).endswith("_may_be_best")]
        shown = frame[frame[marked].any(axis=1)].drop(columns=["design", "rule", "n_seeds"])
        head = head_html("Configurations", f"{self.design}, {rule_name(self.rule)}")
        return block(head, table_html(shown), notes=[*self.sentences(), *self.warnings])

    def sentences(self) -> list[str]:
        """What may be said: the set by each response, by both, and what held-out seeds say of it."""
        found = [sentence for ranking in self.rankings for sentence in self._of(ranking)]
        both = self.both
        if both is None or not all(ranking.decides for ranking in self.rankings):
            return found
        n = int(both.sum())
        if not n:
            return [*found, "None of them may be the best in both."]
        which = self._which(both, self.common_of_both)
        verb = "may be the best in both" if n > 1 else "may be the best one in both"
        return [*found, f"{n} of them {verb} (at least 90%): {which}."]

    def _of(self, ranking: Ranking) -> list[str]:
        cells, n = len(self.levels), ranking.size
        by = "best aligned" if ranking.response != ACCURACY else "most accurate"
        if not ranking.decides:
            return [f"Any of the {cells} networks may be the {by}: {count(self.n_seeds, 'seed')} leave none out."]
        which = self._which(ranking.found.members, ranking.common)
        said = [f"Of {cells} networks, {n} may be the {by} (95%): {which}."]
        if ranking.inside is not None:
            near = sized(ranking.margin, unit_of(ranking.response))
            own = (
                "it is" if n == 1 and ranking.inside else "it is not" if n == 1 else f"{ranking.inside} of the {n} are"
            )
            said.append(
                f"On {count(ranking.n_held_out, 'held-out seed')} {own} within {near} of the best one there, which is "
                f"{'' if ranking.best_inside else 'not '}among them."
            )
        return said

    def _which(self, members: np.ndarray, common: CommonLevels | None) -> str:
        chosen = [name for name, member in zip(self.names, members, strict=True) if member]
        if common is not None and len(chosen) > 1:
            condition = in_words(common, self._words())
            if common.matching == common.members:
                return f"the ones with {condition}"
            others = common.matching - common.members
            return f"all of them have {condition}, as {'has 1 other' if others == 1 else f'have {others} others'}"
        more = len(chosen) - MOST_NAMED
        return "; ".join(chosen[:MOST_NAMED]) + (f"; and {more} more, which the table lists" if more > 0 else "")

    def _words(self) -> Mapping[tuple[str, str], str]:
        return {(str(f), v): word for f in self.levels for v, word in _level_words(str(f), self.levels[f]).items()}


def _level_words(factor: str, levels: pd.Series) -> dict[str, str]:
    """Each level in words: its own where all levels of the factor are names, else with the factor's before it."""
    distinct = level_order(levels)
    says_itself = numeric_levels(distinct) is None and not {"none", "true", "false"} & set(distinct)
    return {text: text if says_itself else f"{factor.replace('_', ' ')} {text}" for text in distinct}


def configurations(records: Records) -> list[Configurations]:
    """Which cells of each design may be the best, for each rule that has several to choose from.

    A cell's value under a seed is its final one, of a replicate: with tuning, what the seed's own rates gave. A run
    that failed counts as one that did not align and did not learn. Designs that cross draws of randomness have no
    cells to choose from and are left out, and so are designs of fewer than three cells.
    """
    if "configurations" not in records.memo:
        found = []
        for design in dict.fromkeys(name for names in records.runs["designs"] for name in str(names).split("+")):
            for rule in records.study.rules:
                if rule not in NOT_RANKED and not crossed_streams(records, rule=rule, design=design):
                    found += [one] if (one := _of_design(records, design, rule)) is not None else []
        records.memo["configurations"] = found
    return list(records.memo["configurations"])


def _of_design(records: Records, design: str, rule: str) -> Configurations | None:
    factors = varying_factors(records, rule=rule, design=design)
    if not factors:
        return None
    rankings, cells = [], pd.DataFrame()
    for response in _responses(records, rule):
        values, cells = _values(records, response, rule, design, factors)
        if len(cells) < LEAST_CELLS or not np.isfinite(values.to_numpy(float)).any():
            continue
        rankings.append(_ranking(records, response, rule, design, factors, values, cells))
    if not rankings:
        return None
    both = np.logical_and.reduce([ranking.found.members for ranking in rankings])
    return Configurations(
        design, rule, rankings[0].found.n_seeds, cells, tuple(rankings),
        common_levels(cells, both) if len(rankings) > 1 else None,
        tuple(dict.fromkeys(f"{label_of(one.response)}: {note}" for one in rankings for note in one.found.warnings)),
    )  # fmt: skip


def _responses(records: Records, rule: str) -> list[str]:
    runs = records.runs.loc[records.runs["rule"] == rule, "run_id"]
    layers = layers_of(records)
    rows = layers[layers["run_id"].isin(runs)]
    alignment = next((name for name in ALIGNMENTS if name in rows and rows[name].notna().any()), None)
    return [*([alignment] if alignment else []), ACCURACY]


def _values(
    records: Records, response: str, rule: str, design: str, factors: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Values [seed, cell] and the cells' levels; NaN where a planned run has none."""
    table = as_not_aligned(rows_of(summarised(records, response), rule=rule, design=design), response)
    if records.unfinished is not None and len(records.unfinished):
        waiting = rows_of(records.unfinished, rule=rule, design=design)
        if len(waiting):
            table = pd.concat([table, waiting.assign(value=float("nan"), missing=UNFINISHED)], ignore_index=True)
    key = cell_column(table, factors)
    order = list(dict.fromkeys(key))
    wide = table.assign(cell_=key).pivot_table(index="seed", columns="cell_", values="value", dropna=False)
    seeds = sorted(table["seed"].unique())
    first = ~key.duplicated()
    cells = pd.DataFrame({name: level_column(table.loc[first, name]).map(str) for name in factors})
    return wide.reindex(index=seeds, columns=order), cells.reset_index(drop=True)


def _ranking(
    records: Records, response: str, rule: str, design: str, factors: Sequence[str], values: pd.DataFrame,
    cells: pd.DataFrame,
) -> Ranking:  # fmt: skip
    found = best_set(values.to_numpy(float), better="lower" if better_side(response) == "lower" else "higher")
    margin = _margin(records, response)
    ranking = Ranking(response, found, common_levels(cells, found.members), margin)
    apart = records.held_out
    if apart is None or not len(rows_of(apart.runs, rule=rule, design=design)):
        return ranking
    held, _ = _values(apart, response, rule, design, factors)
    means = held.reindex(columns=values.columns).to_numpy(float).mean(axis=0)
    sign = -1.0 if better_side(response) == "lower" else 1.0
    if not np.isfinite(means).all():
        return ranking
    behind = (sign * means).max() - sign * means
    inside = int((behind[found.members] <= margin).sum())
    return Ranking(
        response, found, ranking.common, margin, inside, bool(found.members[int(behind.argmin())]), len(held)
    )


def _margin(records: Records, response: str) -> float:
    """The smallest effect that a claim of the study calls one that matters, in the response's unit."""
    unit = unit_of(response)
    own = [claim.smallest_effect for claim in records.study.claims if unit and unit_of(claim.response) == unit]
    return min(own, default=MARGINS.get(unit, 0.02))


def configuration_entries(records: Records) -> list[dict[str, Any]]:
    """The same for recommendations.json: one entry for each design and rule, ready for JSON."""
    return [_entry(one) for one in configurations(records)]


def _entry(one: Configurations) -> dict[str, Any]:
    return {
        "practice": f"Choose a whole network ({one.design.replace('_', ' ')}, {rule_name(one.rule)})",
        "kind": "configurations",
        "design": one.design,
        "rule": one.rule,
        "summary": " ".join(one.sentences()),
        "n_seeds": one.n_seeds,
        "networks": len(one.levels),
        "level": 0.95,
        "may_be_best": {
            **{ranking.response: _members(one.levels, ranking.found.members) for ranking in one.rankings},
            **({"both": _members(one.levels, one.both)} if one.both is not None else {}),
        },
        "common_levels": {
            **{ranking.response: _common(ranking.common) for ranking in one.rankings},
            **({"both": _common(one.common_of_both)} if one.both is not None else {}),
        },
        "held_out": {
            ranking.response: {
                "n_seeds": ranking.n_held_out, "margin": ranking.margin, "within_margin": ranking.inside,
                "named": ranking.size, "best_is_named": ranking.best_inside,
            }
            for ranking in one.rankings if ranking.inside is not None
        },
        "caveats": list(one.warnings),
    }  # fmt: skip


def _members(levels: pd.DataFrame, members: np.ndarray | None) -> list[dict[str, str]]:
    return (
        []
        if members is None
        else [{str(k): str(v) for k, v in row.items()} for row in levels[members].to_dict("records")]
    )


def _common(common: CommonLevels | None) -> dict[str, Any] | None:
    if common is None:
        return None
    terms = [[{"factor": factor, "level": text} for factor, text in term] for term in common.terms]
    return {"all_of_any_of": terms, "matching": common.matching, "members": common.members, "share": common.share}


def configurations_markdown(records: Records) -> str:
    """The same for recommendations.md: a heading and a paragraph for each design and rule; empty where none is."""
    entries = configuration_entries(records)
    if not entries:
        return ""
    lines = ["", "## Which configurations may be the best", ""]
    lines += [f"- **{entry['practice']}**: {entry['summary']}" for entry in entries]
    return "\n".join(lines) + "\n"
