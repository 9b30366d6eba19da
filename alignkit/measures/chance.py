"""How far alignment is from that of feedback redrawn from its own law."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from alignkit.columns import MEASURES
from alignkit.measures import angles
from alignkit.measures.angles import Directions, normal_p
from alignkit.measures.measure import LayerSignals, Measure, OfLayer
from alignkit.measures.reductions import Found, Measures, mean
from alignkit.numerics.channels_last import in_memory_order


class Chance(Measure):
    columns, needs = MEASURES["chance"], ("signals",)

    def of_signals(self, signals: LayerSignals) -> OfLayer:
        null, sd, p = self._null(signals)
        return {"cosine": signals.cosine, "null_mean": null, "null_sd": sd, "null_p": p}

    def _null(self, s: LayerSignals) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and sd of the mean cosine under redrawn feedback, and where it was redrawn, the p of the one that is."""
        rule, unknown = self.subject.rule, self.subject.undefined
        projection = self.subject.projection(s.layer)
        source = None if s.above is None else Directions(in_memory_order(s.above))
        if projection is not None and projection.from_error:
            source = s.errors
        if self._closed_form and projection is not None and source is not None:
            sd = angles.chance_sd(source, s.g)
            return torch.zeros_like(sd), sd, unknown
        undefined, redrawn = (unknown,) * 3, []
        for draw in range(1, self.subject.options.redraws + 1 if rule.enters(s.layer) else 1):
            signal = rule.redrawn_signal(s.layer, s.forward_pass, s.above, draw=draw)
            if signal is None:
                return undefined
            if s.forward_pass.masks is not None:
                signal = s.forward_pass.masks.signal(s.layer, signal)
            redrawn.append(Directions(signal).cosine(s.g).nanmean(1))
        if not redrawn:
            return undefined
        null, observed = torch.stack(redrawn, 1), s.cosine.nanmean(1)  # [E, K], [E]
        beyond = (null.abs() >= observed[:, None].abs()).sum(1)
        p = torch.where(observed.isnan(), torch.nan, (beyond + 1.0) / (null.shape[1] + 1.0))
        centre = null.mean(1)
        return centre, ((null - centre[:, None]).square().sum(1) / (null.shape[1] - 1)).sqrt(), p

    @cached_property
    def _closed_form(self) -> bool:
        """Whether the spread of the chance level is known: of unmasked Gaussian feedback of full rank."""
        plain = self.subject.network.masks is None and self.subject.reference_masks is None
        drawn = [member.settings.feedback for member in self.subject.members]
        closed = plain and all(f.law == "gaussian" and f.rank is None for f in drawn)
        return closed and self.subject.options.chance == "auto"

    @classmethod
    def reduce(cls, found: Found) -> Measures:
        """Against the mean and sd of the null. A layer whose null was drawn brings its own p, another's is a
        normal's."""
        z = (mean(found["cosine"]) - found["null_mean"]) / found["null_sd"]
        drawn = found["null_p"]
        return {"chance_z": z, "chance_p": np.where(np.isnan(drawn), normal_p(torch.from_numpy(z)).numpy(), drawn)}
