"""Replace a large sample on [-1, 1]^d by a short quadrature, so that fits cost the same for every n.

With l_c the tensor Lagrange polynomials at Gauss-Legendre nodes x_c,

    w_c = sum_i l_c(x_i),  s_c = sum_i l_c(x_i) y_i:
    sum_i g(x_i) = sum_c w_c g(x_c)   and   sum_i y_i'g(x_i) = sum_c s_c'g(x_c)

for every polynomial g of degree < nodes per axis. f is analytic where its activation is, so the error falls
geometrically with the number of nodes. relu has a kink, and no number of nodes helps.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import legendre

from moe_prompts.checks import expect, whole
from moe_prompts.errors import InputError
from moe_prompts.models.data import RegressionData, Sample
from moe_prompts.models.prompt_attention import PromptKind
from moe_prompts.models.prompt_truths import tensor_grid

NODES = 32
#: Weights of more nodes are off by more than they help.
MOST_NODES = 1000
MAX_INPUTS = 3
#: Number of rows of a block times the nodes of all axes but one: what is held in memory at once.
MAX_ENTRIES = 2**20


def quadrature(sample: Sample, kind: PromptKind, nodes: int = NODES) -> RegressionData:
    """Return the statistics of ``sample`` at ``nodes``^d points, for fits of prompts of ``kind``.

    sample  pairs x (n, d) in [-1, 1]^d, y (n, l); d at most 3
    kind    prompt kind, whose activation must be analytic
    nodes   number of nodes per axis; at least 2

    Raises ``InputError`` where ``kind`` has a kink, d is too large, ``nodes`` < 2, or x is empty or outside
    [-1, 1]^d.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> sample = mp.prompt_truth("attention-tanh").params.sample(1000, np.random.default_rng(0), noise=0.1)
    >>> mp.quadrature(sample, mp.PromptKind.parse("adaptive:tanh"), nodes=8).x.shape
    (64, 2)
    """
    n, d = expect(sample, Sample, "quadrature: sample").x.shape
    expect(kind, PromptKind, "quadrature: kind")
    nodes = whole(nodes, 2, "quadrature: nodes", most=MOST_NODES)
    if not kind.analytic:
        raise InputError(
            f"quadrature: {kind} prompts have a kink, which polynomials miss; fit RegressionData.of(sample)"
        )
    if d > MAX_INPUTS:
        raise InputError(
            f"quadrature: d = {d} inputs would need {nodes}^{d} nodes; expected d <= {MAX_INPUTS}, or fit "
            "RegressionData.of(sample)"
        )
    if n == 0 or np.abs(sample.x).max() > 1:
        reach = np.abs(sample.x).max() if n else 0.0
        raise InputError(f"quadrature: {n} pairs with |x| up to {reach:.3g}; expected some, within [-1, 1]: scale x")
    points, gauss_weights = legendre.leggauss(nodes)
    # l_c(t) = gauss_weight_c sum_k (2k + 1) / 2 P_k(x_c) P_k(t)
    lagrange = (legendre.legvander(points, nodes - 1) * (np.arange(nodes) + 0.5)).T * gauss_weights
    values = np.concatenate([np.ones((n, 1)), sample.y], axis=1)
    total = np.zeros((values.shape[1], nodes, nodes ** (d - 1)))
    block = max(256, MAX_ENTRIES // nodes ** max(d - 1, 1))
    for begin in range(0, n, block):
        rows = slice(begin, begin + block)
        first, *others = (legendre.legvander(sample.x[rows, axis], nodes - 1) @ lagrange for axis in range(d))
        rest = np.ones((len(first), 1))
        for other in others:
            rest = (rest[:, :, None] * other[:, None]).reshape(len(first), -1)
        for column, of in zip(values[rows].T, total, strict=True):
            of += (first * column[:, None]).T @ rest
    flat = total.reshape(len(total), -1).T
    return RegressionData(tensor_grid(points, d), flat[:, 0], flat[:, 1:], n)
