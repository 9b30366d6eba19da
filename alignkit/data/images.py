"""Images of a folder as a dataset: which rows make a split, and how their pixels are scaled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from alignkit.data.draws import permutation
from alignkit.data.image_files import files_hash, find_files
from alignkit.data.image_folder import ImageFolder, open_folder
from alignkit.data.pixels import channel_moments, lookup_table, normalised
from alignkit.data.source import Arrays, DatasetShape, DataSource
from alignkit.errors import DataError
from alignkit.settings.data import Images


def _image_rows(section: Images, folder: ImageFolder) -> dict[str, tuple[str, np.ndarray]]:
    """For each split, which of the folder's splits it comes from and the rows that it takes there.

    The validation split is the folder's own or else the last rows of a permutation of the training
    images, so it does not depend on `train_samples`, and smaller training sets are parts of larger ones.
    """
    orders = {split: permutation(len(labels), f"images {split}") for split, labels in folder.labels.items()}
    train = orders["train"]
    rows = {}
    if "validation" in orders:
        rows["validation"] = ("validation", orders["validation"])
    elif held_out := len(train) // 10 if section.validation is None else section.validation:
        if held_out >= len(train):
            raise DataError(
                f"data.validation: expected fewer than the {len(train)} training images of {section.path}; "
                f"got {held_out}. Ask for fewer, or 0 for none"
            )
        rows["validation"] = ("train", train[-held_out:])
        train = train[:-held_out]
    rows["train"] = ("train", _first(train, section.train_samples, "train"))
    rows["test"] = ("test", _first(orders["test"], section.test_samples, "test"))
    return rows


def _first(rows: np.ndarray, wanted: int | None, split: str) -> np.ndarray:
    if wanted is not None and wanted > len(rows):
        after = " (validation taken out)" if split == "train" else ""
        raise DataError(
            f"data.{split}_samples: expected at most the {len(rows)} images of the {split} split{after}; got {wanted}. "
            "Ask for fewer, or leave the key out to take all"
        )
    return rows[:wanted]


class ImagesSource(DataSource):
    """Images in a local folder of Parquet files."""

    Options = Images

    def shape(self, options: Images) -> DatasetShape:
        """No image but one is decoded."""
        folder = open_folder(options.path, options.colour)
        channels = folder.shape[0]
        for key, values in (("mean", options.mean), ("std", options.std)):
            if values is not None and len(values) != channels:
                raise DataError(
                    f"data.{key}: expected one number per channel, {channels}; got {len(values)}: {list(values)}. "
                    "Mend it, or leave it out to take the training split's own"
                )
        sizes = {"validation": 0} | {split: len(rows) for split, (_, rows) in _image_rows(options, folder).items()}
        return DatasetShape("classification", folder.shape, folder.classes, **sizes)

    def read(self, options: Images) -> Arrays:
        """Pixels/255, less the mean, over the sd, per channel; both from the training rows unless given."""
        folder = open_folder(options.path, options.colour)
        rows = _image_rows(options, folder)
        pixels = {source: folder.pixels(source) for source in dict.fromkeys(source for source, _ in rows.values())}
        mean, sd = options.mean, options.std
        if mean is None or sd is None:
            own_mean, own_sd = channel_moments(pixels["train"], rows["train"][1], 255)
            mean, sd = mean or tuple(own_mean), sd or tuple(own_sd)
        table = lookup_table(np.array(mean), np.array(sd), 255)
        return {
            split: (normalised(pixels[source], chosen, table), folder.labels[source][chosen])
            for split, (source, chosen) in rows.items()
        }

    def notes(self, options: Images) -> tuple[str, ...]:
        return open_folder(options.path, options.colour).notes

    def working_bytes(self, options: Images, described: DatasetShape) -> int:
        """Pixels and floats, and floats again where torch wants them."""
        return super().working_bytes(options, described) + described.samples * math.prod(described.shape)

    def content(self, options: Images) -> dict[str, str]:
        return {split: files_hash(files) for split, files in find_files(options.path).items()}

    def determinants(self, options: Images) -> dict[str, Any]:
        """All but the folder's path, and but the size of a split that the folder has of its own."""
        determined = super().determinants(options)
        own_split = "validation" in find_files(options.path)
        left_out = {"path", "validation"} if own_split else {"path"}
        return {key: value for key, value in determined.items() if key not in left_out}
