"""Compute zero-initialised attention: prompts with a softmax of their own behind a learned gating factor.

    f(x) = sum_j softmax_j(x'A_j x + a_j) h_j(x) + tanh(alpha) sum_l softmax_l((B key_l)'x + b_l) C val_l

Tokens keep their own softmax, so that with alpha = 0 prompts change nothing: training begins there. No frozen
expert stands in the softmax of the prompts. So their logit biases b are known up to a common number, and they
have the normal form sum_l e^{b_l} = ``MASS``.

What is known of the rest? Let f_P be the mean of the prompts under their gates g. Its derivatives are

    g_l (v_l - f_P) in b_l,   g_l [(v_l - f_P) (q Dk u) + C Dv u] in the prompt,   (1 - tanh^2) f_P in alpha.

With separate keys and values alpha is lost in the scale of the values, and a common translation of the keys
in the gates. With key = value = p neither is free: a scale of p changes the gates, and a translation the
values. With alpha* = 0 the derivative in alpha is the only one, and of the prompts nothing is known.

Linear prompts have other parameters with the same f, far away. With key = value = p and q = B'x the
logits are p'q + b, so that

    f_P = C grad_q log Z(q),   Z(q) = sum_l e^{b_l + p_l'q},

and f is a function of Z^tanh(alpha). The square of Z is a sum over pairs of prompts again: half the
factor and the prompts p_l + p_m with masses e^{b_l + b_m} give the same f (``squared``). L prompts become L(L
+ 1)/2, two become three: with so many or more in a fit neither prompts nor alpha are identified. Fewer are,
of two prompts or more: a sum Z of L >= 2 exponentials in general position is no power, and Z^2 has no fewer
terms. One prompt alone has a constant gate, and only tanh(alpha) C p is known. With prefixes key = value =
s(p) the same holds where s takes the values s(p_l) + s(p_m), which a bounded s need not do.

Source: arXiv 2502.03029 (zero-initialised attention with linear and non-linear prompts; LLaMA-Adapter is
arXiv 2303.16199).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from moe_prompts.checks import expect, real
from moe_prompts.errors import InputError
from moe_prompts.models.activations import Activation
from moe_prompts.models.prompt_attention import PromptAttention, PromptFamily, ZeroInitialised, single
from moe_prompts.models.prompt_derivatives import PromptMap, PromptValues


def zero_initialised(params: PromptAttention, alpha: float) -> PromptAttention:
    """Return the prompts of a head in zero-initialised attention with gating factor tanh(alpha).

    Raises ``InputError`` for several heads, and for an alpha that is not finite.

    >>> import moe_prompts as mp
    >>> made = zero_initialised(mp.prompt_truth("attention-fixed").params, alpha=0.8)
    >>> made.family.size, made.family.n_parameters
    (7, 6)
    """
    expect(params, PromptAttention, "zero_initialised: params")
    alpha = real(alpha, "(-inf, inf)", "zero_initialised: alpha")
    if isinstance(params.head, ZeroInitialised):
        raise InputError("zero_initialised: prompts that are zero-initialised already; expected those of a Head")
    return replace(params, head=ZeroInitialised(single(params.head)), factor=np.array([alpha]))


def squared(params: PromptAttention) -> PromptAttention:
    """Return other fixed prompts with the same zero-initialised f: half the factor, sums of pairs.

    Raises ``InputError`` for other prompts, and for an output with a bias c of values, which sums would
    double.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> params = mp.prompt_truth("attention-fixed-zeroinit").params
    >>> x, other = np.ones((1, 2)), squared(params)
    >>> other.k, bool(np.allclose(other.regression(x), params.regression(x), rtol=1e-12))
    (3, True)
    """
    expect(params, PromptAttention, "squared: params")
    head = params.head
    if not isinstance(head, ZeroInitialised) or params.kind.base != "fixed" or head.head.c.any():
        raise InputError("squared: expected fixed prompts on a zero-initialised head without a bias of values")
    one, other = np.triu_indices(params.k)
    b = params.b[one] + params.b[other] + np.where(one == other, 0.0, np.log(2))
    factor = np.arctanh(np.tanh(params.factor) / 2)
    return replace(params, b=b, atoms=params.atoms[one] + params.atoms[other], factor=factor)


class ZeroInitialisedMap:
    """Map theta to f(x; theta) of a family on a zero-initialised head at fixed points x (m, d)."""

    def __init__(self, family: PromptFamily, x: np.ndarray, activation: Activation | None = None) -> None:
        assert isinstance(family.head, ZeroInitialised)
        self.family = family
        self.part = PromptMap(replace(family, head=family.head.head), x, activation)
        self.part.frozen_logits = np.full_like(self.part.frozen_logits, -np.inf)  # prompts are among themselves
        self.tokens = family.head.tokens(x).T.copy()  # (l, m)

    def at(self, vectors: np.ndarray) -> ZeroInitialisedValues:
        """Return f at S vectors (S, size)."""
        return ZeroInitialisedValues(self, np.tanh(vectors[:, -1]), self.part.at(vectors[:, :-1]))


@dataclass(frozen=True)
class ZeroInitialisedValues:
    """Hold f at S vectors: tokens + factor (S,) times the mean of the prompts, ``part``."""

    map: ZeroInitialisedMap
    factor: np.ndarray
    part: PromptValues

    @property
    def f(self) -> np.ndarray:
        """Return f (S, l, m)."""
        return self.map.tokens + self.factor[:, None, None] * self.part.f

    def chosen(self, which: np.ndarray) -> ZeroInitialisedValues:
        """Return those of some of the vectors."""
        return ZeroInitialisedValues(self.map, self.factor[which], self.part.chosen(which))

    def jacobian(self) -> np.ndarray:
        """Return df / dtheta (S, size, l, m)."""
        factor = self.factor[:, None, None, None]
        return np.concatenate([factor * self.part.jacobian(), (1 - factor**2) * self.part.f[:, None]], axis=1)

    def curvature(self, residual: np.ndarray) -> np.ndarray:
        """Return the sum of residual (S, l, m) times d2f / dtheta2, (S, size, size)."""
        t = self.factor
        slope = 1 - t**2  # of tanh; its second derivative is -2 t slope
        mixed = slope[:, None] * (self.part.jacobian() * residual[:, None]).sum(axis=(2, 3))
        last = -2 * t * slope * (self.part.f * residual).sum(axis=(1, 2))
        own = t[:, None, None] * self.part.curvature(residual)
        top = np.concatenate([own, mixed[:, :, None]], axis=2)
        return np.concatenate([top, np.concatenate([mixed, last[:, None]], axis=1)[:, None]], axis=1)
