"""Inference on tidy tables, with the seed as the unit of replication.

Nothing here knows what a network is: every function takes a pandas table, or differences that were
taken within seeds, and gives a frozen result. The names below are what most analyses need; the rest is
imported from the module that answers the question:

    what does a change do?                 contrasts, paired, equivalence, multiplicity, location
    which level to choose?                 choice
    how many seeds?                        power, contrast_variance
    what does a response depend on?        factorial, margins, prediction, diagnostics; layers in runs: mixed, marginal
    along an ordered factor?               dose, thresholds
    where does the spread come from?       variance
    when does it happen, in which order?   phases, phase_order, matched
    does one thing carry another?          mediation, association
    does it hold up?                       robustness, influence, transforms, beta, attrition, failures, confounding
"""

from alignkit.stats.confounding import rate_note, step_note
from alignkit.stats.contrasts import Contrast, contrast, contrast_frame, contrasts
from alignkit.stats.equivalence import EquivalenceResult, equivalence_test
from alignkit.stats.levels import level_order, level_text
from alignkit.stats.multiplicity import benjamini_hochberg, holm
from alignkit.stats.paired import PairedResult, minimum_seeds, paired_test, require_seeds, sign_flip_p
from alignkit.stats.per_seed import SeedContrasts, seed_contrasts
from alignkit.stats.summaries import digits_of, in_design, label_of, run_summaries, unit_of

__all__ = [
    "Contrast",
    "EquivalenceResult",
    "PairedResult",
    "SeedContrasts",
    "benjamini_hochberg",
    "contrast",
    "contrast_frame",
    "contrasts",
    "digits_of",
    "equivalence_test",
    "holm",
    "in_design",
    "label_of",
    "level_order",
    "level_text",
    "minimum_seeds",
    "paired_test",
    "rate_note",
    "require_seeds",
    "run_summaries",
    "seed_contrasts",
    "sign_flip_p",
    "step_note",
    "unit_of",
]
