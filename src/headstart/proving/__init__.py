"""Proving what a transfer gained: arms on the same split and seeds, over label budgets, at an equal cost."""
