"""The options of a study: all that a run's training and measuring depend on, a class a section, with defaults."""

from __future__ import annotations

from pydantic import model_validator

from alignkit.settings.data import DataSection, Digits
from alignkit.settings.feedback import Feedback
from alignkit.settings.network import MLP, NetworkSection
from alignkit.settings.probe import ProbeOptions
from alignkit.settings.rules import RuleOptions
from alignkit.settings.training import Streams, Training
from alignkit.settings.types import Section


class Settings(Section):
    """All that an arm's training and measuring depend on, the rule and the seed apart."""

    data: DataSection = Digits()
    network: NetworkSection = MLP()
    training: Training = Training()
    feedback: Feedback = Feedback()
    streams: Streams = Streams()
    probe: ProbeOptions = ProbeOptions()
    rule: RuleOptions = RuleOptions()

    @model_validator(mode="after")
    def _layers_are_there(self) -> Settings:
        hidden = self.network.hidden_layers
        beyond = [point for point in self.feedback.points or () if point > hidden]
        if (
            beyond
            or self.feedback.points == ()
            or len(set(self.feedback.points or ())) < len(self.feedback.points or ())
        ):
            raise ValueError(
                f"feedback.points: expected different hidden layers of 1 to {hidden}, one or more; got "
                f"{list(self.feedback.points or ())}. Leave it out for feedback at every one"
            )
        if self.training.output_layers > hidden + 1:
            raise ValueError(
                f"training.output_layers: expected at most {hidden + 1}, all layers of the network; got "
                f"{self.training.output_layers}"
            )
        return self


SECTIONS = tuple(Settings.model_fields)
