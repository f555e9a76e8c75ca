"""From facts about the data to a plan with good defaults."""

from headstart.recipes.facts import Facts
from headstart.recipes.propose import propose

__all__ = ["Facts", "propose"]
