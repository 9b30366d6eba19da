"""Inference on tidy tables, with the seed as the unit of replication.

Nothing here knows what a network is: every function takes a pandas table, or differences that were
taken within seeds, and gives a frozen result. The names below are what most analyses need; the rest is
imported from the module that answers the question:

    what does a change do?                 contrasts/: contrasts, paired, equivalence, multiplicity, location
    which level to choose?                 contrasts/choice
    which of many cells may be the best?   contrasts/best_set
    how far does it differ between cells?  contrasts/cells
    how many seeds?                        contrasts/power, contrasts/contrast_variance
    does it hang on one seed?              contrasts/influence
    what does a response depend on?        models/: factorial, margins, prediction, diagnostics;
                                           layers in runs: mixed, gee
    along an ordered factor?               curves/dose, curves/thresholds
    what is an angle worth?                curves/stakes
    when does it happen, in which order?   curves/phases, curves/phase_order, curves/matched
    where does the spread come from?       mechanisms/variance_components
    does one thing carry another?          mechanisms/mediation, mechanisms/association
    does it hold up?                       sensitivity/: specification_curve, scales, attrition, failures; models/beta
"""

from alignkit.stats.contrasts.contrasts import Contrast, contrast, contrast_frame, contrasts
from alignkit.stats.contrasts.equivalence import EquivalenceResult, equivalence_test
from alignkit.stats.contrasts.multiplicity import benjamini_hochberg, holm
from alignkit.stats.contrasts.paired import PairedResult, minimum_seeds, paired_test, require_seeds, sign_flip_p
from alignkit.stats.contrasts.per_seed import SeedContrasts, seed_contrasts
from alignkit.stats.tables.levels import in_design, level_order, level_text

__all__ = [
    "Contrast",
    "EquivalenceResult",
    "PairedResult",
    "SeedContrasts",
    "benjamini_hochberg",
    "contrast",
    "contrast_frame",
    "contrasts",
    "equivalence_test",
    "holm",
    "in_design",
    "level_order",
    "level_text",
    "minimum_seeds",
    "paired_test",
    "require_seeds",
    "seed_contrasts",
    "sign_flip_p",
]
