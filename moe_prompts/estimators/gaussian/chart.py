"""Give Gaussian-gated families free coordinates, in which every derivative is a moment of the data.

For z = (y, x) standardised, atom k has alpha_k (log mass), an upper triangular R_k with R_k'R_k = Sigma_k^-1
and a log-diagonal, and m_k = R_k mu_k. Row i of (R, m) is a vector v_i with

    log pi_k N(z) = log pi_k + sum_i [ log R_ii - (v_i . q_i)^2 / 2 ] - D log(2 pi) / 2,
    q_i = (z_i, .., z_D, -1),

so second derivatives never mix rows. With y first, R_yy = nu^-1/2, R_yx = -R_yy A and m_y = R_yy b. Constant
experts therefore drop R_yx, a tied gate shares R_xx, and frozen atoms hold the mass exp(0). Each of these
families is a selection of coordinates, nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from moe_prompts.estimators.gaussian.monomials import Monomials
from moe_prompts.models.gaussian_gated import LOG_2PI, GaussianGatedFamily, GaussianGatedMoE


@dataclass(frozen=True)
class Atoms:
    """Hold the coordinates of all free atoms before the selection.

    alpha  (k,)        log masses
    v      (k, q - 1)  entries of (R, m), with diagonals not in logs
    """

    alpha: np.ndarray
    v: np.ndarray


class Chart:
    """Map theta (p,) to parameters of ``family`` in standardised units and back.

    The same object turns the statistics of a pass over the data into value, gradient and Hessian in theta.

    monomials            index tables of the products of z
    q                    coordinates of one atom: its log mass and the entries of (R, m)
    slot       (k q,)    position of each coordinate in theta, -1 where it is held at 0
    p                    number of coordinates of theta
    embedding  (k q, p)  0/1 matrix that puts theta in its coordinates
    """

    def __init__(self, family: GaussianGatedFamily) -> None:
        self.family = family
        D, l = family.d + family.l, family.l
        self.monomials = Monomials.of(D)
        rows = [(i, j) for i in range(D) for j in [*range(i, D), -1]]  # j = -1 stands for m_i
        self.row = np.array([i for i, _ in rows])
        self.column = np.array([j for _, j in rows])
        self.diagonal = np.flatnonzero(self.row == self.column)
        self.q = 1 + len(rows)
        self.tensor = _quadratic_tensor(D)
        self.slot = self._slots(l)
        self.p = int(self.slot.max()) + 1
        self.embedding = np.zeros((family.k * self.q, self.p))
        used = np.flatnonzero(self.slot >= 0)
        self.embedding[used, self.slot[used]] = 1

    def _slots(self, l: int) -> np.ndarray:
        """Return the position in theta of each coordinate (k * q,), -1 where it is held at 0."""
        slope = (self.row < l) & (self.column >= l)
        gate = (self.row >= l) & (self.column >= l)
        shared: dict[int, int] = {}
        slots, free = [], 0
        for atom in range(self.family.k):
            # Only differences of log masses count. Frozen atoms hold the reference mass; without any, the
            # last atom does.
            gauge = self.family.frozen is None and atom == self.family.k - 1
            for a in range(-1, self.q - 1):
                held = gauge if a < 0 else self.family.experts == "constant" and slope[a]
                if held:
                    slots.append(-1)
                elif a >= 0 and self.family.tied_gate and gate[a] and a in shared:
                    slots.append(shared[a])
                else:
                    if a >= 0 and gate[a]:
                        shared[a] = free
                    slots.append(free)
                    free += 1
        return np.array(slots)

    # -- theta <-> parameters --------------------------------------------------------------------------------

    def atoms(self, theta: np.ndarray) -> Atoms:
        """Return the coordinates of all atoms at theta (p,)."""
        eta = (self.embedding @ theta).reshape(self.family.k, self.q)
        v = eta[:, 1:].copy()
        v[:, self.diagonal] = np.exp(v[:, self.diagonal])
        return Atoms(eta[:, 0], v)

    def factors(self, atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
        """Return R (k, D, D) and m (k, D) of the atoms."""
        D = self.monomials.D
        R, m = np.zeros((self.family.k, D, D)), np.zeros((self.family.k, D))
        in_R = self.column >= 0
        R[:, self.row[in_R], self.column[in_R]] = atoms.v[:, in_R]
        m[:, self.row[~in_R]] = atoms.v[:, ~in_R]
        return R, m

    def theta_of(self, params: GaussianGatedMoE) -> np.ndarray:
        """Return theta (p,) for parameters in the family, in standardised units, frozen atoms last."""
        k, l = self.family.k, self.family.l
        D = self.monomials.D
        R, m = np.zeros((k, D, D)), np.zeros((k, D))
        upper = lambda covs: np.linalg.cholesky(np.linalg.inv(covs)).swapaxes(1, 2)
        R_yy, R_xx = upper(params.noise_covs[:k]), upper(params.gate_covs[:k])
        R[:, :l, :l], R[:, l:, l:] = R_yy, R_xx
        R[:, :l, l:] = -R_yy @ params.slopes[:k]
        m[:, :l] = np.einsum("kij,kj->ki", R_yy, params.intercepts[:k])
        m[:, l:] = np.einsum("kij,kj->ki", R_xx, params.gate_means[:k])
        reference = params.weights[k:].sum() if self.family.n_frozen else params.weights[k - 1]
        eta = np.empty((k, self.q))
        eta[:, 0] = np.log(params.weights[:k] / reference)
        in_R = self.column >= 0
        eta[:, 1:][:, in_R] = R[:, self.row[in_R], self.column[in_R]]
        eta[:, 1:][:, ~in_R] = m[:, self.row[~in_R]]
        eta[:, 1 + self.diagonal] = np.log(eta[:, 1 + self.diagonal])
        theta = np.empty(self.p)
        used = self.slot >= 0
        theta[self.slot[used]] = eta.ravel()[used]  # tied coordinates agree, so the last one written is any of them
        return theta

    def params_of(self, theta: np.ndarray, frozen: GaussianGatedMoE | None) -> GaussianGatedMoE:
        """Return the parameters for theta (p,), in standardised units, followed by ``frozen`` atoms."""
        atoms = self.atoms(theta)
        R, m = self.factors(atoms)
        l = self.family.l
        R_yy, R_xx = R[:, :l, :l], R[:, l:, l:]
        solve = np.linalg.solve
        covariance = lambda R: np.linalg.inv(R.swapaxes(1, 2) @ R)
        symmetric = lambda S: (S + S.swapaxes(1, 2)) / 2
        logs = self._log_masses(atoms)
        free = GaussianGatedMoE(
            weights=np.exp(logs[: self.family.k] - np.logaddexp.reduce(logs[: self.family.k])),
            gate_means=solve(R_xx, m[:, l:, None])[..., 0],
            gate_covs=symmetric(covariance(R_xx)),
            slopes=-solve(R_yy, R[:, :l, l:]),
            intercepts=solve(R_yy, m[:, :l, None])[..., 0],
            noise_covs=symmetric(covariance(R_yy)),
        )
        return free if frozen is None else free.joined(frozen, float(np.exp(logs[-1])))

    def _log_masses(self, atoms: Atoms) -> np.ndarray:
        """Return log pi of the free atoms and, where there are frozen atoms, of these together (last)."""
        alpha = np.append(atoms.alpha, 0.0) if self.family.n_frozen else atoms.alpha
        return alpha - np.logaddexp.reduce(alpha)

    # -- what the passes need and what they return -----------------------------------------------------------

    def coefficients(self, atoms: Atoms) -> tuple[np.ndarray, float]:
        """Return what a pass needs: W (k, P), and the log mass of the frozen atoms.

        Row k satisfies w_k . phi(z) = log pi_k N(z; mu_k, Sigma_k). The log mass is -inf without frozen
        atoms.
        """
        logs = self._log_masses(atoms)
        C = self._first(atoms)
        W = 0.5 * np.einsum("kpa,ka->kp", C, atoms.v)
        W[:, 0] += logs[: self.family.k] + np.log(atoms.v[:, self.diagonal]).sum(axis=1)
        W[:, 0] -= 0.5 * self.monomials.D * LOG_2PI
        return W, float(logs[-1]) if self.family.n_frozen else -np.inf

    def _first(self, atoms: Atoms) -> np.ndarray:
        """Return C (k, P, q - 1): derivatives of the quadratic part in each v_a, by monomial."""
        P, width = self.monomials.P, self.q - 1
        return (atoms.v @ self.tensor.reshape(P * width, width).T).reshape(-1, P, width)

    def _chain(self, atoms: Atoms) -> np.ndarray:
        """Return J (k, P, q), the monomial coefficients of d(w_k . phi) in each coordinate.

        The normaliser of the masses is left out.
        """
        J = np.zeros((self.family.k, self.monomials.P, self.q))
        J[:, 0, 0] = 1
        J[:, :, 1:] = self._first(atoms)
        # The coordinate of a diagonal entry is its log: the chain rule multiplies by R_ii, and log R_ii adds
        # 1.
        J[:, :, 1 + self.diagonal] *= atoms.v[:, None, self.diagonal]
        J[:, 0, 1 + self.diagonal] += 1
        return J

    def _scores(self, atoms: Atoms, J: np.ndarray, S: np.ndarray, total: float) -> np.ndarray:
        """Return the derivatives (k, q) of the log-likelihood in each coordinate."""
        scores = np.einsum("kpa,kp->ka", J, S)
        scores[:, 0] -= total * np.exp(self._log_masses(atoms)[: self.family.k])
        return scores

    def curvature(
        self, atoms: Atoms, S: np.ndarray, Q: np.ndarray, total: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return gradient (p,) and Hessian (p, p) of the log-likelihood, and the information (p, p).

        atoms                coordinates of the point
        S      (k, P)        sums of responsibilities times monomials
        Q      (k, k, P, P)  sums of their covariances over the labels
        total                number of observations

            H = J'QJ (what the missing labels take away)
                + the second derivatives of w_k . phi - n (diag pi - pi pi').

        The information is that of known labels at the current responsibilities. It is positive definite by
        construction, since it leaves out the first-order terms of the log-diagonal, which vanish at a
        stationary point.
        """
        k, q = self.family.k, self.q
        J = self._chain(atoms)
        scores = self._scores(atoms, J, S, total)
        H = np.matmul(np.matmul(J.swapaxes(1, 2)[:, None], Q), J[None]).transpose(0, 2, 1, 3).copy()
        pi = np.exp(self._log_masses(atoms)[:k])
        complete = np.zeros((k, q, k, q))
        complete[:, 0, :, 0] = total * (np.diag(pi) - np.outer(pi, pi))
        scale = np.ones((k, q - 1))
        scale[:, self.diagonal] = atoms.v[:, self.diagonal]
        second = np.einsum("pab,kp->kab", self.tensor, S) * scale[:, :, None] * scale[:, None, :]
        a = np.arange(k)
        complete[a, 1:, a, 1:] = -second
        H -= complete
        counts = S[:, 0]
        # The second derivative in log R_ii has a first-order term besides the second-order one: the score
        # less the count that log R_ii adds to it. The information leaves the score out and keeps the count,
        # which is positive.
        for diagonal in self.diagonal:
            complete[a, 1 + diagonal, a, 1 + diagonal] += counts
            H[a, 1 + diagonal, a, 1 + diagonal] += scores[:, 1 + diagonal] - counts
        project = lambda M: self.embedding.T @ M.reshape(k * q, k * q) @ self.embedding
        return self.embedding.T @ scores.ravel(), project(H), project(complete)


@cache
def _quadratic_tensor(D: int) -> np.ndarray:
    """Return T (P, q - 1, q - 1), the quadratic part of a log density by monomial.

    The coefficient of monomial p in -(v_i . q_i)^2 / 2, summed over rows i, is v'T_p v / 2.
    """
    monomials = Monomials.of(D)
    rows = [(i, j) for i in range(D) for j in [*range(i, D), -1]]
    tensor = np.zeros((monomials.P, len(rows), len(rows)))
    sign = lambda j: -1.0 if j < 0 else 1.0
    for a, (row_a, i) in enumerate(rows):
        for b, (row_b, j) in enumerate(rows):
            if row_a == row_b:
                tensor[monomials.pair_of[i + 1, j + 1], a, b] = -sign(i) * sign(j)
    return tensor
