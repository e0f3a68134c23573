"""Compile the loops over blocks of points: the passes of Gaussian and softmax gates.

``import`` needs numba and compiles; the first fit does it (``moe_prompts.compilation``). What each entry
computes is written in NumPy beside its caller, which tests compare with it.

Points come in blocks of ``BLOCK``, rows of one block stay in the first level of cache, and every loop below
runs along a row, so that LLVM turns it into vector instructions, as ``wide`` as the processor has. Sums may
be reordered there ("reassoc"); everything else keeps the rules of IEEE arithmetic, infinities and NaN
included.

exp(q) = 2^m e^f with m = round(q / ln 2) and |f| <= ln 2 / 2: e^f by a polynomial, 2^m by adding m to the
exponent's bits. log(t) = e ln 2 + log(m) with sqrt(1/2) <= m < sqrt(2): log(m) = 2 artanh(s), s = (m - 1) /
(m + 1), again by a polynomial. Coefficients interpolate at Chebyshev points; a test computes them anew. Both
are right to four ulp.

No loop calls the C library, so none depends on its version. Every function stands in this one file: the cache
of numba looks at the file of an entry, not at those that it calls.
"""

# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from moe_prompts.compilation import compiled

BLOCK = 320
#: Rows are this long, an odd number of lines of the cache: with a power of two they would share those of one
#: set.
STRIDE = BLOCK + 8
#: Numbers of a line of the cache.
LINE = 8
#: Monomials are taken five at a time, pairs of atoms two at a time; rows that are wanting are zero.
FIVE = 5

#: As in ``numpy_loops``. exp of more than HIGHEST counts as exp of HIGHEST, which is no safe total.
LOWEST, HIGHEST = -300.0, 650.0
SAFE_LOW, SAFE_HIGH = 1e-100, 1e260
#: A little more than exp of LOWEST.
NOTHING = 1e-130

LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453
LN2_HIGH, LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
#: 1.5 * 2^52: adding it rounds to an integer, which then stands in the low bits.
ROUND = 6755399441055744.0
EXP = (
    1.0, 1.0000000000000067, 0.5000000000000006, 0.16666666666554406, 0.04166666666657314, 0.008333333385667782,
    0.0013888888932488599, 0.00019841170270440067, 2.4801504346997686e-05, 2.764018079620985e-06,
    2.7626357241447223e-07,
)  # fmt: skip
LOG = (
    0.666666666666667, 0.39999999999899505, 0.28571428625975487, 0.2222221113479508, 0.18182889125261723,
    0.15331721600556042, 0.14616449685043406,
)  # fmt: skip
MANTISSA, ONE, ROOT_HALF = 0x000FFFFFFFFFFFFF, 0x3FF0000000000000, 0x3FE6A09E667F3BCD

EXACT, SUMS = {"contract"}, {"contract", "reassoc", "nsz"}
#: No check for division by 0, which would bar vectors. Inlined by force: of a loop that stands by itself
#: there are two translations, of which a process that compiles takes one and a process that loads from the
#: cache the other.
pointwise = njit(fastmath=EXACT, error_model="numpy", nogil=True, forceinline=True)
summing = njit(fastmath=SUMS, error_model="numpy", nogil=True, forceinline=True)


@intrinsic
def to_bits(context, number):
    """Return the bits of a double as an integer."""
    return types.int64(types.float64), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.IntType(64)
    )


@intrinsic
def from_bits(context, bits):
    """Return the double with these bits."""
    return types.float64(types.int64), lambda context, builder, signature, args: builder.bitcast(
        args[0], ir.DoubleType()
    )


@intrinsic
def wide(context):
    """Let LLVM take the widest vectors for the loops of the function that calls this.

    By itself it stops at 256 bits on processors that have 512, for fear of a lower clock. llvmlite lists no
    attribute that has a value, hence ``set.add``; without it the sums are as exact, in narrower vectors.
    """

    def generate(context, builder, signature, args):
        attributes = builder.function.attributes
        if isinstance(attributes, set):
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.none(), generate


@njit(nogil=True, forceinline=True)
def aligned(count):
    """Return ``count`` rows of zeros, each of which begins with a line of the cache.

    A vector of 512 bits is a line: elsewhere each access would be two.
    """
    room = np.zeros(count * STRIDE + LINE)
    skip = (-(room.ctypes.data // room.itemsize)) % LINE
    return room[skip : skip + count * STRIDE].reshape(count, STRIDE)


@pointwise
def exp(q):
    """Return e^q for LOWEST <= q <= HIGHEST; beyond them e^LOWEST or e^HIGHEST."""
    q = LOWEST if q < LOWEST else q
    q = HIGHEST if q > HIGHEST else q
    shifted = q * LOG2E + ROUND
    m = shifted - ROUND
    f = (q - m * LN2_HIGH) - m * LN2_LOW
    p = EXP[10] * f + EXP[9]
    p = p * f + EXP[8]
    p = p * f + EXP[7]
    p = p * f + EXP[6]
    p = p * f + EXP[5]
    p = p * f + EXP[4]
    p = p * f + EXP[3]
    p = p * f + EXP[2]
    p = p * f + EXP[1]
    p = p * f + EXP[0]
    return from_bits(to_bits(p) + (to_bits(shifted) << 52))


@pointwise
def log(t):
    """Return log(t) of a normal positive double."""
    bits = to_bits(t)
    e = (bits - ROOT_HALF) >> 52
    m = from_bits(bits - (e << 52))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = LOG[6] * z + LOG[5]
    p = p * z + LOG[4]
    p = p * z + LOG[3]
    p = p * z + LOG[2]
    p = p * z + LOG[1]
    p = p * z + LOG[0]
    return e * LN2 + (2.0 * s + s * z * p)


# Rows of monomials ------------------------------------------------------------------------------------------


@pointwise
def fill_monomials(z, first, b, phi):
    """Fill rows 1, z_1 .. z_D, z_i z_j (i <= j) of points ``first`` .. ``first + b``."""
    wide()
    D = z.shape[0]
    for i in range(D):
        source, row = z[i, first : first + b], phi[1 + i]
        for point in range(b):
            row[point] = source[point]
    p = D + 1
    for i in range(D):
        for j in range(i, D):
            one, other, row = phi[1 + i], phi[1 + j], phi[p]
            for point in range(b):
                row[point] = one[point] * other[point]
            p += 1


@pointwise
def quadratic(w, phi, q, b):
    """Set q = w . phi."""
    wide()
    a1, a2, a3, a4, a5 = phi[1], phi[2], phi[3], phi[4], phi[5]
    w0, w1, w2, w3, w4, w5 = w[0], w[1], w[2], w[3], w[4], w[5]
    for i in range(b):
        q[i] = w0 + w1 * a1[i] + w2 * a2[i] + w3 * a3[i] + w4 * a4[i] + w5 * a5[i]
    for p in range(1 + FIVE, len(w), FIVE):
        a1, a2, a3, a4, a5 = phi[p], phi[p + 1], phi[p + 2], phi[p + 3], phi[p + 4]
        w1, w2, w3, w4, w5 = w[p], w[p + 1], w[p + 2], w[p + 3], w[p + 4]
        for i in range(b):
            q[i] += w1 * a1[i] + w2 * a2[i] + w3 * a3[i] + w4 * a4[i] + w5 * a5[i]


@pointwise
def density(w, phi, r, total, b):
    """Set r = exp(w . phi) and add it to ``total``.

    Two loops: with more rows in one LLVM gives up the checks for
    overlap.
    """
    wide()
    quadratic(w, phi, r, b)
    for i in range(b):
        e = exp(r[i])
        r[i] = e
        total[i] += e


# Sums along rows --------------------------------------------------------------------------------------------


@summing
def log_of_product(total, b):
    """Return sum log(total).

    With one logarithm: the exponents are added, the mantissas (each below 2) multiplied."""
    wide()
    exponent, product = 0, 1.0
    for i in range(b):
        bits = to_bits(total[i])
        exponent += bits >> 52
        product *= from_bits((bits & MANTISSA) | ONE)
    return log(product) + (exponent - 1023 * b) * LN2


@summing
def row_sum(row, b):
    """Return the sum of a row."""
    wide()
    value = 0.0
    for i in range(b):
        value += row[i]
    return value


@summing
def weighted_log(total, weights, b):
    """Return sum weights log(total)."""
    wide()
    value = 0.0
    for i in range(b):
        value += weights[i] * log(total[i])
    return value


@summing
def moments(r, factor, rows, out, b):
    """Add sum r factor rows_p to ``out``: row 0 is 1, the others come in fives."""
    wide()
    a1, a2, a3, a4, a5 = rows[1], rows[2], rows[3], rows[4], rows[5]
    s0 = s1 = s2 = s3 = s4 = s5 = 0.0
    for i in range(b):
        x = r[i] * factor[i]
        s0 += x
        s1 += x * a1[i]
        s2 += x * a2[i]
        s3 += x * a3[i]
        s4 += x * a4[i]
        s5 += x * a5[i]
    out[0] += s0
    out[1] += s1
    out[2] += s2
    out[3] += s3
    out[4] += s4
    out[5] += s5
    for p in range(1 + FIVE, len(out), FIVE):
        a1, a2, a3, a4, a5 = rows[p], rows[p + 1], rows[p + 2], rows[p + 3], rows[p + 4]
        s1 = s2 = s3 = s4 = s5 = 0.0
        for i in range(b):
            x = r[i] * factor[i]
            s1 += x * a1[i]
            s2 += x * a2[i]
            s3 += x * a3[i]
            s4 += x * a4[i]
            s5 += x * a5[i]
        out[p] += s1
        out[p + 1] += s2
        out[p + 2] += s3
        out[p + 3] += s4
        out[p + 4] += s5


@summing
def products(left, right, out, b, upper):
    """Add left right' to ``out``: sums over the points of two rows times five.

    With ``upper`` what lies below the diagonal may be left out.
    """
    wide()
    for row in range(0, len(out), 2):
        one, two = left[row], left[row + 1]
        for p in range(row // FIVE * FIVE if upper else 0, out.shape[1], FIVE):
            a0, a1, a2, a3, a4 = right[p], right[p + 1], right[p + 2], right[p + 3], right[p + 4]
            s0 = s1 = s2 = s3 = s4 = 0.0
            t0 = t1 = t2 = t3 = t4 = 0.0
            for i in range(b):
                x, y = one[i], two[i]
                s0 += x * a0[i]
                s1 += x * a1[i]
                s2 += x * a2[i]
                s3 += x * a3[i]
                s4 += x * a4[i]
                t0 += y * a0[i]
                t1 += y * a1[i]
                t2 += y * a2[i]
                t3 += y * a3[i]
                t4 += y * a4[i]
            out[row, p] += s0
            out[row, p + 1] += s1
            out[row, p + 2] += s2
            out[row, p + 3] += s3
            out[row, p + 4] += s4
            out[row + 1, p] += t0
            out[row + 1, p + 1] += t1
            out[row + 1, p + 2] += t2
            out[row + 1, p + 3] += t3
            out[row + 1, p + 4] += t4


@summing
def unsafe(total, b):
    """Return how many totals are beyond the range that keeps full precision without a shift."""
    wide()
    count = 0
    for i in range(b):
        count += (total[i] < SAFE_LOW) | (total[i] > SAFE_HIGH)
    return count


@pointwise
def shift(r, total, top, k, b):
    """Set ``r`` = exp(r - top) from rows of exponents, ``total`` their sum, ``top`` each column's largest."""
    wide()
    for i in range(b):
        top[i] = r[0, i]
        total[i] = 0.0
    for j in range(1, k):
        for i in range(b):
            top[i] = r[j, i] if r[j, i] > top[i] else top[i]
    for j in range(k):
        for i in range(b):
            r[j, i] = exp(r[j, i] - top[i])
            total[i] += r[j, i]


@pointwise
def reciprocal(total, inverse, b):
    """Set inverse = 1 / total."""
    wide()
    for i in range(b):
        inverse[i] = 1.0 / total[i]


@pointwise
def multiply(one, other, out, b):
    """Set out = one other, point by point."""
    wide()
    for i in range(b):
        out[i] = one[i] * other[i]


@pointwise
def pair_rows(r, k, rows, inverse, factor, out, b):
    """Set rows r_i r_j inverse factor of all i < j, i < k, j < ``rows``."""
    wide()
    row = 0
    for i in range(k):
        one = r[i]
        for j in range(i + 1, rows):
            other, to = r[j], out[row]
            for point in range(b):
                to[point] = (one[point] * inverse[point]) * (other[point] * factor[point])
            row += 1


# Entries ----------------------------------------------------------------------------------------------------


@compiled(
    "float64(float64[:, ::1], float64[::1], float64[::1], float64[::1], float64[:, ::1], float64, int64[:, ::1], "
    "float64[:, ::1], float64[:, ::1])"
)
def gaussian_pass(z, frozen_logs, frozen, weights, W, log_frozen_mass, quads, S, packed):
    """Return L and add to S, and to ``packed`` where it has rows: ``NumpyLoops.e1`` and ``e2`` in one.

    z (D, n)         standardised points
    frozen_logs, frozen  summed log density of the frozen atoms and the density itself (n,), or none
    weights          (n,), or none
    W, S             (k, 1 + a multiple of 5), coefficients beyond the monomials are zero
    quads            factors of the monomials of degree <= 4
    packed           (pairs, monomials): sums of r_i r_j m for i < j, the frozen atoms last; an even number
                     of rows, a multiple of 5 columns
    """
    wide()
    n, k = z.shape[1], len(W)
    M = len(quads)
    columns, curvature = W.shape[1], len(packed) > 0
    beside, weighted = len(frozen) > 0, len(weights) > 0
    rows = k + 1 if beside else k
    phi, r, pairs = aligned(max(columns, packed.shape[1])), aligned(rows), aligned(len(packed))
    phi[0] = 1.0
    single = aligned(4)
    total, top, inverse, scaled = single[0], single[1], single[2], single[3]
    mass = 0.0 if log_frozen_mass < LOWEST else exp(log_frozen_mass)
    P = 1 + len(z) + len(z) * (len(z) + 1) // 2
    value = 0.0
    for first in range(0, n, BLOCK):
        b = min(BLOCK, n - first)
        fill_monomials(z, first, b, phi)
        if beside:
            density_of_frozen, last = frozen[first : first + b], r[k]
            for i in range(b):
                last[i] = density_of_frozen[i] * mass
                total[i] = last[i]
        else:
            for i in range(b):
                total[i] = 0.0
        for j in range(k):
            density(W[j], phi, r[j], total, b)
        shifted = unsafe(total, b) > 0
        if shifted:
            for j in range(k):
                quadratic(W[j], phi, r[j], b)
            if beside:
                for i in range(b):
                    r[k, i] = frozen_logs[first + i] + log_frozen_mass
            shift(r, total, top, rows, b)
        if weighted:
            weight = weights[first : first + b]
            value += weighted_log(total, weight, b)
            if shifted:
                for i in range(b):
                    value += weight[i] * top[i]
        else:
            value += log_of_product(total, b)
            if shifted:
                for i in range(b):
                    value += top[i]
        reciprocal(total, inverse, b)
        factor = inverse
        if weighted:
            multiply(inverse, weights[first : first + b], scaled, b)
            factor = scaled
        for j in range(k):
            moments(r[j], factor, phi, S[j], b)
        if curvature:
            pair_rows(r, k, rows, inverse, factor, pairs, b)
            for m in range(P, M):
                multiply(phi[quads[m, 0]], phi[quads[m, 1]], phi[m], b)
            products(pairs, phi, packed, b, False)
    return value


@compiled("void(float64[:, ::1], float64[:, ::1], float64[::1], float64[::1])")
def summed_densities(z, W, logs, densities):
    """Fill log sum_k exp(w_k . phi(z_i)) (n,) and its exponential, as ``gaussian_pass`` takes frozen atoms.

    z (D, n) standardised points; W (k, 1 + a multiple of 5), coefficients beyond the monomials are zero
    """
    wide()
    n, k = z.shape[1], len(W)
    phi, r, single = aligned(W.shape[1]), aligned(k), aligned(2)
    total, top = single[0], single[1]
    phi[0] = 1.0
    for first in range(0, n, BLOCK):
        b = min(BLOCK, n - first)
        fill_monomials(z, first, b, phi)
        for j in range(k):
            quadratic(W[j], phi, r[j], b)
        shift(r, total, top, k, b)
        of_logs, of_densities = logs[first : first + b], densities[first : first + b]
        for i in range(b):
            of_logs[i] = top[i] + log(total[i])
        for i in range(b):
            of_densities[i] = exp(of_logs[i])


@pointwise
def softmax_rows(r, total, top, log_sum, k, b):
    """Set ``r`` = softmax of its k rows, ``log_sum`` the log of the sum of their exponentials.

    What is at ``LOWEST`` below the largest counts as 0.
    """
    wide()
    shift(r, total, top, k, b)
    for i in range(b):
        log_sum[i] = top[i] + log(total[i])
    for j in range(k):
        for i in range(b):
            r[j, i] = r[j, i] / total[i] if r[j, i] > NOTHING else 0.0


@pointwise
def linear(w, X, first, out, b):
    """Set out = w . X, at points ``first`` .. ``first + b``."""
    wide()
    for i in range(b):
        out[i] = w[0] * X[0, first + i]
    for p in range(1, len(w)):
        row = X[p, first : first + b]
        for i in range(b):
            out[i] += w[p] * row[i]


@compiled("float64(float64[:, ::1], float64[:, ::1])")
def softmax_log_sums(X, table):
    """Return sum_i log sum_k exp(table_k . X_i)."""
    wide()
    n, k = X.shape[1], len(table)
    r, single = aligned(k), aligned(2)
    total, top = single[0], single[1]
    value = 0.0
    for first in range(0, n, BLOCK):
        b = min(BLOCK, n - first)
        for j in range(k):
            linear(table[j], X, first, r[j], b)
        shift(r, total, top, k, b)
        value += log_of_product(total, b)
        for i in range(b):
            value += top[i]
    return value


@compiled(
    "UniTuple(float64, 2)(float64[:, ::1], float64[::1], float64[:, ::1], float64[:, ::1], float64[::1], float64[::1], "
    "float64[:, :, ::1], float64[:, ::1], float64[:, :, ::1], float64[:, ::1])"
)
def softmax_pass(X, y, gate, experts, constants, precision, own, across, gates_own, gates_across):
    """Return the log-likelihood and the sum of the gates' log sums, and add sums over points.

    What they are is written in ``SoftmaxLikelihood.blocks`` and its callers.

    X (q, n), y (n,)    standardised inputs with a first row of ones, and outputs
    gate, experts       (k, q)
    constants           (k,), log densities at residual 0; ``precision`` (k,) is 1 / (2 s)
    own                 of each atom sum r u u': with u = (X, y) where ``across`` has no rows, for EM, else
                        u = (X, (e / s) X, (e^2 / s - 1) / 2), for exact curvature
    across              upper half of sum v v', where v holds r_k u_k of all atoms
    gates_own           of each atom sum g X X', with g the gates
    gates_across        upper half of sum w w', where w holds g_k X of all atoms

    Of all four the rows come to an even number, the columns to a multiple of five.
    """
    wide()
    (q, n), k = X.shape, len(gate)
    exact = len(across) > 0
    size = 2 * q + 1 if exact else q + 1
    g, r, residual, single = aligned(k), aligned(k), aligned(k), aligned(3)
    total, top, log_sum = single[0], single[1], single[2]
    # Rows beyond those that are filled stay zero.
    u = aligned(max(own.shape[2], gates_own.shape[2]))
    v, w = aligned(k * size + 2 * FIVE), aligned(k * q + 2 * FIVE)
    value, of_gates = 0.0, 0.0
    for first in range(0, n, BLOCK):
        b = min(BLOCK, n - first)
        for p in range(q):
            row, source = u[p], X[p, first : first + b]
            for i in range(b):
                row[i] = source[i]
        for p in range(q, len(u)):
            row = u[p]
            for i in range(b):
                row[i] = 0.0
        outputs = y[first : first + b]
        for j in range(k):
            linear(gate[j], X, first, g[j], b)
            for i in range(b):
                r[j, i] = g[j, i]
        softmax_rows(g, total, top, log_sum, k, b)
        of_gates += row_sum(log_sum, b)
        for j in range(k):
            e = residual[j]
            linear(experts[j], X, first, e, b)
            for i in range(b):
                e[i] = outputs[i] - e[i]
                r[j, i] += constants[j] - precision[j] * e[i] * e[i] - log_sum[i]
        softmax_rows(r, total, top, log_sum, k, b)
        value += row_sum(log_sum, b)
        for j in range(k):
            for p in range(q):
                multiply(g[j], u[p], w[j * q + p], b)
            products(w[j * q :], u, gates_own[j], b, False)
        products(w, w, gates_across, b, True)
        for j in range(k):
            if exact:
                e, last = residual[j], u[2 * q]
                for i in range(b):
                    t = 2.0 * precision[j] * e[i]
                    last[i] = 0.5 * e[i] * t - 0.5
                    e[i] = t
                for p in range(q):
                    multiply(e, u[p], u[q + p], b)
            else:
                row = u[q]
                for i in range(b):
                    row[i] = outputs[i]
            for p in range(size):
                multiply(r[j], u[p], v[j * size + p], b)
            products(v[j * size :], u, own[j], b, False)
        if exact:
            products(v, v, across, b, True)
    return value, of_gates
