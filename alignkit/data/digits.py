"""The digits that come with alignkit."""

from __future__ import annotations

from importlib import resources

import numpy as np

from alignkit.data.draws import permutation
from alignkit.data.pixels import channel_moments, lookup_table, normalised
from alignkit.data.source import Arrays, DatasetShape, DataSource
from alignkit.settings.data import Digits

_HELD_OUT = 30  # of each class, in validation and in test


class DigitsSource(DataSource):
    """scikit-learn's 8x8 digits."""

    Options = Digits

    def shape(self, options: Digits) -> DatasetShape:
        held_out = 10 * _HELD_OUT
        return DatasetShape("classification", (1, 8, 8), 10, 1797 - 2 * held_out, held_out, held_out)

    def read(self, options: Digits) -> Arrays:
        """30 images of each class test, 30 others validate, the remaining 1,197 train; pixels/16, then
        standardised by the mean and sd of all the training split's pixels."""
        file = resources.files("alignkit.data") / "files" / "digits.npz"
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            pixels, labels = stored["images"][:, None], stored["labels"].astype(np.int64)
        order = permutation(len(labels), "digits split")
        rank = np.empty(len(labels), np.int64)  # of each image within its class
        for digit in range(10):
            members = order[labels[order] == digit]
            rank[members] = np.arange(len(members))
        block = np.minimum(rank // _HELD_OUT, 2)[order]
        rows = {"train": order[block == 2], "validation": order[block == 1], "test": order[block == 0]}
        mean, sd = channel_moments(pixels, rows["train"], 16)
        table = lookup_table(mean, sd, 16)
        return {split: (normalised(pixels, chosen, table), labels[chosen]) for split, chosen in rows.items()}
