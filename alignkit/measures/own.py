"""A measure of a study's own among alignkit's: its errors said in a sentence, its results checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignkit.columns import Column
from alignkit.errors import StudyError
from alignkit.measures.measure import LastStep, LayerDeltas, LayerSignals, Measure, OfLayer, Subject, measure_class
from alignkit.measures.reductions import Found, Measures
from alignkit.networks.forward_pass import Pass
from alignkit.settings.measures import own_columns
from alignkit.settings.modules import own_code


class OwnMeasure(Measure):
    """Calls the measure that a study names as "module:Class". What it finds has names of its own in the tables."""

    def __init__(self, name: str, subject: Subject) -> None:
        super().__init__(subject)
        self._name, self._prefix = name, f"{name}."
        self._columns: tuple[Column, ...] = own_columns((name,))[name]
        self._kinds: dict[tuple[str, str], int] = {}
        with self._speaking_for("__init__"):
            self._measure: Measure = measure_class(name)(subject)
        self.needs = self._measure.needs  # type: ignore[misc]

    def of_signals(self, signals: LayerSignals) -> OfLayer:
        return self._of_layer("of_signals", self._measure.of_signals, signals)

    def of_deltas(self, deltas: LayerDeltas) -> OfLayer:
        return self._of_layer("of_deltas", self._measure.of_deltas, deltas)

    def of_network(self, forward_pass: Pass) -> Sequence[OfLayer]:
        return self._of_layers("of_network", self._measure.of_network, forward_pass)

    def of_step(self, step: LastStep) -> Sequence[OfLayer]:
        return self._of_layers("of_step", self._measure.of_step, step)

    def reduce(self, found: Found) -> Measures:  # type: ignore[override]
        found = {name.removeprefix(self._prefix): v for name, v in found.items() if name.startswith(self._prefix)}
        names = [column.name for column in self._columns]
        default = getattr(self._measure.reduce, "__func__", None) is Measure.reduce.__func__  # type: ignore[attr-defined]
        if default and (absent := [name for name in names if name not in found]):
            raise self._wrong(
                "reduce", f"something found by the name of each column (or a `reduce` that makes it of {list(found)})",
                f"no {', '.join(absent)}",
            )  # fmt: skip
        with self._speaking_for("reduce"):
            reduced = dict(self._measure.reduce(found))
        if set(reduced) != set(names):
            raise self._wrong("reduce", f"the columns {names}", repr(list(reduced)))
        shape = (len(self.subject.network.hidden_sizes), len(self.subject.members))
        values = {name: np.array(reduced[name], dtype=np.float64) for name in names}
        for name, value in values.items():
            if value.shape != shape:
                raise self._wrong("reduce", f"{name} of shape {shape}, hidden layers by networks", str(value.shape))
        return values

    def _of_layer(self, method: str, find: Callable[[Any], OfLayer], seen: LayerSignals | LayerDeltas) -> OfLayer:
        with self._speaking_for(method):
            found = find(seen)
        return self._checked(method, found, first=seen.layer == len(self.subject.network.hidden_sizes))

    def _of_layers(self, method: str, find: Callable[[Any], Sequence[OfLayer]], seen: Any) -> Sequence[OfLayer]:
        with self._speaking_for(method):
            found = list(find(seen))
        layers = len(self.subject.network.hidden_sizes)
        if len(found) != layers:
            raise self._wrong(method, f"what was found at each of {layers} hidden layers", f"{len(found)} of them")
        return [self._checked(method, each, first=not layer) for layer, each in enumerate(found)]

    def _checked(self, method: str, found: Any, *, first: bool) -> OfLayer:
        """What the measure found at a layer, as the tables take it."""
        networks, samples = self.subject.x.shape[:2]
        shapes = [(networks,), (networks, samples)]
        if not isinstance(found, Mapping) or not all(isinstance(values, Tensor) for values in found.values()):
            raise self._wrong(method, "a dictionary of tensors", repr(found))
        for name, values in found.items():
            if tuple(values.shape) not in shapes:
                raise self._wrong(
                    method, f"{name} of shape {list(shapes[0])} or {list(shapes[1])}", str(list(values.shape))
                )
        kinds = {(method, name): values.dim() for name, values in found.items()}
        known = {key: dims for key, dims in self._kinds.items() if key[0] == method}
        if not first and kinds != known:
            raise self._wrong(
                method, f"the same at every layer, {sorted(name for _, name in known)}", repr(sorted(found))
            )
        self._kinds.update(kinds)
        like = self.subject.undefined
        return {f"{self._prefix}{name}": values.to(like) for name, values in found.items()}

    @contextmanager
    def _speaking_for(self, method: str) -> Iterator[None]:
        with own_code(self._name, what=f'measure "{self._name}", {method}'):
            yield

    def _wrong(self, method: str, expected: str, got: str) -> StudyError:
        return StudyError(f'measure "{self._name}", {method}: expected {expected}; got {got}')


def network_state(subject: Subject) -> dict[str, Tensor]:
    """What training goes on with: no measure may change it."""
    running = {
        f"{statistic} of layer {layer}": getattr(stage, statistic)
        for layer, stages in enumerate(subject.network.stages, start=1)
        for stage in stages
        for statistic in ("running_mean", "running_variance")
        if isinstance(getattr(stage, statistic, None), torch.Tensor)
    }
    return {"the networks' parameters": subject.network.parameters.storage, **running}
