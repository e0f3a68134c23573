"""Compile what stands between two passes of a climb: small matrices, one atom at a time.

``import`` needs numba; ``steps`` loads this module on first use (``moe_prompts.compilation``). What each
entry computes is written in NumPy in ``chart`` and ``em``, which tests compare with it. With matrices of a
few numbers NumPy spends its time on calls, ten times what the arithmetic takes.

Coordinates of atom k are numbered a = 0 .. q - 1: its log mass, then row by row i = 1 .. D the entries
R_ii, .., R_iD, m_i. ``slot`` (k, q) says where in theta they stand, -1 where they are held at 0. Nothing
here is reordered, so a process that compiles and one that loads from the cache agree to the last bit.
"""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np

from moe_prompts.compilation import compiled

LOG_2PI = math.log(2 * math.pi)
#: How a step ended.
FINE, FEW_POINTS, NARROW, FEW_FROZEN = 0, 1, 2, 3


@compiled("float64(float64[::1], int64[:, ::1], int64[:, ::1], boolean, float64[:, ::1])")
def coefficients(theta, slot, pair_of, frozen, W):
    """Fill W (k, P) and return the log mass of the frozen atoms: ``Chart.coefficients``."""
    k, D = len(slot), len(pair_of) - 1
    top = 0.0 if frozen else -np.inf
    for atom in range(k):
        alpha = theta[slot[atom, 0]] if slot[atom, 0] >= 0 else 0.0
        top = max(top, alpha)
    total = math.exp(-top) if frozen else 0.0
    for atom in range(k):
        total += math.exp((theta[slot[atom, 0]] if slot[atom, 0] >= 0 else 0.0) - top)
    log_total = top + math.log(total)
    row = np.empty(D + 1)
    for atom in range(k):
        for p in range(W.shape[1]):
            W[atom, p] = 0.0
        constant = (theta[slot[atom, 0]] if slot[atom, 0] >= 0 else 0.0) - log_total - 0.5 * D * LOG_2PI
        a = 1
        for i in range(D):
            # q_i = (z_i, .., z_D, -1) and v_i: minus m_i stands at the place of the monomial 1.
            constant += theta[slot[atom, a]] if slot[atom, a] >= 0 else 0.0
            for j in range(i, D):
                entry = theta[slot[atom, a]] if slot[atom, a] >= 0 else 0.0
                row[j + 1] = math.exp(entry) if j == i else entry
                a += 1
            row[i] = -(theta[slot[atom, a]] if slot[atom, a] >= 0 else 0.0)
            a += 1
            W[atom, 0] -= 0.5 * row[i] * row[i]
            for j in range(i + 1, D + 1):
                W[atom, pair_of[0, j]] -= row[i] * row[j]
                W[atom, pair_of[j, j]] -= 0.5 * row[j] * row[j]
                for other in range(j + 1, D + 1):
                    W[atom, pair_of[j, other]] -= row[j] * row[other]
        W[atom, 0] += constant
    return -log_total if frozen else -np.inf


@compiled(
    "int64(float64[:, ::1], float64, float64, float64, int64[:, ::1], int64[:, ::1], int64, boolean, boolean, "
    "boolean, float64[::1])"
)
def maximise(S, total, min_points, min_eigenvalue, slot, pair_of, l, constant, tied, frozen, theta):
    """Fill theta with the next point of EM from S (k, P), or say what forbids it: ``m_step``.

    The factor of an atom's covariance U U' = Sigma, U upper triangular, gives R = U^-1.
    """
    k, D = len(slot), len(pair_of) - 1
    covs, means, R = np.empty((k, D, D)), np.empty((k, D)), np.zeros((k, D, D))
    common, factor, inverse = np.zeros((D, D)), np.zeros((D, D)), np.zeros((D, D))
    explained = 0.0
    for atom in range(k):
        if not S[atom, 0] >= min_points:
            return FEW_POINTS
        explained += S[atom, 0]
    for atom in range(k):
        count, cov = S[atom, 0], covs[atom]
        for i in range(D):
            means[atom, i] = S[atom, pair_of[0, i + 1]] / count
        for i in range(D):
            for j in range(D):
                cov[i, j] = S[atom, pair_of[i + 1, j + 1]] / count - means[atom, i] * means[atom, j]
        # Sigma - min_eigenvalue is positive definite where no eigenvalue is smaller.
        for j in range(D):
            for i in range(j, D):
                value = cov[i, j] - (min_eigenvalue if i == j else 0.0)
                for m in range(j):
                    value -= factor[i, m] * factor[j, m]
                if i == j:
                    if not value >= 0.0:
                        return NARROW
                    factor[j, j] = math.sqrt(value)
                else:
                    factor[i, j] = value / factor[j, j] if factor[j, j] > 0 else 0.0
        # Experts that are constant in x: y and x are independent within an atom.
        if constant:
            for i in range(l):
                for j in range(l, D):
                    cov[i, j] = cov[j, i] = 0.0
        # One gate covariance for all atoms: the mean of theirs, weighted by their points.
        if tied:
            for i in range(l, D):
                for j in range(l, D):
                    common[i, j] += cov[i, j] * (count / explained)
    if frozen and not total - explained >= min_points:
        return FEW_FROZEN
    # The last turn, if any, is that of the shared block of x: it takes the place of every atom's own.
    for atom in range(k + (1 if tied else 0)):
        cov, first = (covs[atom], 0) if atom < k else (common, l)
        for j in range(D - 1, first - 1, -1):
            for i in range(j, first - 1, -1):
                value = cov[i, j]
                for m in range(j + 1, D):
                    value -= factor[i, m] * factor[j, m]
                if i == j:
                    if not value > 0.0:
                        return NARROW
                    factor[j, j] = math.sqrt(value)
                else:
                    factor[i, j] = value / factor[j, j]
        for j in range(D - 1, first - 1, -1):
            inverse[j, j] = 1.0 / factor[j, j]
            for i in range(j - 1, first - 1, -1):
                value = 0.0
                for m in range(i + 1, j + 1):
                    value -= factor[i, m] * inverse[m, j]
                inverse[i, j] = value / factor[i, i]
        for i in range(first, D):
            for j in range(i, D):
                if atom < k:
                    R[atom, i, j] = inverse[i, j]
                else:
                    for every in range(k):
                        R[every, i, j] = inverse[i, j]
    # Weights are measured against the frozen atoms, or else against the last one, which has no number.
    reference = total - explained if frozen else S[k - 1, 0]
    for atom in range(k):
        if slot[atom, 0] >= 0:
            theta[slot[atom, 0]] = math.log(S[atom, 0] / reference)
        a = 1
        for i in range(D):
            along = 0.0
            for j in range(i, D):
                along += R[atom, i, j] * means[atom, j]
                if slot[atom, a] >= 0:
                    theta[slot[atom, a]] = math.log(R[atom, i, j]) if j == i else R[atom, i, j]
                a += 1
            theta[slot[atom, a]] = along
            a += 1
    return FINE


@compiled("boolean(float64[::1], int64[:, ::1], int64, float64)")
def wide(theta, slot, D, min_eigenvalue):
    """Say whether no atom's joint covariance has an eigenvalue below ``min_eigenvalue``.

    1 / min_eigenvalue - R'R is then positive definite.
    """
    R, factor = np.zeros((D, D)), np.zeros((D, D))
    for entry in theta:
        if not math.isfinite(entry):
            return False
    for atom in range(len(slot)):
        a = 1
        for i in range(D):
            for j in range(i, D):
                entry = theta[slot[atom, a]] if slot[atom, a] >= 0 else 0.0
                R[i, j] = math.exp(entry) if j == i else entry
                a += 1
            a += 1
        for j in range(D):
            for i in range(j, D):
                value = 1.0 / min_eigenvalue if i == j else 0.0
                for m in range(j + 1):
                    value -= R[m, i] * R[m, j]
                for m in range(j):
                    value -= factor[i, m] * factor[j, m]
                if i == j:
                    if not value >= 0.0:
                        return False
                    factor[j, j] = math.sqrt(value)
                else:
                    factor[i, j] = value / factor[j, j] if factor[j, j] > 0 else 0.0
    return True


@compiled("void(float64[:, ::1], int64, int64[:, ::1], float64[:, :, :, ::1])")
def spread(packed, k, quad_of, Q):
    """Fill Q (k, k, P, P) from sums of r_i r_j m for i < j; frozen atoms are atom k."""
    P, row = len(quad_of), 0
    rows = k
    while rows * (rows - 1) // 2 < len(packed):
        rows += 1
    own = np.zeros((rows, packed.shape[1]))
    for i in range(rows):
        for j in range(i + 1, rows):
            for m in range(packed.shape[1]):
                own[i, m] += packed[row, m]
                own[j, m] += packed[row, m]
            if j < k:
                for p in range(P):
                    for q in range(P):
                        Q[i, j, p, q] = Q[j, i, p, q] = -packed[row, quad_of[p, q]]
            row += 1
    for i in range(k):
        for p in range(P):
            for q in range(P):
                Q[i, i, p, q] = own[i, quad_of[p, q]]


@compiled(
    "void(float64[::1], float64[:, ::1], float64[:, :, :, ::1], float64, int64[:, ::1], int64[:, ::1], boolean, "
    "float64[::1], float64[:, ::1], float64[:, ::1])"
)
def curvature(theta, S, Q, total, slot, pair_of, frozen, gradient, hessian, information):
    """Add gradient, Hessian and information to arrays of zeros: ``Chart.curvature``."""
    k, q = slot.shape
    D, P = len(pair_of) - 1, S.shape[1]
    # The coordinates of one atom by their rows: entry (i, j) of R has the monomial z_j, m_i has -1.
    row, monomial = np.zeros(q, dtype=np.int64), np.zeros(q, dtype=np.int64)
    a = 1
    for i in range(D):
        for j in range(i, D + 1):
            row[a], monomial[a] = i, (j + 1 if j < D else 0)
            a += 1
    v, J, pi = np.zeros((k, q)), np.zeros((k, P, q)), np.empty(k)
    top = 0.0 if frozen else -np.inf
    for atom in range(k):
        for a in range(q):
            v[atom, a] = theta[slot[atom, a]] if slot[atom, a] >= 0 else 0.0
        top = max(top, v[atom, 0])
    masses = math.exp(-top) if frozen else 0.0
    for atom in range(k):
        pi[atom] = math.exp(v[atom, 0] - top)
        masses += pi[atom]
    scale = np.ones((k, q))
    for atom in range(k):
        pi[atom] /= masses
        for a in range(1, q):
            if monomial[a] == row[a] + 1:
                v[atom, a] = scale[atom, a] = math.exp(v[atom, a])
        J[atom, 0, 0] = 1.0
        for a in range(1, q):
            sign_a = -1.0 if monomial[a] == 0 else 1.0
            for b in range(1, q):
                if row[a] == row[b]:
                    sign = sign_a if monomial[b] > 0 else -sign_a
                    J[atom, pair_of[monomial[a], monomial[b]], a] -= sign * v[atom, b] * scale[atom, a]
            if monomial[a] == row[a] + 1:
                J[atom, 0, a] += 1.0
    half = np.empty((P, q))
    for one in range(k):
        for a in range(q):
            score = 0.0
            for p in range(P):
                score += J[one, p, a] * S[one, p]
            if a == 0:
                score -= total * pi[one]
            if slot[one, a] >= 0:
                gradient[slot[one, a]] += score
                if a > 0 and monomial[a] == row[a] + 1:
                    # The second derivative in log R_ii has a first-order term, the score less the count that
                    # log R_ii adds to it. The information leaves the score out and keeps the count.
                    hessian[slot[one, a], slot[one, a]] += score - S[one, 0]
                    information[slot[one, a], slot[one, a]] += S[one, 0]
        for a in range(1, q):
            for b in range(1, q):
                if row[a] == row[b] and slot[one, a] >= 0 and slot[one, b] >= 0:
                    sign = -1.0 if (monomial[a] == 0) != (monomial[b] == 0) else 1.0
                    second = -sign * S[one, pair_of[monomial[a], monomial[b]]] * scale[one, a] * scale[one, b]
                    hessian[slot[one, a], slot[one, b]] += second
                    information[slot[one, a], slot[one, b]] -= second
        for other in range(one, k):
            if slot[one, 0] >= 0 and slot[other, 0] >= 0:
                mass = total * (-pi[one] * pi[other] + (pi[one] if one == other else 0.0))
                information[slot[one, 0], slot[other, 0]] += mass
                hessian[slot[one, 0], slot[other, 0]] -= mass
                if other > one:
                    information[slot[other, 0], slot[one, 0]] += mass
                    hessian[slot[other, 0], slot[one, 0]] -= mass
            for p in range(P):
                for b in range(q):
                    value = 0.0
                    for m in range(P):
                        value += Q[one, other, p, m] * J[other, m, b]
                    half[p, b] = value
            for a in range(q):
                if slot[one, a] < 0:
                    continue
                for b in range(q):
                    if slot[other, b] < 0:
                        continue
                    value = 0.0
                    for p in range(P):
                        value += J[one, p, a] * half[p, b]
                    hessian[slot[one, a], slot[other, b]] += value
                    if other > one:
                        hessian[slot[other, b], slot[one, a]] += value
