"""Pretraining on unlabelled data: what can be used of them, the run, its pilot, the folder and the page."""

from headstart.pretraining.outcome import Outcome, Verdict
from headstart.pretraining.run import pretrained

__all__ = ["Outcome", "Verdict", "pretrained"]
