"""Compile what stands between two passes over the points of prompts: small matrices, start by start.

``import`` needs numba; ``steps`` and ``coordinates`` load this module on first use
(``moe_prompts.compilation``). What each entry computes is written in NumPy in those two files, and tests
compare them. Nothing here is reordered, so a process that compiles and one that loads from the cache agree to
the last bit.
"""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import math

import numpy as np
from numba import njit

from moe_prompts.compilation import compiled

inlined = njit(nogil=True, forceinline=True)


@inlined
def factorise(H, shift, L):
    """Fill the lower half of L with the Cholesky factor of H + shift I, and say whether it exists."""
    P = H.shape[0]
    for j in range(P):
        pivot = H[j, j] + shift
        for m in range(j):
            pivot -= L[j, m] * L[j, m]
        if not 0.0 < pivot < np.inf:
            return False
        root = math.sqrt(pivot)
        L[j, j] = root
        for i in range(j + 1, P):
            value = H[i, j]
            for m in range(j):
                value -= L[i, m] * L[j, m]
            L[i, j] = value / root
    return True


@inlined
def forward(L, right, out):
    """Fill ``out`` with the solution of L out = right."""
    for i in range(L.shape[0]):
        value = right[i]
        for m in range(i):
            value -= L[i, m] * out[m]
        out[i] = value / L[i, i]


@inlined
def backward(L, out):
    """Replace ``out`` by the solution of L' x = out."""
    for back in range(L.shape[0]):
        i = L.shape[0] - 1 - back
        value = out[i]
        for m in range(i + 1, L.shape[0]):
            value -= L[m, i] * out[m]
        out[i] = value / L[i, i]


@compiled(
    "void(int64[::1], float64[:, ::1], float64[:, ::1], float64[:, :, ::1], float64[:, :, ::1], float64[::1], "
    "float64[::1], float64[:, :, ::1], float64, float64[:, :, ::1], float64[:, ::1], float64[:, ::1], float64[::1], "
    "b1[::1])"
)
def scaled_hessians(
    rows, x, gradient, metric, rest, lower, upper, gauges, least, scaled, scale, slope, decrease, definite
):
    """Fill scaled Hessians of ``rows`` with scale and gradient, and predicted decreases where definite.

    Definite is a Hessian without eigenvalues below ``least``.
    """
    P = x.shape[1]
    L, solved = np.empty((P, P)), np.empty(P)
    for t in range(len(rows)):
        r = rows[t]
        largest = 0.0
        for p in range(P):
            largest = max(largest, abs(metric[r, p, p]))
        for p in range(P):
            held = (x[r, p] <= lower[p] and gradient[r, p] > 0) or (x[r, p] >= upper[p] and gradient[r, p] < 0)
            size = math.sqrt(max(abs(metric[r, p, p]), 1e-12 * largest))
            scale[t, p] = 0.0 if held else 1 / size if size > 0 else np.inf
            slope[t, p] = gradient[r, p] * scale[t, p]
        for i in range(P):
            for j in range(P):
                scaled[t, i, j] = (metric[r, i, j] + rest[r, i, j]) * scale[t, i] * scale[t, j]
            if scale[t, i] == 0.0:
                scaled[t, i, i] += 1.0
        for g in range(gauges.shape[2]):
            length = 0.0
            for p in range(P):
                solved[p] = gauges[t, p, g] / scale[t, p] if scale[t, p] > 0 else 0.0
                length += solved[p] * solved[p]
            length = max(math.sqrt(length), 1e-300)
            for p in range(P):
                solved[p] /= length
            for i in range(P):
                for j in range(P):
                    scaled[t, i, j] += solved[i] * solved[j]
        definite[t] = True
        for shift in (-least, 0.0):
            definite[t] = definite[t] and factorise(scaled[t], shift, L)
        if definite[t]:
            forward(L, slope[t], solved)
            total = 0.0
            for p in range(P):
                total += solved[p] * solved[p]
            decrease[t] = 0.5 * total


@compiled(
    "void(int64[::1], float64[:, :, ::1], float64[:, ::1], float64[:, ::1], b1[::1], float64[::1], float64[:, ::1])"
)
def damped_steps(chosen, scaled, scale, slope, definite, damping, step):
    """Fill the steps -(H + damping I)^-1 g of those ``chosen`` whose Hessian is definite."""
    L = np.empty((scaled.shape[1], scaled.shape[1]))
    for u in range(len(chosen)):
        t = chosen[u]
        if definite[t] and factorise(scaled[t], damping[u], L):
            forward(L, slope[t], step[u])
            backward(L, step[u])
            for p in range(step.shape[1]):
                step[u, p] *= -scale[t, p]


@compiled(
    "void(int64[::1], float64[:, ::1], float64[:, ::1], float64[::1], float64[::1], float64[:, ::1], "
    "float64[:, :, ::1], float64[:, :, ::1], float64[:, ::1], float64[::1])"
)
def trials(rows, step, x, lower, upper, gradient, metric, rest, trial, predicted):
    """Fill the points that steps from ``rows`` reach in the box, and the decrease predicted for each."""
    P = x.shape[1]
    taken = np.empty(P)
    for u in range(len(rows)):
        r = rows[u]
        for p in range(P):
            trial[u, p] = min(max(x[r, p] + step[u, p], lower[p]), upper[p])
            taken[p] = trial[u, p] - x[r, p]
        total = 0.0
        for i in range(P):
            bent = 0.0
            for j in range(P):
                bent += (metric[r, i, j] + rest[r, i, j]) * taken[j]
            total -= taken[i] * (gradient[r, i] + 0.5 * bent)
        predicted[u] = total


@compiled(
    "void(int64[::1], float64[:, ::1], float64[::1], float64[::1], float64[:, ::1], float64[::1], float64[::1], "
    "float64[::1], b1[::1])"
)
def judge(rows, trial, predicted, reached, x, value, damping, factor, better):
    """Take the trials that decrease Q enough, say which, and renew the damping of all ``rows``."""
    for u in range(len(rows)):
        r = rows[u]
        gain = value[r] - reached[u]
        better[u] = gain > 0 and gain > 1e-4 * predicted[u]
        if better[u]:
            x[r] = trial[u]
            ratio = min(gain / predicted[u], 1.0) if predicted[u] > 0 else 0.0
            damping[r] = max(damping[r] * max(0.2, 1 - (2 * ratio - 1) ** 3), 1e-12)
            factor[r] = 2.0
        else:
            damping[r] *= factor[r]
            factor[r] *= 2


@compiled("void(float64[:, ::1], int64, int64, int64[::1], int64[::1], float64[:, ::1])")
def out_of_pair(phi, i, j, centre, split, out):
    """Fill ``out`` with the coordinates under those of a pair: ``PairCoordinates.inner``."""
    for s in range(len(phi)):
        out[s] = phi[s]
        one = math.sqrt(phi[s, j] / phi[s, i])
        two = 1 / one
        out[s, i], out[s, j] = math.log(phi[s, i]), math.log(phi[s, j])
        for a in range(len(centre)):
            c, h = phi[s, centre[a]], phi[s, split[a]]
            out[s, centre[a]], out[s, split[a]] = c + one * h, c - two * h


@inlined
def pair_row(row, phi, i, j, centre, split, one, two):
    """Replace a row by itself times d inner / d phi of a pair."""
    pulled = 0.0
    for a in range(len(centre)):
        above, below, h = row[centre[a]], row[split[a]], phi[split[a]]
        pulled += (one * above + two * below) * h
        row[centre[a]], row[split[a]] = above + below, one * above - two * below
    row[i] = (row[i] - 0.5 * pulled) / phi[i]
    row[j] = (row[j] + 0.5 * pulled) / phi[j]


@compiled(
    "void(float64[:, ::1], int64, int64, int64[::1], int64[::1], b1[::1], float64[:, ::1], float64[:, :, ::1], "
    "float64[:, :, ::1])"
)
def into_pair(phi, i, j, centre, split, exact, gradient, metric, rest):
    """Bring derivatives to the coordinates of a pair, in place: ``PairCoordinates.chain`` and ``bend``."""
    P = phi.shape[1]
    with_h = np.empty(len(centre))
    for s in range(len(phi)):
        one = math.sqrt(phi[s, j] / phi[s, i])
        two = 1 / one
        in_t, in_tt = 0.0, 0.0
        for a in range(len(centre)):
            above, below, h = one * gradient[s, centre[a]], two * gradient[s, split[a]], phi[s, split[a]]
            in_t += (above + below) * h
            in_tt += (above - below) * h
            with_h[a] = above + below
        of_i, of_j = gradient[s, i], gradient[s, j]
        pair_row(gradient[s], phi[s], i, j, centre, split, one, two)
        for number in range(4 if exact[s] else 2):
            M = metric[s] if number < 2 else rest[s]
            for p in range(P):
                pair_row(M[p], phi[s], i, j, centre, split, one, two)
            for p in range(P):  # symmetric in the end, the other side is the other way round
                for q in range(p):
                    M[p, q], M[q, p] = M[q, p], M[p, q]
        if not exact[s]:
            continue
        m_i, m_j = phi[s, i], phi[s, j]
        rest[s, i, i] += 0.25 * in_tt / (m_i * m_i) - (of_i - 0.5 * in_t) / (m_i * m_i)
        rest[s, j, j] += 0.25 * in_tt / (m_j * m_j) - (of_j + 0.5 * in_t) / (m_j * m_j)
        rest[s, i, j] -= 0.25 * in_tt / (m_i * m_j)
        rest[s, j, i] -= 0.25 * in_tt / (m_i * m_j)
        for a in range(len(centre)):
            by_i, by_j = -0.5 * with_h[a] / m_i, 0.5 * with_h[a] / m_j
            rest[s, i, split[a]] += by_i
            rest[s, split[a], i] += by_i
            rest[s, j, split[a]] += by_j
            rest[s, split[a], j] += by_j


@inlined
def sphere_row(row, v, held, eps):
    """Replace a row by itself times the derivative of eps v / |v| at |v| = 1 on the block ``held``."""
    along = 0.0
    for a in range(len(held)):
        along += row[held[a]] * v[held[a]]
    for a in range(len(held)):
        row[held[a]] = eps * (row[held[a]] - along * v[held[a]])


@compiled(
    "void(float64[:, ::1], int64[::1], float64[::1], b1[::1], float64[:, ::1], float64[:, :, ::1], float64[:, :, ::1])"
)
def onto_sphere(phi, held, eps, exact, gradient, metric, rest):
    """Bring derivatives to coordinates on a sphere, in place: ``OnSphere.chain`` and ``bend``."""
    P = phi.shape[1]
    pull = np.empty(len(held))
    for s in range(len(phi)):
        inner = 0.0
        for a in range(len(held)):
            pull[a] = eps[s] * gradient[s, held[a]]
            inner += pull[a] * phi[s, held[a]]
        sphere_row(gradient[s], phi[s], held, eps[s])
        for number in range(4 if exact[s] else 2):
            M = metric[s] if number < 2 else rest[s]
            for p in range(P):
                sphere_row(M[p], phi[s], held, eps[s])
            for p in range(P):
                for q in range(p):
                    M[p, q], M[q, p] = M[q, p], M[p, q]
        if not exact[s]:
            continue
        for a in range(len(held)):
            v = phi[s, held[a]]
            for b in range(len(held)):
                w = phi[s, held[b]]
                rest[s, held[a], held[b]] += 3 * inner * v * w - pull[a] * w - v * pull[b]
            rest[s, held[a], held[a]] -= inner
