"""Pretrained networks behind one protocol: one adapter per source library."""
