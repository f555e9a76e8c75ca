"""CORAL: the source whitened and coloured anew with the target's covariance.

s' = (s - mean_s) C_s^(-1/2) C_t^(1/2) + mean_t (Sun, Feng and Saenko 2016, Return of frustratingly easy domain
adaptation, arXiv 1511.05547), with covariances shrunk towards a multiple of the identity as Ledoit and Wolf (2004)
derive: a few hundred items cannot tell a few hundred variances apart.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from headstart.methods.domain.ground import Ground


def recolour(ground: Ground) -> Ground:
    """Return the ground with source points [n, r] that have the target's mean and covariance."""
    source, target = ground.source, ground.target
    colours = power(shrunk_covariance(source), -0.5) @ power(shrunk_covariance(target), 0.5)
    return replace(ground, source=(source - source.mean(0)) @ colours + target.mean(0))


def shrunk_covariance(points: Tensor) -> Tensor:
    """Return the Ledoit-Wolf covariance [r, r] of points [n, r]."""
    count, width = points.shape
    centred = points - points.mean(0)
    covariance = centred.T @ centred / count
    level = covariance.trace() / width
    even = level * torch.eye(width)
    spread = (covariance - even).square().sum()
    # How far single items' outer products lie from their mean: the noise of the estimate.
    noise = (centred.square().sum(1).square().sum() / count - covariance.square().sum()) / count
    share = (noise / spread.clamp(min=1e-12)).clamp(0, 1)
    return (1 - share) * covariance + share * even


def power(matrix: Tensor, exponent: float) -> Tensor:
    """Return a power of a symmetric positive matrix [r, r]."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=1e-8 * float(values[-1]) + 1e-12).pow(exponent)) @ vectors.T
