"""Say where a Gaussian-gated fit begins, as a value: ``near_truth``, ``data`` or ``random``.

A start beside the truth measures the rate of the nearest local maximum only; starts from the data measure
what a user gets. Studies name the one they used in every row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moe_prompts.checks import count as checked_count
from moe_prompts.checks import expect
from moe_prompts.errors import InputError
from moe_prompts.estimators.gaussian.moments import Scale
from moe_prompts.models.data import Data, Sample
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE

#: Starts look at the first pairs only, so that their cost does not depend on n.
START_POINTS = 2_000
LLOYD_STEPS = 10


class Start(Protocol):
    """Describe where a fit begins; ``draw`` makes one start."""

    @property
    def name(self) -> str:
        """Return the name that goes to the table."""
        ...

    @property
    def count(self) -> int:
        """Return how many draws a fit takes the best of."""
        ...

    def draw(self, family: GaussianGatedFamily, sample: Data, rng: np.random.Generator) -> GaussianGatedMoE:
        """Return parameters in the family, in the units of the data.

        family  the class of mixtures that is to be fitted
        sample  the data
        rng     generator of the draws
        """
        ...


@dataclass(frozen=True)
class NearTruth:
    """Begin at true atoms, split at random, plus noise that shrinks with n: the published start.

    truth   parameters to stay close to; its free atoms come first
    k_true  number of true free atoms
    name    what the table calls it
    count   draws that a fit takes the best of

    Labels of the k atoms are uniform over the true free atoms until all appear, and pi = pi_true / (atoms
    with that label). Every entry of c, A and b moves by N(0, (.005 n^-.083)^2); the diagonals of Gamma and nu
    grow by |N(0, (.0005 n^-.25)^2)|.

    Source: the simulations of arXiv 2305.07572.
    """

    truth: GaussianGatedMoE
    k_true: int
    name: str = "near_truth"
    count: int = 1

    def draw(self, family: GaussianGatedFamily, sample: Data, rng: np.random.Generator) -> GaussianGatedMoE:
        """Return one start.

        sample  the data, whose number of pairs sets the distance from the truth
        rng     generator of the draws

        Raises ``InputError`` where the family has fewer atoms than the truth.
        """
        if family.k < self.k_true:
            raise InputError(
                f"near_truth: k = {family.k} atoms cannot sit at all {self.k_true} true ones; "
                f"raise k or start from data"
            )
        # Every true atom gets a fitted one: labels are drawn again until all appear, as in the published
        # runs.
        while True:
            labels = rng.integers(self.k_true, size=family.k)
            if len(np.unique(labels)) == self.k_true:
                break
        split = np.bincount(labels, minlength=self.k_true)
        mean_sd, cov_sd = 0.005 * sample.n**-0.083, 0.0005 * sample.n**-0.25
        jitter = lambda value: value + mean_sd * rng.standard_normal(value.shape)
        widen = lambda covs: (
            covs + np.abs(cov_sd * rng.standard_normal(covs.shape[:2]))[:, :, None] * np.eye(covs.shape[1])
        )
        atoms = self.truth.atoms(labels)
        weights = self.truth.weights[labels] / split[labels]
        free = GaussianGatedMoE(
            weights=weights / weights.sum(),
            gate_means=jitter(atoms.gate_means),
            gate_covs=widen(atoms.gate_covs),
            slopes=jitter(atoms.slopes),
            intercepts=jitter(atoms.intercepts),
            noise_covs=widen(atoms.noise_covs),
        )
        if family.frozen is None:
            return family.project(free)
        return family.project(free.joined(family.frozen, float(self.truth.weights[self.k_true :].sum())))


@dataclass(frozen=True)
class FromData:
    """Begin at clusters of the data: k-means++ centres, a few Lloyd steps, a regression in each cluster.

    Distances are those of standardised (x, y). Frozen atoms take part as centres that do not move, in
    proportion to how many points they explain best.

    count  draws that a fit takes the best of
    name   what the table calls it
    """

    count: int = 4
    name: str = "data"

    def draw(self, family: GaussianGatedFamily, sample: Data, rng: np.random.Generator) -> GaussianGatedMoE:
        """Return one start.

        family  the class of mixtures that is to be fitted
        sample  the data, of which the first pairs are used
        rng     generator of the draws
        """
        few = sample.head(START_POINTS)
        z = np.concatenate([few.x, few.y], axis=1)
        scale = np.sqrt(variances(sample, few))
        z = z / scale
        fixed = np.empty((0, z.shape[1])) if family.frozen is None else family.frozen.to_joint()[1] / scale
        # k-means++: each centre is a point, drawn in proportion to its squared distance from the centres so
        # far, which are at first those of the frozen atoms. Where all points are on centres, any point will
        # do.
        centres = fixed
        nearest = _squared_distances(z, centres).min(axis=0) if len(centres) else np.ones(len(z))
        for number in range(family.k):
            total = nearest.sum()
            pick = rng.choice(len(z), p=nearest / total) if total > 0 else rng.integers(len(z))
            centres = np.concatenate([centres, z[pick : pick + 1]])
            own = _squared_distances(z, centres[-1:])[0]
            nearest = np.minimum(nearest, own) if len(fixed) or number else own
        # Lloyd's steps move the free centres to the means of their points; an empty cluster stays where it
        # is.
        for _ in range(LLOYD_STEPS):
            labels = _squared_distances(z, centres).argmin(axis=0)
            sizes = np.bincount(labels, minlength=len(centres))
            moving = np.flatnonzero(sizes[len(fixed) :]) + len(fixed)
            sums = np.stack([np.bincount(labels, column, len(centres)) for column in z.T], axis=1)
            centres[moving] = sums[moving] / sizes[moving, None]
        return from_clusters(family, few, labels - len(fixed), variances(sample, few))


@dataclass(frozen=True)
class Random:
    """Begin with flat atoms at random points of the data, at that point's height.

    Their variances are those of the data over k.

    count  draws that a fit takes the best of
    name   what the table calls it
    """

    count: int = 4
    name: str = "random"

    def draw(self, family: GaussianGatedFamily, sample: Data, rng: np.random.Generator) -> GaussianGatedMoE:
        """Return one start.

        family  the class of mixtures that is to be fitted
        sample  the data, of which the first pairs are used
        rng     generator of the draws
        """
        few = sample.head(START_POINTS)
        picks = rng.choice(few.n, size=family.k, replace=few.n < family.k)
        diagonal = lambda sizes: np.repeat(np.diag(sizes / family.k)[None], family.k, axis=0)
        spread = variances(sample, few)
        free = GaussianGatedMoE(
            weights=rng.dirichlet(np.full(family.k, 5.0)),
            gate_means=few.x[picks],
            gate_covs=diagonal(spread[: family.d]),
            slopes=np.zeros((family.k, family.l, family.d)),
            intercepts=few.y[picks],
            noise_covs=diagonal(spread[family.d :]),
        )
        return family.project(free)


def _squared_distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the squared distances (centres, points), column by column: rows of a few numbers are slow."""
    total = np.zeros((len(centres), len(points)))
    for column, centre in zip(points.T, centres.T, strict=True):
        off = column - centre[:, None]
        off *= off
        total += off
    return total


def variances(sample: Data, few: Sample) -> np.ndarray:
    """Return the variances of the columns of (x, y) among the ``few`` first pairs.

    Where a column does not vary there, as in sorted data, its variance is that of all pairs.

    sample  the data that ``few`` begins
    """
    z = np.concatenate([few.x, few.y], axis=1)
    found = z.var(axis=0)
    if found.all():
        return found
    scale = Scale.of(sample, None)
    return np.where(found > 0, found, np.concatenate([scale.scale_x, scale.scale_y]) ** 2)


def from_clusters(
    family: GaussianGatedFamily, sample: Sample, labels: np.ndarray, variances: np.ndarray
) -> GaussianGatedMoE:
    """Return parameters from the mean and covariance of (x, y) in clusters 0 .. k - 1.

    Negative labels belong to the frozen atoms. Five points' worth of the overall spread and a tenth of an
    equal share of mass keep small clusters regular.

    family     the class of mixtures that is to be fitted
    sample     the pairs that the labels belong to
    labels     (n,), the cluster of each pair
    variances  (D,), those of the columns of (x, y) among all pairs
    """
    z = np.concatenate([sample.x, sample.y], axis=1)
    spread = np.diag(variances) / family.k**2
    sizes = np.bincount(np.maximum(labels + 1, 0), minlength=family.k + 1)  # 0 counts the frozen atoms' points
    if family.frozen is None:
        sizes = sizes[1:]
    masses = (sizes + 0.1 * sample.n / len(sizes)) / (1.1 * sample.n)
    means, covs = np.empty((family.k, z.shape[1])), np.empty((family.k, z.shape[1], z.shape[1]))
    for atom in range(family.k):
        cluster = z[labels == atom]
        means[atom] = cluster.mean(axis=0) if len(cluster) else z.mean(axis=0)
        scatter = (cluster - means[atom]).T @ (cluster - means[atom])
        covs[atom] = (scatter + 5 * spread) / (len(cluster) + 5)
    free = masses[-family.k :]
    params = GaussianGatedMoE.from_joint(free / free.sum(), means, covs, family.d)
    return family.project(params if family.frozen is None else params.joined(family.frozen, float(masses[0])))


def near_truth(truth: GaussianGatedMoE, k_true: int | None = None) -> NearTruth:
    """Return the rule that draws the published start beside a Gaussian-gated ``truth``, for ``best_of``.

    Not ``moe_prompts.vector_near_truth`` (also called ``near_truth``), which returns one start of prompts in
    attention.

    ``k_true`` counts the free atoms, listed first; all of them by default.
    """
    expect(truth, GaussianGatedMoE, "near_truth")
    return NearTruth(truth, truth.k if k_true is None else checked_count(k_true, 1, "near_truth: k_true"))


def data(count: int = 4) -> FromData:
    """Return a start from clusters of the data, of which a fit takes the best of ``count`` draws.

    Raises ``InputError`` where ``count`` < 1.
    """
    return FromData(_positive(count))


def random(count: int = 4) -> Random:
    """Return a start at random points of the data, of which a fit takes the best of ``count`` draws.

    Raises ``InputError`` where ``count`` < 1.
    """
    return Random(_positive(count))


def _positive(count: int) -> int:
    return checked_count(count, 1, "starts: count")
