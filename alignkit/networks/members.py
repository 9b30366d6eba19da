"""One member of a cohort, before it has a network."""

from __future__ import annotations

from dataclasses import dataclass

from alignkit.settings.study_options import Settings


@dataclass(frozen=True)
class Member:
    """One run as the engine sees it: its settings and its seed."""

    settings: Settings
    seed: int

    def seed_of(self, stream: str) -> int:
        """The stream's own seed where the study sets one, else the run's."""
        own = getattr(self.settings.streams, stream)
        return self.seed if own is None else own
