"""Whether a study has seeds enough to judge its claims."""

from __future__ import annotations

from alignkit.stats.contrasts.paired import minimum_seeds
from alignkit.study.hypotheses import family_of
from alignkit.study.study import Study
from alignkit.text import count


def seed_notes(study: Study) -> tuple[str, ...]:
    """What to know before a run: claims that stay undecided whatever it shows, for want of seeds."""
    claims, hypotheses = family_of(study)
    confirmatory = claims + hypotheses
    seeds, least = len(study.seed_list), minimum_seeds(max(confirmatory, 1))
    if not study.claims or seeds >= least:
        return ()
    family = f"a family of {confirmatory} hypotheses" if confirmatory > 1 else "one claim"
    return (
        f"{count(seeds, 'seed')}: too few for the exact test of {family}, which takes {least} to "
        "reach p < .05. Those claims stay undecided whatever the runs show: plan more seeds, or fewer claims",
    )
