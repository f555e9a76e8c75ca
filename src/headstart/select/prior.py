"""What is known of networks before they see the data, and how a probe on the data corrects it.

All is said in z-scores: how many standard deviations a network's fine-tuned quality lies above the mean of its rivals
on the same data. A network's mean z-score over other data sets is what predicts best; what its traits (size, ImageNet
score, pretraining) say stands in for it where it ran on few or none. Both are shrunk by the certainty of each, and so
is the probe (empirical Bayes, Efron and Morris 1975), of which what its network is known for is taken off first: where
features serve well as they are and training adds little, a good probe says less.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.select.history import Run, Traits

FEWEST_NETWORKS = 3
"""With fewer networks on a data set, z-scores say nothing."""
DEVIATIONS: Mapping[str, float] = {"parameters": 1.4, "gmacs": 1.8, "imagenet": 4.7}
"""Of the logarithms of size and GMACs and of ImageNet top-1 (per cent) over the 1,600 networks of the catalog: what a
trait counts for must not depend on who else is a candidate."""
BELIEFS: Mapping[str, float] = {"parameters": 0.15, "gmacs": 0.4, "imagenet": 0.7}
"""Slopes of the z-score by each trait, in these deviations, before any run is recorded. On SFDA's table of 11
convolutional networks they alone reach a weighted Kendall tau of 0.67, ImageNet's score 0.65, GMACs 0.64."""
SLOPE_VARIANCE, KIND_VARIANCE = 0.1, 0.25
"""Of each slope, and of what each kind of pretraining adds."""
BETWEEN, WITHIN = 0.4, 0.5
"""Variances of z-scores before any run is recorded: of networks around what their traits say, of one over data sets."""
DISCREPANCY = 0.5
"""Variance of a probe's z-score around that of fine-tuning, before any run is recorded: a correlation of 0.8."""
CREDIT = 4.0
"""Observations that each of these beliefs is worth."""
LEAST_VARIANCE, LEAST_RELIABILITY = 0.02, 0.05
ALTERNATIONS = 10
SHARED = 0.5
"""Share of the chance of test items that networks have in common, as they find the same ones hard."""


@dataclass(frozen=True, slots=True)
class Prior:
    """The expected z-score of each network [M], its variance [M], and the data sets that it rests on [M].

    `habit` [M] is how far the z-score of each network's probe usually lies above that of its fine-tuning.
    """

    mean: np.ndarray
    variance: np.ndarray
    num_sets: np.ndarray
    habit: np.ndarray

    def at(self, places: Sequence[int]) -> Prior:
        """Return it for the networks at these places."""
        rows = list(places)
        return Prior(self.mean[rows], self.variance[rows], self.num_sets[rows], self.habit[rows])


@dataclass(frozen=True, slots=True)
class Posterior:
    """The z-score of each network [M] after the probe, its variance [M], and the share of the prior in it [M]."""

    mean: np.ndarray
    variance: np.ndarray
    prior_share: np.ndarray


@dataclass(frozen=True, slots=True)
class Standing:
    """How networks did on a data set beside their rivals there: z-scores by name, in units of the spread that is no
    chance, and the variance that chance (of the test items and of training) adds to each.
    """

    scores: Mapping[str, float]
    noise: float

    @property
    def reliability(self) -> float:
        """The share of the spread of qualities that is no chance."""
        return 1 / (1 + self.noise)


def standings(runs: Sequence[Run]) -> dict[str, Standing]:
    """Return how each network did on each data set that enough ran on."""
    by_set: defaultdict[str, dict[str, Run]] = defaultdict(dict)
    for run in runs:
        by_set[run.data][run.model] = run
    found: dict[str, Standing] = {}
    for name, row in by_set.items():
        if len(row) >= FEWEST_NETWORKS:
            share = _reliability(list(row.values()))
            scores = standardised(np.array([run.fine_tuned for run in row.values()])) / math.sqrt(share)
            found[name] = Standing(dict(zip(row, scores.tolist(), strict=True)), 1 / share - 1)
    return found


def _reliability(runs: Sequence[Run]) -> float:
    """Return the share of the spread of qualities on a data set that is no chance of test items or of training."""
    quality = np.array([run.fine_tuned for run in runs])
    variance = float(quality.var())
    if variance == 0:
        return 1.0
    chance = float(np.mean([run.fine_tuned_error**2 for run in runs]))
    if runs[0].n_test:
        chance += float(np.maximum(quality * (1 - quality), 0).mean()) / runs[0].n_test * (1 - SHARED)
    return max(LEAST_RELIABILITY, 1 - chance / variance)


def standardised(values: np.ndarray) -> np.ndarray:
    """Return values [M] minus their mean, in units of their deviation; zeros where they are all alike."""
    deviation = float(values.std())
    return (values - values.mean()) / deviation if deviation > 0 else np.zeros_like(values)


def prior(traits: Mapping[str, Traits], runs: Sequence[Run]) -> Prior:
    """Return what recorded runs on other data sets, and traits, let expect of the networks `traits` names.

    With t the z-score of a network on a data set, t ~ N(m, WITHIN + the set's noise) and m ~ N(x b, BETWEEN); b, m and
    both variances are estimated from `runs` (of networks that `traits` names), shrunk to what is believed without any.
    """
    names = list(traits)
    known = [run for run in runs if run.model in traits]
    sets = standings(known)
    scores = np.array([[one.scores.get(name, math.nan) for one in sets.values()] for name in names])
    means, certainty, within = _averaged(scores, np.array([one.noise for one in sets.values()]))
    design, beliefs = _design([traits[name] for name in names])
    expected, between = _regressed(design, beliefs, means, certainty)
    mean = (certainty * means + expected / between) / (certainty + 1 / between)
    count = np.isfinite(scores).sum(1)
    return Prior(mean, within + 1 / (certainty + 1 / between), count, _habits(names, known, sets))


def _averaged(scores: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Return each network's mean z-score [M], one over its variance [M], and the variance of one over data sets.

    Of `scores` [M, S] (NaN: did not run), data sets with less `noise` [S] count for more: a random-effects mean
    (DerSimonian and Laird 1986), by alternation.
    """
    there = np.isfinite(scores)
    values = np.where(there, scores, 0.0)
    freedom = float(np.maximum(there.sum(1) - 1, 0).sum())
    within, means, certainty = WITHIN, np.zeros(len(scores)), np.zeros(len(scores))
    for _ in range(ALTERNATIONS):
        weight = there / (within + noise)
        certainty = weight.sum(1)
        means = (weight * values).sum(1) / np.maximum(certainty, 1e-12)
        # Squares in units of their variance sum up to the degrees of freedom.
        squares = within * float((weight * (values - means[:, None]) ** 2).sum())
        within = max(LEAST_VARIANCE, (CREDIT * WITHIN + squares) / (CREDIT + freedom))
    return means, certainty, within


def _habits(names: Sequence[str], runs: Sequence[Run], sets: Mapping[str, Standing]) -> np.ndarray:
    """Return how far each network's probes [M] lay above its fine-tuning in z-scores, shrunk towards not at all.

    A data set counts for less the more of its spread is chance.
    """
    gaps: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for data, standing in sets.items():
        row = [run for run in runs if run.data == data and math.isfinite(run.frozen)]
        if len(row) >= FEWEST_NETWORKS:
            said = standardised(np.array([run.frozen for run in row]))
            came = np.array([standing.scores[run.model] for run in row])
            for run, gap in zip(row, said - (came - came.mean()), strict=True):
                gaps[run.model].append((standing.reliability, float(gap)))
    return np.array(
        [
            sum(weight * gap for weight, gap in gaps[name])
            / (sum(weight for weight, _ in gaps[name]) + CREDIT)
            for name in names
        ]
    )


def _design(traits: Sequence[Traits]) -> tuple[np.ndarray, np.ndarray]:
    """Return traits in their deviations [M, F], a column for each kind of pretraining, and the believed slopes [F]."""
    numbers = np.array(
        [
            [math.log(max(row.parameters_m, 1e-3)), math.log(max(row.gmacs, 1e-3)), row.imagenet]
            for row in traits
        ]
    )
    known = np.isfinite(numbers)
    centre = np.where(known, numbers, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    columns = np.where(known, numbers - centre, 0.0) / np.array(list(DEVIATIONS.values()))
    kinds = sorted({row.pretraining for row in traits})
    indicators = np.array([[float(row.pretraining == kind) for kind in kinds] for row in traits])
    return np.concatenate([columns, indicators], 1), np.array([*BELIEFS.values(), *[0.0] * len(kinds)])


def _regressed(
    design: np.ndarray, beliefs: np.ndarray, means: np.ndarray, certainty: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return what traits [M, F] say of each network [M], and the variance of networks around that.

    `certainty` [M] is one over the variance of each mean, 0 where a network never ran. Ridge regression towards the
    beliefs; the variance is found by alternation, as it weighs the networks.
    """
    between, expected = BETWEEN, design @ beliefs
    variances = np.where(np.arange(len(beliefs)) < len(BELIEFS), SLOPE_VARIANCE, KIND_VARIANCE)
    seen = certainty > 0
    if not seen.any():
        return expected, between
    own = 1 / np.where(seen, certainty, 1.0)
    for _ in range(ALTERNATIONS):
        weight = seen / (own + between)
        gram = design.T @ (weight[:, None] * design) + np.diag(1 / variances)
        slopes = beliefs + np.linalg.solve(gram, design.T @ (weight * (means - design @ beliefs)))
        expected = design @ slopes
        excess = (means - expected)[seen] ** 2 - own[seen]
        between = max(LEAST_VARIANCE, (CREDIT * BETWEEN + float(excess.sum())) / (CREDIT + seen.sum()))
    return expected, between


def combine(
    known: Prior, quality: np.ndarray, error: np.ndarray, *, discrepancy: float, spread: float
) -> Posterior:
    """Return the z-scores of networks after a probe: the prior and the probe's z-score, each by its certainty.

    `quality` [M] is what each came to on the data (NaN: not probed), `error` [M] the standard error of its *difference*
    to the others, `discrepancy` the variance of a perfectly measured probe around fine-tuning in z-scores, and `spread`
    the usual standard deviation of qualities over networks, which counts as much as two networks.
    """
    probed = np.isfinite(quality)
    if not probed.any():
        return Posterior(known.mean, known.variance, np.ones(len(quality)))
    scale = scale_of(known, quality, error, discrepancy=discrepancy, spread=spread)
    level = float(known.mean[probed].mean())
    habit = known.habit - known.habit[probed].mean()
    reading = np.where(probed, (quality - np.nanmean(quality)) / scale - habit + level, 0.0)
    noise = discrepancy + (np.where(probed, error, 0.0) / scale) ** 2
    share = np.where(probed, noise / (noise + known.variance), 1.0)
    mean = share * known.mean + (1 - share) * reading
    return Posterior(mean, np.where(probed, share * known.variance, known.variance), share)


def scale_of(
    known: Prior, quality: np.ndarray, error: np.ndarray, *, discrepancy: float, spread: float
) -> float:
    """Return the quality that one z-score is worth: by the probed networks' spread beyond noise, and the usual one."""
    probed = np.isfinite(quality)
    count = int(probed.sum())
    if count < 2:
        return spread
    found = float(np.var(quality[probed], ddof=1) - np.mean(error[probed] ** 2))
    expected = float(np.var(known.mean[probed]) + known.variance[probed].mean()) + discrepancy
    square = ((count - 1) * max(found, 0.0) / expected + 2 * spread**2) / (count - 1 + 2)
    return math.sqrt(square)


def discrepancy_of(traits: Mapping[str, Traits], runs: Sequence[Run]) -> float:
    """Return the variance of a probe's z-score around that of fine-tuning: by recorded runs with a probe, if any.

    By leaving each data set out, t - prior is regressed on p - prior; the slope is that of inverse variances,
    v / (v + noise) with v the prior's variance, which gives the noise; the probes' own errors are taken off. As before,
    a data set counts for less the more of its spread is chance.
    """
    cross, square = CREDIT / (1 + DISCREPANCY), CREDIT
    variances, own = [1.0] * int(CREDIT), [0.0] * int(CREDIT)
    names = list(traits)
    for left_out in sorted({run.data for run in runs}):
        here = {run.model: run for run in runs if run.data == left_out and run.model in traits}
        row = {name: run for name, run in here.items() if math.isfinite(run.frozen)}
        if len(row) < FEWEST_NETWORKS:
            continue
        known = prior(traits, [run for run in runs if run.data != left_out]).at(
            [names.index(name) for name in row]
        )
        standing = standings(list(row.values()))[left_out]
        truth = np.array(list(standing.scores.values()))
        probe = standardised(np.array([run.frozen for run in row.values()]))
        probe -= known.habit - known.habit.mean()
        expected = known.mean - known.mean.mean()
        cross += standing.reliability * float(((truth - expected) * (probe - expected)).sum())
        square += standing.reliability * float(((probe - expected) ** 2).sum())
        variances += known.variance.tolist()
        deviation = float(np.std([run.frozen for run in row.values()])) or 1.0
        own += [(run.frozen_error / deviation) ** 2 for run in row.values()]
    slope = min(max(cross / square, 0.02), 0.98)
    noise = float(np.mean(variances)) * (1 - slope) / slope - float(np.mean(own))
    return max(LEAST_VARIANCE, noise)
