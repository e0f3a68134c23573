"""Compute Q of prompt regression and its derivatives by one compiled loop over vectors and blocks of points.

``import`` needs numba; ``objective`` imports this module on first use (``moe_prompts.compilation``). What it
computes is written in NumPy in ``models.prompt_derivatives`` and ``objective``. Tests compare the two, and
the activations that a user adds take the NumPy route. With g the gates, s_l and v_l the logit and value of
prompt l, r the residual and F = g_l ds_l,

    J = g_l ((v_l - f) ds_l + dv_l),   gradient = J'r,   Gauss-Newton = J'WJ,
    rest = sum_l g_l [lean_l ds_l ds_l' + ds_l p_l' + p_l ds_l' + force_l d2 prompt_l] - F S' - S F',

where lean_l = r'(v_l - f), p_l = r'dv_l and S = sum_l g_l (lean_l ds_l + p_l). Points come in blocks of
``BLOCK``, the last one filled up with points of weight 0. Every inner loop runs along a row of points, so
that LLVM turns it into vector instructions. Sums may be reordered there ("reassoc"); all else keeps the rules
of IEEE arithmetic.

Every function and number stands in this one file: the cache of numba looks at the file of an entry, not at
the files that it takes from.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from moe_prompts.compilation import compiled

#: Points of a block: rows of one block stay in the second level of cache, and ends of loops cost little.
BLOCK = 128
#: Kinds of prompts and activations as numbers.
FIXED, DECOUPLED, ADAPTIVE = 0, 1, 2
TANH, GELU, RELU, SIGMOID, IDENTITY = 0, 1, 2, 3, 4
KINDS = {"fixed": FIXED, "decoupled": DECOUPLED, "adaptive": ADAPTIVE}
ACTIVATIONS = {"tanh": TANH, "gelu": GELU, "relu": RELU, "sigmoid": SIGMOID, "identity": IDENTITY}

#: Inlined by force: of a loop that stands by itself there are two translations, of which a process that
#: compiles takes one and a process that loads from the cache the other.
pointwise = njit(fastmath={"contract"}, error_model="numpy", nogil=True, forceinline=True)
summing = njit(fastmath={"contract", "reassoc", "nsz"}, error_model="numpy", nogil=True, forceinline=True)
#: Below this t, t Phi(t) loses digits to underflow and Phi(t) is 1/2.
TINY = 1e-290
ROOT_HALF, DENSITY = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)


@pointwise
def logistic(t):
    """Return 1 / (1 + e^-t) without overflow."""
    small = math.exp(-abs(t))
    return 1 / (1 + small) if t >= 0 else small / (1 + small)


@pointwise
def activate(sigma, width, t, value):
    """Fill sigma(t) along a row; relu's kink is rounded to a parabola over |t| < width."""
    if sigma == TANH:
        for i in range(BLOCK):
            value[i] = math.tanh(t[i])
    elif sigma == GELU:
        for i in range(BLOCK):
            value[i] = 0.5 * t[i] * math.erfc(-ROOT_HALF * t[i])
    elif sigma == RELU:
        for i in range(BLOCK):
            value[i] = (t[i] + width) ** 2 / (4 * width) if abs(t[i]) < width else max(t[i], 0.0)
    elif sigma == SIGMOID:
        for i in range(BLOCK):
            value[i] = logistic(t[i])
    else:
        for i in range(BLOCK):
            value[i] = t[i]


@pointwise
def derive(sigma, width, t, value, first, second):
    """Fill sigma'(t) and sigma''(t) along a row where ``value`` holds sigma(t)."""
    if sigma == TANH:
        for i in range(BLOCK):
            first[i] = 1 - value[i] * value[i]
            second[i] = -2 * value[i] * first[i]
    elif sigma == GELU:
        for i in range(BLOCK):
            density = DENSITY * math.exp(-0.5 * t[i] * t[i])
            # sigma(t) / t is the distribution function, which takes longer than all else here.
            first[i] = (value[i] / t[i] if abs(t[i]) > TINY else 0.5) + t[i] * density
            second[i] = (2 - t[i] * t[i]) * density
    elif sigma == RELU:
        for i in range(BLOCK):
            inside = abs(t[i]) < width
            first[i] = (t[i] + width) / (2 * width) if inside else (1.0 if t[i] > 0 else 0.0)
            second[i] = 1 / (2 * width) if inside else 0.0
    elif sigma == SIGMOID:
        for i in range(BLOCK):
            first[i] = value[i] * logistic(-t[i])
            second[i] = first[i] * (1 - 2 * value[i])
    else:
        for i in range(BLOCK):
            first[i], second[i] = 1.0, 0.0


@pointwise
def scaled(weight, row, out):
    """Fill out = weight * row."""
    for i in range(BLOCK):
        out[i] = weight * row[i]


@pointwise
def add(weight, row, out):
    """Add weight * row to ``out``."""
    for i in range(BLOCK):
        out[i] += weight * row[i]


@pointwise
def add_product(one, other, out):
    """Add one * other, entry by entry, to ``out``."""
    for i in range(BLOCK):
        out[i] += one[i] * other[i]


@summing
def dot(one, other):
    """Return the sum over a row of one * other."""
    total = 0.0
    for i in range(BLOCK):
        total += one[i] * other[i]
    return total


@summing
def dot3(one, other, third):
    """Return the sum over a row of one * other * third."""
    total = 0.0
    for i in range(BLOCK):
        total += one[i] * other[i] * third[i]
    return total


@pointwise
def room(k, outputs, units):
    """Return the rows that ``regress`` fills: f, gates, experts, hidden, active, keyed, largest exponent."""
    f, gates, experts = np.empty((outputs, BLOCK)), np.empty((k, BLOCK)), np.empty((k, outputs, BLOCK))
    hidden, active, keyed = np.empty((k, units, BLOCK)), np.empty((k, units, BLOCK)), np.empty((units, BLOCK))
    return f, gates, experts, hidden, active, keyed, np.empty(BLOCK)


@pointwise
def regress(kind, sigma, width, b, atoms, w2, C, c, inputs, queries, frozen, blend, rows):
    """Fill f (l, B), gates (k, B) and experts (k, l, B) at one block, and hidden units with their activation.

    frozen  (B,) log of the mass of the frozen experts
    blend   (l, B) their weighted mean
    rows    from ``room``; keyed (r, B) is what a hidden unit adds to a logit
    """
    f, gates, experts, hidden, active, keyed, top = rows
    k, outputs, p, units, reads = len(b), len(C), len(queries), w2.shape[1], len(inputs)
    for u in range(units):
        scaled(w2[0, u], queries[0], keyed[u])
        for i in range(1, p):
            add(w2[i, u], queries[i], keyed[u])
    for point in range(BLOCK):
        top[point] = frozen[point]
    for l in range(k):
        logit = gates[l]
        for point in range(BLOCK):
            logit[point] = b[l]
        if kind == ADAPTIVE:
            for o in range(outputs):
                experts[l, o] = c[o]
            for u in range(units):
                before, after = hidden[l, u], active[l, u]
                scaled(atoms[l, u * reads], inputs[0], before)
                for i in range(1, reads):
                    add(atoms[l, u * reads + i], inputs[i], before)
                activate(sigma, width, before, after)
                add_product(keyed[u], after, logit)
                for o in range(outputs):
                    weight = 0.0
                    for i in range(p):
                        weight += C[o, i] * w2[i, u]
                    add(weight, after, experts[l, o])
        else:
            for i in range(p):
                add(atoms[l, i], queries[i], logit)
            first = p if kind == DECOUPLED else 0
            for o in range(outputs):
                value = c[o]
                for i in range(p):
                    value += C[o, i] * atoms[l, first + i]
                experts[l, o] = value
        for point in range(BLOCK):
            top[point] = max(top[point], logit[point])
    # The largest exponent is 0, so that nothing overflows and the total is at least 1.
    for l in range(k):
        for point in range(BLOCK):
            gates[l, point] = math.exp(gates[l, point] - top[point])
    for point in range(BLOCK):
        top[point] = math.exp(frozen[point] - top[point])
    for o in range(outputs):
        for point in range(BLOCK):
            f[o, point] = top[point] * blend[o, point]
        for l in range(k):
            add_product(gates[l], experts[l, o], f[o])
    for l in range(k):
        add(1.0, gates[l], top)
    for point in range(BLOCK):
        top[point] = 1 / top[point]
    for l in range(k):
        for point in range(BLOCK):
            gates[l, point] *= top[point]
    for o in range(outputs):
        for point in range(BLOCK):
            f[o, point] *= top[point]


@pointwise
def slopes(kind, unit_columns, w2, C, inputs, queries, first, active, keyed, ds, dv):
    """Fill d logit (own, B) and d value (l, own, B) of one prompt in all that it depends on.

    It depends on its b, its own numbers, and W2. With ``unit_columns`` f knows the columns w of W2 by their
    direction only: what lies along w is taken out.
    """
    p, units, reads, outputs = len(queries), w2.shape[1], len(inputs), len(C)
    for point in range(BLOCK):
        ds[0, point] = 1.0
    for o in range(outputs):
        dv[o, 0] = 0.0
    if kind != ADAPTIVE:
        values = 1 + p if kind == DECOUPLED else 1
        for i in range(p):
            for point in range(BLOCK):
                ds[1 + i, point] = queries[i, point]
            for o in range(outputs):
                dv[o, 1 + i] = 0.0
        for i in range(p):
            if kind == DECOUPLED:
                ds[values + i] = 0.0
            for o in range(outputs):
                dv[o, values + i] = C[o, i]
        return
    for u in range(units):
        for i in range(reads):
            row = 1 + u * reads + i
            for point in range(BLOCK):
                ds[row, point] = first[u, point] * inputs[i, point]
            for o in range(outputs):
                weight = 0.0
                for j in range(p):
                    weight += C[o, j] * w2[j, u]
                scaled(weight, ds[row], dv[o, row])
            for point in range(BLOCK):
                ds[row, point] *= keyed[u, point]
    if ds.shape[0] == 1 + units * reads:  # W2 is not free
        return
    for i in range(p):
        for u in range(units):
            row = 1 + units * reads + i * units + u
            along = w2[i, u] if unit_columns else 0.0
            for point in range(BLOCK):
                ds[row, point] = active[u, point] * (queries[i, point] - along * keyed[u, point])
            for o in range(outputs):
                weight = C[o, i]
                if unit_columns:
                    for j in range(p):
                        weight -= along * C[o, j] * w2[j, u]
                scaled(weight, active[u], dv[o, row])


@summing
def bend(l, own, unit_columns, w2, C, inputs, queries, residual, gate, lean, first, second, active, row, turn, rest):
    """Add the curvature of adaptive prompt l to the lower half of ``rest``.

    The curvature is its force times its second derivatives, summed over the block. The force force_i = g
    (lean q_i + (C'r)_i), i < p, is what prompt l is pulled by.
    """
    p, units, reads, outputs = len(queries), w2.shape[1], len(inputs), len(C)
    free = own.shape[1] > 1 + units * reads
    force = turn[:p]
    for i in range(p):
        for point in range(BLOCK):
            force[i, point] = lean[point] * queries[i, point]
        for o in range(outputs):
            add(C[o, i], residual[o], force[i])
        for point in range(BLOCK):
            force[i, point] *= gate[point]
    pulled = turn[p]
    for u in range(units):
        scaled(w2[0, u], force[0], pulled)
        for i in range(1, p):
            add(w2[i, u], force[i], pulled)
        for point in range(BLOCK):
            row[point] = pulled[point] * second[u, point]
        for i in range(reads):
            for j in range(i + 1):
                rest[own[l, 1 + u * reads + i], own[l, 1 + u * reads + j]] += dot3(row, inputs[i], inputs[j])
        if not free:
            continue
        for i in range(p):
            along = w2[i, u] if unit_columns else 0.0
            for point in range(BLOCK):
                row[point] = (force[i, point] - along * pulled[point]) * first[u, point]
            for j in range(reads):
                rest[own[l, 1 + units * reads + i * units + u], own[l, 1 + u * reads + j]] += dot(row, inputs[j])
        if unit_columns:  # w = v / |v| at |v| = 1 bends too: 3 (t'w) w w' - (t'w) I - t w' - w t'
            radial = dot(pulled, active[u])
            for i in range(p):
                one = dot(force[i], active[u])
                for j in range(i + 1):
                    other = dot(force[j], active[u])
                    value = 3 * radial * w2[i, u] * w2[j, u] - one * w2[j, u] - other * w2[i, u]
                    if i == j:
                        value -= radial
                    rest[own[l, 1 + units * reads + i * units + u], own[l, 1 + units * reads + j * units + u]] += value


@summing
def gauss_newton(jacobian, weights, row, out):
    """Add J'WJ of one block to the lower half of ``out``, four columns at a time; jacobian (l, P, B)."""
    for o in range(jacobian.shape[0]):
        J = jacobian[o]
        for i in range(J.shape[0]):
            for point in range(BLOCK):
                row[point] = weights[point] * J[i, point]
            for j in range(0, i - 2, 4):
                a, b, c, d = 0.0, 0.0, 0.0, 0.0
                for point in range(BLOCK):
                    a += row[point] * J[j, point]
                    b += row[point] * J[j + 1, point]
                    c += row[point] * J[j + 2, point]
                    d += row[point] * J[j + 3, point]
                out[i, j] += a
                out[i, j + 1] += b
                out[i, j + 2] += c
                out[i, j + 3] += d
            for j in range((i + 1) // 4 * 4, i + 1):
                out[i, j] += dot(row, J[j])


@summing
def add_symmetric(sign, one, other, own, l, out):
    """Add sign (one other' + other one'), summed over a block, to the lower half of ``out``.

    Its rows and columns stand at the positions ``own[l]``.
    """
    for i in range(one.shape[0]):
        for j in range(0, i, 2):
            a, b = 0.0, 0.0
            for point in range(BLOCK):
                a += one[i, point] * other[j, point] + other[i, point] * one[j, point]
                b += one[i, point] * other[j + 1, point] + other[i, point] * one[j + 1, point]
            out[own[l, i], own[l, j]] += sign * a
            out[own[l, i], own[l, j + 1]] += sign * b
        if i % 2 == 0:
            out[own[l, i], own[l, i]] += sign * 2 * dot(one[i], other[i])


@summing
def misfit(f, weights, centre, remainder):
    """Return the sum over a row of (w (f - centre) - 2 remainder) (f - centre)."""
    total = 0.0
    for point in range(BLOCK):
        off = f[point] - centre[point]
        total += (weights[point] * off - 2 * remainder[point]) * off
    return total


@pointwise
def by_outputs(gate, experts, f, residual, ds, dv, own, jacobian, lean):
    """Add prompt l's part to the Jacobian (l, P, B) and fill lean = r'(v_l - f)."""
    for point in range(BLOCK):
        lean[point] = 0.0
    for o in range(len(f)):
        for point in range(BLOCK):
            lean[point] += residual[o, point] * (experts[o, point] - f[o, point])
        for i in range(len(own)):
            out = jacobian[o, own[i]]
            for point in range(BLOCK):
                out[point] += gate[point] * ((experts[o, point] - f[o, point]) * ds[i, point] + dv[o, i, point])


@pointwise
def by_prompts(gate, residual, lean, ds, dv, own, half, firsts, seconds):
    """Add prompt l's part to F and S (P, B), and fill half = g (lean ds / 2 + p).

    The prompt's own block of the Hessian is half ds' + ds half'.
    """
    for i in range(len(own)):
        pulled, F, S = half[i], firsts[own[i]], seconds[own[i]]
        for point in range(BLOCK):
            pulled[point] = 0.0
        for o in range(len(residual)):
            add_product(residual[o], dv[o, i], pulled)
        for point in range(BLOCK):
            F[point] += gate[point] * ds[i, point]
            S[point] += gate[point] * (lean[point] * ds[i, point] + pulled[point])
            pulled[point] = gate[point] * (0.5 * lean[point] * ds[i, point] + pulled[point])


#: Types of what both functions below are given: from ``kind`` to ``remainder``.
SHARED = (
    "int64,int64,float64,b1,float64[:,::1],float64[:,:,::1],float64[:,:,::1],float64[:,::1],float64[::1],"
    "float64[:,:,::1],float64[:,:,::1],float64[:,::1],float64[:,:,::1],int64[::1],float64[:,:,::1],float64[:,:,:,::1],"
    "float64[:,:,:,::1]"
)


@compiled(f"void({SHARED},float64[::1])")
def values(
    kind,
    sigma,
    width,
    unit_columns,
    b,
    atoms,
    w2,
    C,
    c,
    inputs,
    queries,
    frozen,
    blend,
    sets,
    weights,
    centre,
    remainder,
    out,
):
    """Fill ``out`` (S,) with 2 s^2 Q at S vectors."""
    k, outputs, units = b.shape[1], C.shape[0], w2.shape[2]
    rows = room(k, outputs, units)
    f = rows[0]
    for s in range(len(b)):
        total = 0.0
        for block in range(len(frozen)):
            x, q = inputs[block], queries[block]
            regress(kind, sigma, width, b[s], atoms[s], w2[s], C, c, x, q, frozen[block], blend[block], rows)
            for o in range(outputs):
                total += misfit(f[o], weights[sets[s], block], centre[sets[s], block, o], remainder[sets[s], block, o])
        out[s] = total


@compiled(f"void({SHARED},int64[:,::1],b1[::1],float64[:,::1],float64[:,:,::1],float64[:,:,::1])")
def derivatives(
    kind,
    sigma,
    width,
    unit_columns,
    b,
    atoms,
    w2,
    C,
    c,
    inputs,
    queries,
    frozen,
    blend,
    sets,
    weights,
    centre,
    remainder,
    own,
    exact,
    gradient,
    metric,
    rest,
):
    """Fill gradient (S, P), Gauss-Newton matrix (S, P, P) and, where ``exact``, the rest of the Hessian.

    All three are multiplied by s^2, and are zero on entry. ``own`` (k, own) holds where in the vector the
    numbers stand that each prompt depends on.
    """
    k, outputs, units, p, size = b.shape[1], C.shape[0], w2.shape[2], C.shape[1], gradient.shape[1]
    rows = room(k, outputs, units)
    f, gates, experts, hidden, active, keyed, _ = rows
    first, second, row = np.empty((units, BLOCK)), np.empty((units, BLOCK)), np.empty(BLOCK)
    ds, dv = np.empty((own.shape[1], BLOCK)), np.empty((outputs, own.shape[1], BLOCK))
    half, turn = np.empty((own.shape[1], BLOCK)), np.empty((p + 1, BLOCK))
    jacobian, residual, lean = np.empty((outputs, size, BLOCK)), np.empty((outputs, BLOCK)), np.empty(BLOCK)
    firsts, seconds = np.empty((size, BLOCK)), np.empty((size, BLOCK))
    everywhere = np.arange(size).reshape(1, size)
    for s in range(len(b)):
        for block in range(len(frozen)):
            x, q, w = inputs[block], queries[block], weights[sets[s], block]
            regress(kind, sigma, width, b[s], atoms[s], w2[s], C, c, x, q, frozen[block], blend[block], rows)
            for o in range(outputs):
                for point in range(BLOCK):
                    off = f[o, point] - centre[sets[s], block, o, point]
                    residual[o, point] = w[point] * off - remainder[sets[s], block, o, point]
            # The rows are used for every vector and block; each prompt adds its part to them.
            jacobian[:], firsts[:], seconds[:] = 0.0, 0.0, 0.0
            for l in range(k):
                for u in range(units):
                    derive(sigma, width, hidden[l, u], active[l, u], first[u], second[u])
                slopes(kind, unit_columns, w2[s], C, x, q, first, active[l], keyed, ds, dv)
                by_outputs(gates[l], experts[l], f, residual, ds, dv, own[l], jacobian, lean)
                # Far from a minimum a step takes J alone: ``minimise`` says which vectors are close.
                if exact[s]:
                    by_prompts(gates[l], residual, lean, ds, dv, own[l], half, firsts, seconds)
                    add_symmetric(1.0, half, ds, own, l, rest[s])
                    if kind == ADAPTIVE:
                        bend(
                            l,
                            own,
                            unit_columns,
                            w2[s],
                            C,
                            x,
                            q,
                            residual,
                            gates[l],
                            lean,
                            first,
                            second,
                            active[l],
                            row,
                            turn,
                            rest[s],
                        )
            for o in range(outputs):
                for i in range(size):
                    gradient[s, i] += dot(jacobian[o, i], residual[o])
            gauss_newton(jacobian, w, row, metric[s])
            # - F S' - S F': prompts compete for the same mass, so it is of all pairs of them at once.
            if exact[s]:
                add_symmetric(-1.0, firsts, seconds, everywhere, 0, rest[s])
        # Loops above fill lower halves alone.
        for i in range(size):
            for j in range(i):
                metric[s, j, i] = metric[s, i, j]
                rest[s, j, i] = rest[s, i, j]
