"""How it was measured, and what to be wary of: the part of a report that a referee reads first."""

from __future__ import annotations

import contextlib
from importlib import metadata
from math import isfinite

import numpy as np

from alignkit import __version__
from alignkit.claims.analysis import Analysis
from alignkit.columns import GAP, LAYERS, label_of, meaning_of
from alignkit.settings.data import Images
from alignkit.settings.study_options import Settings
from alignkit.stats.contrasts.arrays import EXACT_UP_TO
from alignkit.stats.contrasts.paired import minimum_seeds
from alignkit.study.defects import defects
from alignkit.study.toml_text import toml_text
from alignkit.study.tuning import Tuning
from alignkit.text import count, listed, number, rule_name, sizes

ANALYSED_WITH = ("numpy", "pandas", "scipy", "statsmodels", "matplotlib")


def facts(analysis: Analysis) -> list[tuple[str, str]]:
    """Term and description: data, network, training, feedback, probe, seeds, rates, statistics."""
    study, missing = analysis.study, analysis.missing
    seeds = listed(map(str, study.seed_list)) if len(study.seed_list) <= 4 else _range(study.seed_list)
    found = [
        ("Data", _data(study)),
        ("Network", _network(analysis)),
        ("Training", _training(study)),
        ("Learning rates", _rates(analysis)),
        ("Rules", listed(map(rule_name, study.rules))),
        ("Feedback", _feedback(study, analysis.factors)),
        ("Designs", "; ".join(_design(analysis, design) for design in analysis.designs)),
        (
            "Seeds",
            f"{seeds}: the unit of replication. The runs of one cell and seed share initial weights, batch order, "
            "dropout masks and probe samples",
        ),
        ("Probe", _probe(analysis)),
        ("Tests", _tests(analysis)),
        *([("Trained with", text)] if (text := _trained_with(analysis)) else []),
        ("Analysed with", _versions()),
    ]
    if missing:
        have = "has" if missing == 1 else "have"
        worst = "; verdicts take the worst case over what is still missing" if analysis.verdicts else ""
        text = f"{count(missing, 'planned run')} {have} no records yet: all here is preliminary{worst}"
        found.insert(0, ("Incomplete", text))
    named = ("Designs", "Trained with", "Analysed with")
    return [(term, text if term in named else text[:1].upper() + text[1:]) for term, text in found]


def definitions(analysis: Analysis) -> list[tuple[str, str]]:
    """The recorded measures and their definitions."""
    kinds = [name for name in LAYERS if LAYERS[name][0] == "float64" and name != "epoch"]
    own = [name for name in analysis.measures if name not in LAYERS]
    return [(name, meaning_of(name)) for name in (*kinds, *own) if analysis.recorded(name)]


def diagnostics(analysis: Analysis) -> list[str]:
    """Sentences on missing values, pairing, undefined samples and the self-test."""
    runs, study = analysis.every_run, analysis.study
    found = []
    diverged = int(runs["diverged"].fillna(False).astype(bool).sum())
    found.append(
        f"{count(diverged, 'run')} of {len(runs):,} diverged."
        + (
            " What is left when runs diverge at one level of a factor and not at another may be biased."
            if diverged
            else ""
        )
    )
    for response in (analysis.alignment, GAP if "bp" in study.rules else None):
        if response is None:
            continue
        table = analysis.final(response)
        table = table[table["rule"].isin(analysis.rules)]
        reasons = table.loc[~table["missing"].isin(["", "is the reference itself"]), "missing"].value_counts()
        if len(reasons):
            reasons = reasons.sort_index()
            text = listed(f"{reason} in {count(int(n), 'run')}" for reason, n in reasons.items())
            found.append(
                f"The {label_of(response)} has no final value: {text}. What would have been compared with these runs "
                "is left out too, and counted where it is."
            )
    undefined = analysis.layers["undefined"].fillna(0)
    layers = analysis.layers[undefined > 0]
    if len(layers):
        found.append(
            f"{count(int(undefined.sum()), 'sample')} had a zero vector in one of the two places compared "
            f"({count(int(layers['run_id'].nunique()), 'run')}); they are excluded, never scored."
        )
    output = analysis.checkpoints["output_cosine"].dropna()
    if len(output) and "two modes" in defects(study):
        found.append(
            f"The output layer's gradients in the two modes have cosines down to {number(float(output.min()), 3)}, "
            "where one pass would give 1: so much of every angle is the measurement's own."
        )
    elif len(output):
        worst = float(np.abs(1 - output).max())
        how = "exactly" if worst == 0 else f"to {worst:.0e} of a cosine of 1"
        found.append(f"Self-test: the output layer's gradient agrees with autograd's {how}, at every checkpoint.")
    correlations = [verdict.pairing_correlation for verdict in analysis.verdicts]
    known = [value for value in correlations if np.isfinite(value)]
    if known:
        span = number(known[0], 2) if len(known) == 1 else f"{number(min(known), 2)} to {number(max(known), 2)}"
        found.append(f"Pairing by seed: the two sides of the claims' comparisons correlate by {span} over seeds.")
    return found


def options(analysis: Analysis) -> str:
    """The study file's options that differ from the defaults, as TOML."""
    return toml_text(analysis.study.model_dump(mode="json", exclude_defaults=True))


def _data(study: Settings) -> str:
    data = study.data
    text = {
        "digits": "digits: 1,797 grey images of 8 x 8 pixels in 10 classes (scikit-learn)",
        "teacher": "teacher: synthetic inputs, labelled by a random network",
        "images": "images from a local folder",
    }.get(data.name, f"a source of the study's own, {data.name}")
    if isinstance(data, Images):
        text += f" ({data.path.rstrip('/').split('/')[-1]})"
    return text + ("; labels shuffled, as a control" if data.shuffle_labels else "")


def _network(analysis: Analysis) -> str:
    network = analysis.study.network
    layers = analysis.layers
    widths, depths = sorted(layers["width"].unique()), sorted(layers.groupby("run_id")["layer"].max().unique())
    parts = [network.kind.upper()]
    if len(layers):
        parts.append(f"{sizes(depths)} hidden layers of {sizes(widths)} units")
    fixed = {
        "activation": network.activation,
        "norm": "" if network.norm == "none" else f"{network.norm} norm",
        "dropout": f"dropout {network.dropout:g}" if network.dropout else "",
        "initialisation": f"{network.initialisation.replace('_', '-')} initialisation",
        "frozen": f"{network.frozen:.0%} of hidden weights frozen" if network.frozen else "",
        "signal_masked": f"{network.signal_masked:.0%} of signals masked" if network.signal_masked else "",
    }
    parts += [text for name, text in fixed.items() if text and name not in analysis.factors]
    return ", ".join(parts)


def _training(study: Settings) -> str:
    training = study.training
    optimiser = "SGD" if training.optimiser == "sgd" else "Adam"
    text = f"{count(training.epochs, 'epoch')}, batches of {training.batch_size}, {optimiser}"
    text += f" with momentum {training.momentum:g}" if training.momentum else ""
    text += f", {training.loss.replace('_', ' ')}, {training.dtype}"
    if training.matmul_precision != "float32":
        text += f" (products in training steps of {training.matmul_precision} factors)"
    return text + (", updates at the length of BP's" if training.update == "norm_matched" else "")


def _rates(analysis: Analysis) -> str:
    study, runs = analysis.study, analysis.every_run
    spans = []
    for rule in study.rules:
        rates = runs.loc[runs["rule"] == rule, "lr"].dropna()
        if len(rates):
            low, high = rates.min(), rates.max()
            spans.append(f"{rule_name(rule)} {low:g}" + (f" to {high:g}" if high > low else ""))
    how = "as the study sets them, the same for every arm unless it is a factor: nothing was tuned"
    if study.pilot is not None:
        how = (
            f"tuned arm by arm in a pilot, among {listed(f'{rate:g}' for rate in study.pilot.lr)}, on the validation "
            f"split and on seeds of its own ({listed(map(str, study.pilot.seeds))})"
        )
    if study.tuning is not None:
        how = _tuned(study.tuning)
    return f"{how}. Hidden layers: {listed(spans)}" if spans else how


def _tuned(tuning: Tuning) -> str:
    """How each seed chose its rates, and which run is shown over training."""
    grids = [f"{listed(f'{rate:g}' for rate in tuning.lr)}"]
    grids += [
        f"{listed(f'{rate:g}' for rate in rates)} under {rule_name(rule)}" for rule, rates in tuning.rules.items()
    ]
    output = (
        "the output layer's rate is that of the hidden ones"
        if tuning.output_lr is None
        else (f"the output layer's rate is {tuning.output_lr:g} throughout")
    )
    counts = (
        "a seed's number is its mean over the rates whose validation accuracy is within one standard error, "
        "√(a(1 \N{MINUS SIGN} a)/n), of its best a"
    )
    if tuning.epochs is not None:
        counts = f"the grid trains for {count(tuning.epochs, 'epoch')}, and each seed then in full at its best rate"
    grow = (
        f"a grid whose edge is best grows by up to {count(tuning.extend, 'rate')} a side"
        if tuning.extend
        else ("no grid grows")
    )
    shown = "" if tuning.trajectory_lr is None else f"; courses over training are those at {tuning.trajectory_lr:g}"
    return (
        f"part of the experiment: every arm trains at {listed(grids)} under every seed, and each seed tunes itself by "
        f"its own validation accuracy ({counts}; {grow}; {output}{shown})"
    )


def _feedback(study: Settings, factors: tuple[str, ...]) -> str:
    feedback = study.feedback
    parts = [
        feedback.law,
        "one matrix sliced for all layers" if feedback.sharing == "sliced" else "one matrix per layer",
    ]
    if "feedback_normalised" not in factors:
        parts.append("normalised" if feedback.normalised else "not normalised")
    if feedback.rank is not None and "feedback_rank" not in factors:
        parts.append(f"of rank {feedback.rank}")
    if feedback.points is not None and "feedback_points" not in factors:
        parts.append(f"entering at hidden layers {listed(map(str, feedback.points))} alone")
    return ", ".join(parts + ([f"times {feedback.scale:g}"] if feedback.scale != 1 else []))


def _design(analysis: Analysis, design: str) -> str:
    declared = analysis.study.designs.get(design)
    cells = analysis.n_cells(design, (analysis.rules or tuple(analysis.study.rules))[0])
    kind = (
        {"one_at_a_time": "one factor at a time", "cells": "listed cells"}.get(declared.kind, declared.kind)
        if declared
        else ""
    )
    if declared and declared.kind == "fraction":
        kind = f"{declared.fraction} fraction"
    return (
        f"{design} ({kind + ', ' if kind else ''}{count(cells, 'cell')}, "
        f"{count(len(analysis.runs_of(design=design)), 'run')})"
    )


def _probe(analysis: Analysis) -> str:
    probe = analysis.study.probe
    modes = listed(sorted(map(str, analysis.checkpoints["mode"].dropna().unique())))
    explained = {
        "batch": "the probe batch's own normalisation statistics, dropout off",
        "eval": "evaluation mode",
        "train": "training mode",
    }.get(modes, "")
    steps = analysis.layers["step"].nunique()
    when = count(int(steps), "checkpoint")
    text = f"the same {probe.samples} samples of the {probe.split} split for every run, at {when}"
    text += (f"; mode {modes}" if modes else "") + (f" ({explained})" if explained else "")
    others = analysis.other_modes
    at = " at the end" if probe.modes_at == "end" else ""
    return text + (f"; mode {listed(others)} as well{at}, for what names it" if others else "")


def _tests(analysis: Analysis) -> str:
    verdicts = analysis.verdicts
    text = (
        f"one difference per seed, averaged over the cells of a design; sign-flip p, exact up to {EXACT_UP_TO} seeds; "
        "t interval (95%, not adjusted)"
    )
    if not verdicts:
        return text
    text += "; equivalence by two one-sided t tests against a claim's smallest effect"
    if any(verdict.claim.failed == "not_aligned" for verdict in verdicts):
        text += "; a run that diverged counts as one that did not align and did not learn (90°, accuracy at chance)"
    if any(isfinite(verdict.worst_case[0]) for verdict in verdicts):
        text += "; where a claim's runs have no value, the largest p over all that they could have shown"
    confirmatory = sum(verdict.claim.family == "confirmatory" for verdict in verdicts)
    family = analysis.family_size
    if confirmatory:
        lost = family - confirmatory
        changed = f" ({lost} of them changed or removed since they were declared, which still count)" if lost else ""
        text += (
            "; Holm's step-down procedure over the difference and equivalence tests of the family of "
            f"{count(family, 'confirmatory claim')}{changed} together, which takes at least {minimum_seeds(family)} "
            "seeds to reach p < .05"
        )
    if confirmatory < len(verdicts):
        text += "; Benjamini-Hochberg's for exploratory claims, over each kind of test"
    return text


def _range(seeds: tuple[int, ...]) -> str:
    ordered = sorted(seeds)
    if ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]} to {ordered[-1]}"
    return f"{len(ordered)} between {ordered[0]} and {ordered[-1]}"


def _trained_with(analysis: Analysis) -> str:
    """torch and the devices that the records name: elsewhere numbers differ by rounding, which training makes grow."""
    timing = analysis.timing
    if timing is None or not {"torch", "device"} <= set(timing.columns):
        return ""
    known = timing[["torch", "device"]].dropna().drop_duplicates().sort_values(["torch", "device"])
    where = known["device"].replace("cpu", "a CPU, one thread a process")
    return "; ".join(f"torch {torch} on {device}" for torch, device in zip(known["torch"], where, strict=True))


def _versions() -> str:
    found = [f"alignkit {__version__}"]
    for name in ANALYSED_WITH:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ", ".join(found)
