"""From facts about the data to a plan with good defaults."""

from headstart.recipes.image_classification import Facts, propose

__all__ = ["Facts", "propose"]
