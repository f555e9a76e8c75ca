"""Cheap heads on cached features: each solver gives cross-validated scores of all its variants and a fitted head."""
