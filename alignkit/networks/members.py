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
        """The stream's own seed where the study sets one, else the run's, shifted where the study shifts it."""
        own: int | None = getattr(self.settings.streams, stream)
        return self.seed + self.settings.streams.shift if own is None else own
