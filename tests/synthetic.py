"""Records with a known truth, made without training anything."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pandas as pd

from alignkit.columns import CHECKPOINTS, FROM_PLAN, LAYERS, MEASURE_COLUMNS, RUNS
from alignkit.records.store import Records
from alignkit.study.study import Study

PRACTICES: dict[str, list[Any]] = {
    "network.activation": ["tanh", "relu"],
    "network.norm": ["none", "batch"],
    "network.dropout": [0.0, 0.1],
    "feedback.normalised": [False, True],
    "network.width": [32, 128],
    "network.depth": [2, 3],
    "network.initialisation": ["pytorch", "orthogonal"],
}
FEEDBACK_RULES = ("dfa", "fa")
FINAL_ANGLE = 66.0


def column(path: str) -> str:
    section, _, key = path.partition(".")
    return key if section in ("network", "training") else path.replace(".", "_")


def half_fraction(factors: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """The 2^(k-1) fraction in which the number of second levels is even."""
    cells = []
    for picks in itertools.product((0, 1), repeat=len(factors)):
        if sum(picks) % 2 == 0:
            cells.append({path: levels[pick] for (path, levels), pick in zip(factors.items(), picks, strict=True)})
    return cells


def grid(factors: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())]


def synthetic_study(**options: Any) -> Study:
    claims = [{"response": "signal_angle_deg", **claim} for claim in options.pop("claims", ())]
    return Study.parse({"name": "synthetic", **options, **({"claims": claims} if claims else {})})


def synthetic_records(
    *,
    designs: dict[str, list[dict[str, Any]]] | None = None,
    study: dict[str, Any] | None = None,
    angle_effects: dict[str, float] | None = None,
    accuracy_effects: dict[str, float] | None = None,
    rules: tuple[str, ...] = ("bp", "dfa"),
    seeds: int = 10,
    seed_sd: float = 1.5,
    seed_by_factor_sd: float = 0.5,
    residual_sd: float = 1.0,
    steps: tuple[int, ...] = (0, 1, 4, 16, 45, 90, 180, 360),
    measures: tuple[str, ...] = MEASURE_COLUMNS,
    diverge: tuple[tuple[str, Any], ...] = (),
    regression: bool = False,
    rates: dict[Any, float] | None = None,
    noise: int = 0,
) -> Records:
    """A study's records in which the true effects are known.

    `designs` lists cells by design, as {option path: level}; every cell has every factor. Going from the
    first to another level of a factor moves the final DFA angle by `angle_effects[path]` degrees (per
    doubling for the width), and test accuracy by `accuracy_effects[path]` points, plus a deviation of the
    seed's own (`seed_by_factor_sd`), plus noise of the run (`residual_sd`). `diverge` names (path, level)
    pairs at which seeds 0 and 1 diverge; `rates` maps a level to the run's learning rate.
    """
    generator = np.random.default_rng(noise)
    nothing, chosen = dict.fromkeys(MEASURE_COLUMNS, float("nan")), frozenset(measures)
    no_evaluation = dict.fromkeys(CHECKPOINTS, float("nan"))
    designs = {"practices": half_fraction(PRACTICES)} if designs is None else designs
    angle_effects = angle_effects or {}
    accuracy_effects = accuracy_effects or {}
    paths = list(dict.fromkeys(path for cells in designs.values() for cell in cells for path in cell))
    base = {path: next(cell[path] for cells in designs.values() for cell in cells if path in cell) for path in paths}
    own = synthetic_study(rules=rules, seeds=seeds, **(study or {}))
    seed_angle = generator.normal(0, seed_sd, seeds)
    seed_effect = {path: generator.normal(0, seed_by_factor_sd, seeds) for path in paths}

    runs: dict[str, dict[str, Any]] = {}
    layer_rows: list[dict[str, Any]] = []
    checkpoint_rows: list[dict[str, Any]] = []
    for name, cells in designs.items():
        for cell, rule, seed in itertools.product(cells, rules, range(seeds)):
            full = {**base, **cell}
            with_feedback = rule in FEEDBACK_RULES
            levels = {
                column(path): level if with_feedback or not path.startswith("feedback.") else None
                for path, level in full.items()
            }
            text = ", ".join(f"{key}={level}" for key, level in levels.items() if level is not None)
            run_id = f"{rule}|{text}|{seed}"
            bp_text = ", ".join(f"{column(p)}={v}" for p, v in full.items() if not p.startswith("feedback."))
            if run_id in runs:
                if name not in runs[run_id]["designs"].split("+"):
                    runs[run_id]["designs"] += f"+{name}"
                continue
            shift = accuracy_shift = 0.0
            for path, level in full.items():
                size = np.log2(level / base[path]) if path == "network.width" else float(level != base[path])
                shift += size * (angle_effects.get(path, 0.0) + seed_effect[path][seed])
                accuracy_shift += size * accuracy_effects.get(path, 0.0)
            diverged = with_feedback and seed < 2 and any(full.get(path) == level for path, level in diverge)
            angle = FINAL_ANGLE + seed_angle[seed] + shift + generator.normal(0, residual_sd)
            accuracy = 0.94 + (accuracy_shift - (2.0 if with_feedback else 0.0) + generator.normal(0, 0.4)) / 100
            if rule == "shallow":
                accuracy -= 0.2
            accuracy = float("nan") if regression or diverged else min(accuracy, 1.0)
            runs[run_id] = {
                "run_id": run_id, "study": own.name, "rule": rule, "cell": text, "designs": name,
                "bp_run_id": f"bp|{bp_text}|{seed}" if "bp" in rules else "", "seed": seed, "held_out": False, **levels,
                "train_accuracy": accuracy + 0.02, "validation_accuracy": accuracy, "test_accuracy": accuracy,
                "train_loss": float("nan") if diverged else 0.1, "validation_loss": 0.2, "test_loss": 0.2,
                "lr": (rates or {}).get(levels.get("norm"), 0.1), "output_lr": 0.1, "diverged": diverged,
                "diverged_step": 40 if diverged else None, "steps": steps[-1], "parameters": 10_000,
            }  # fmt: skip
            width, depth = int(full.get("network.width", 64)), int(full.get("network.depth", 2))
            for step in steps:
                dead = diverged and step >= 40
                progress = 1 - np.exp(-step / 60)
                found = {"run_id": run_id, "step": step, "epoch": step / 45, "mode": "batch", "output_cosine": 1.0}
                checkpoint_rows.append(no_evaluation | found)
                for layer in range(1, depth + 1):
                    target = 85.0 if rule == "bp" else angle + 3.0 * (layer - (depth + 1) / 2)
                    degrees = 90 - (90 - target) * progress + generator.normal(0, 0.2)
                    defined = not dead and rule != "shallow"
                    values = _measures(degrees, step, width) if defined else {}
                    layer_rows.append(
                        {
                            "run_id": run_id, "step": step, "epoch": step / 45, "mode": "batch", "layer": layer,
                            "layer_name": f"linear{layer}", "width": width,
                            "signal": "bystander" if rule == "bp" else "teaching",
                            **nothing, **{name: value for name, value in values.items() if name in chosen},
                            "undefined": 0 if defined else 128,
                        }
                    )  # fmt: skip
    factors = [column(path) for path in paths]
    names = list(RUNS)
    cut = names.index("held_out") + 1
    table = pd.DataFrame(list(runs.values())).reindex(columns=[*names[:cut], *factors, *names[cut:]])
    table["diverged_step"] = table["diverged_step"].astype("Int64")
    table["replicate"], table["bp_replicate"] = table["run_id"], table["bp_run_id"]
    return Records(
        study=own,
        runs=table,
        checkpoints=pd.DataFrame(checkpoint_rows, columns=list(CHECKPOINTS)),
        layers=pd.DataFrame(layer_rows, columns=list(LAYERS)),
        factors=tuple(factors),
    )


def unfinished_records(records: Records, gone: pd.Series) -> Records:
    """The records as they would be had these runs not finished yet."""
    left = records.runs[~gone].reset_index(drop=True)
    layers, checkpoints = (
        table[table["run_id"].isin(left["run_id"])].reset_index(drop=True)
        for table in (records.layers, records.checkpoints)
    )
    planned = [*(name for name in RUNS if name in FROM_PLAN or name == "run_id"), *records.factors]
    unfinished = records.runs.loc[gone, planned].reset_index(drop=True)
    return dataclasses.replace(
        records, runs=left, layers=layers, checkpoints=checkpoints, unfinished=unfinished, missing=len(unfinished)
    )


def _measures(degrees: float, step: int, width: int) -> dict[str, float]:
    cosine = float(np.cos(np.radians(degrees)))
    return {
        "signal_cosine": cosine, "signal_cosine_sd": 0.1, "signal_angle_deg": degrees, "delta_cosine": cosine,
        "gradient_cosine": cosine, "step_cosine": cosine if step else float("nan"), "weight_cosine": cosine / 2,
        "jacobian_cosine": cosine / 2, "ceiling_cosine": min(1.0, 0.5 + 4 / width), "chance_z": cosine * 10,
        "chance_p": 0.5, "signal_gain": 1.0, "projection": cosine, "gate": 0.8, "common_mode": 0.1,
        "update_ratio": 0.001 if step else float("nan"), "effective_rank": 5.0,
    }  # fmt: skip


def full_study() -> Records:
    """Like the quick study: seven practices in a half fraction, a width curve, claims of all kinds."""
    claim = {"smallest_effect": 1.0, "direction": "decrease", "design": "practices"}
    claims = [
        {"name": "norm", "statement": "Batch normalisation aligns", "practice": "Normalise the hidden layers",
         "factor": "norm", "levels": ["none", "batch"], **claim},
        {"name": "activation", "statement": "ReLU aligns better than tanh", "practice": "Prefer ReLU to tanh",
         "factor": "activation", "levels": ["tanh", "relu"], **claim},
        {"name": "dropout", "statement": "Dropout aligns", "practice": "Use dropout",
         "factor": "dropout", "levels": [0.0, 0.1], **claim, "smallest_effect": 2.0},
        {"name": "feedback", "statement": "Normalised feedback aligns", "practice": "Normalise the feedback",
         "factor": "feedback_normalised", "levels": [False, True], **claim},
        {"name": "width", "statement": "Wider is more accurate", "practice": "Use wide layers", "factor": "width",
         "levels": [32, 128], "response": "accuracy_gap", **claim, "direction": "increase", "smallest_effect": 0.5},
        {"name": "depth", "statement": "Depth matters to the angle", "factor": "depth", "levels": [2, 3], **claim,
         "direction": "increase", "family": "exploratory", "smallest_effect": 0.1},
    ]  # fmt: skip
    base = {path: levels[0] for path, levels in PRACTICES.items()}
    designs = {
        "practices": half_fraction(PRACTICES),
        "width_curve": [{**base, "network.width": width} for width in (8, 16, 32, 64, 128, 256)],
    }
    sections: dict[str, Any] = {
        "title": "Which practices help direct feedback alignment? <synthetic>",
        "description": "A synthetic study: no network was trained.",
        "claims": claims,
        "designs": {
            "practices": {"kind": "fraction", "factors": PRACTICES},
            "width_curve": {"factors": {"network.width": [8, 16, 32, 64, 128, 256]}},
        },
        "pilot": {"lr": [0.03, 0.1]},
    }
    return synthetic_records(
        designs=designs,
        study=sections,
        angle_effects={"network.norm": -6.0, "network.activation": 4.0, "network.width": -1.5, "network.dropout": 0.3},
        accuracy_effects={"network.norm": 1.0, "network.width": 0.3},
        rates={"batch": 0.03},
        diverge=(("network.width", 256),),
    )
