"""Which labels are likely wrong, and which items to label next, from the features of a frozen network."""

from headstart.labelling.find import find
from headstart.labelling.found import LabelReport, NextLabel, WrongLabel
from headstart.labelling.output import free_folder, publish

__all__ = ["LabelReport", "NextLabel", "WrongLabel", "find", "free_folder", "publish"]
