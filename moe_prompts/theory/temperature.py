"""Ask what a temperature does to a softmax gate: a common divisor of all logits that is estimated, too.

    softmax_k((beta_k' x + beta0_k) / tau) N(y; a_k x + b_k, s_k)

For every c > 0 the parameters (c beta, c beta0, c tau) give the same density, whatever the number of atoms,
so neither tau nor any beta_k is identified: only beta_k / tau is. The algebra sees it to first order,

    tau u_tau = -beta u_beta - beta0 u_beta0.

With an activation between the linear layer and the temperature, sigma(beta_k' x) / tau, this goes where sigma
is not positively homogeneous, and so do the second-order identities that tie gate and expert.

Source: arXiv 2401.13875, which finds rates slower than any polynomial with a temperature, and proposes the
activation; the scaling is derived here.
"""

from __future__ import annotations

import sympy as sp

from moe_prompts.theory.atoms import ONE, Atom, Component, Unit, X, Y, log_normal
from moe_prompts.theory.kernels import kernel


def tempered(activation: str | None = None) -> Atom:
    """Return a softmax-gated Gaussian expert of one input whose logit is divided by a temperature.

    activation  between the linear layer and the temperature, as ``theory.kernels`` names it; None for none

    Raises ``InputError`` for an unknown activation.

    >>> import moe_prompts as mp
    >>> report = mp.dependences(tempered(), order=1)
    >>> [report.text(identity) for identity in report.identities]
    ['u_tau = (-beta/tau) u_beta']
    """
    beta, tau, a, b, s = sp.symbols("beta tau a b s")
    x = X[0]
    units: tuple[Unit, ...] = ()
    score = beta * x
    if activation is not None:
        sigma = kernel(activation)
        units = (Unit(sigma, beta * x, sp.Symbol("t1"), tuple(sp.Symbol(f"{own.name}1") for own in sigma.symbols)),)
        score = units[0].localised(sigma.value)
    return Atom(
        spec={"kind": "softmax-gaussian with temperature"} | ({"activation": activation} if activation else {}),
        groups={"beta": (beta,), "tau": (tau,), "a": (a,), "b": (b,), "s": (s,)},
        inputs=(x, Y),
        values=(Component(score / tau + log_normal(Y - a * x - b, s), ONE),),
        gate=Component(score / tau, ONE),
        units=units,
        positive=(s, tau),
        shared=(tau,),
    )
