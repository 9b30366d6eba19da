"""Data labelled by a random network: the ground truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from alignkit.data.draws import gaussian
from alignkit.data.source import SPLITS, Arrays, DatasetShape, DataSource
from alignkit.errors import DataError
from alignkit.settings.data import Teacher


@dataclass(frozen=True)
class TeacherFunction:
    """The noise-free teacher, a function of inputs [n, inputs] to standardised outputs float64 [n, outputs].

    h_0 = x; h_k = tanh(h_{k-1} W_k) for the hidden layers; y = (h W_last - mean) / sd. `weights` holds
    W_1 … W_last, each [fan-in, fan-out].
    """

    weights: tuple[np.ndarray, ...]
    mean: np.ndarray
    sd: np.ndarray

    def __call__(self, inputs: np.ndarray | torch.Tensor) -> np.ndarray:
        return (_teacher_outputs(self.weights, np.asarray(inputs, np.float64)) - self.mean) / self.sd


def teacher_parts(section: Teacher) -> tuple[np.ndarray, TeacherFunction]:
    """The inputs of a teacher dataset, float32 [samples, inputs], and the ground truth behind its targets.

    Where `noise` is 0, targets are that function of the inputs (regression), or the argmax of it (classification).
    Entries of W_k are N(0, 1/fan-in). Every output is standardised over all of the dataset's samples,
    which keeps the classes of an argmax about even. With `teacher_depth` 0 the teacher is linear.
    """
    inputs = gaussian((section.samples, section.inputs), "teacher inputs", section.seed)
    # AR(1) along the features: corr(x_i, x_j) = correlation^|i - j|, every variance 1.
    for column in range(1, section.inputs):
        fresh = np.sqrt(1 - section.correlation**2) * inputs[:, column]
        inputs[:, column] = section.correlation * inputs[:, column - 1] + fresh
    inputs = inputs.astype(np.float32)  # rounded first, so that targets are exact in what is stored
    sizes = [section.inputs, *[section.teacher_width] * section.teacher_depth, section.outputs]
    weights = tuple(
        gaussian(pair, f"teacher weights {layer}", section.seed) / np.sqrt(pair[0])
        for layer, pair in enumerate(pairwise(sizes))
    )
    outputs = _teacher_outputs(weights, inputs.astype(np.float64))
    return inputs, TeacherFunction(weights, outputs.mean(axis=0), outputs.std(axis=0))


def _teacher_outputs(weights: tuple[np.ndarray, ...], hidden: np.ndarray) -> np.ndarray:
    for weight in weights[:-1]:
        hidden = np.tanh(hidden @ weight)
    return hidden @ weights[-1]


class TeacherSource(DataSource):
    """Inputs that a random network labels."""

    Options = Teacher

    def working_bytes(self, options: Teacher, described: DatasetShape) -> int:
        """Inputs, the teacher's weights and its outputs, with what is drawn for them."""
        depth, width = options.teacher_depth, options.teacher_width
        matrices = [options.inputs * (width if depth else options.outputs)]
        if depth:
            matrices += [width**2] * (depth > 1) + [width * options.outputs]
        weights = sum(matrices) + max(depth - 2, 0) * width**2
        drawn = max(options.inputs, options.outputs, width * (depth > 0))  # raw bits, floats, and two steps between
        return 32 * options.samples * drawn + 4 * options.samples * options.inputs + 8 * weights + 24 * max(matrices)

    def shape(self, options: Teacher) -> DatasetShape:
        """Raises `DataError` where a classification has fewer than two classes."""
        if options.task == "classification" and options.outputs < 2:
            raise DataError(
                f"data.outputs: expected at least 2 classes; got {options.outputs}. "
                'Ask for more, or for task = "regression"'
            )
        held_out = options.samples * 15 // 100
        train = options.samples - 2 * held_out
        return DatasetShape(options.task, (options.inputs,), options.outputs, train, held_out, held_out)

    def read(self, options: Teacher) -> Arrays:
        """Inputs N(0, 1) with corr(x_i, x_j) = correlation^|i - j|; targets are the teacher's standardised
        outputs plus N(0, noise^2), or the argmax of that. Samples are independent: splits are blocks."""
        inputs, teacher = teacher_parts(options)
        noise = gaussian((options.samples, options.outputs), "teacher noise", options.seed)
        outputs = teacher(inputs) + options.noise * noise
        targets = outputs.argmax(axis=1) if options.task == "classification" else outputs.astype(np.float32)
        sizes = self.shape(options)
        ends = np.cumsum([sizes.train, sizes.validation, sizes.test])
        return {
            split: (inputs[end - size : end], targets[end - size : end])
            for split, end, size in zip(SPLITS, ends, (sizes.train, sizes.validation, sizes.test), strict=True)
        }
