"""A temperature in the algebra, against derivatives of the explicit density."""

import numpy as np
import pytest
import sympy as sp

from moe_prompts import InputError, dependences
from moe_prompts.claims import algebra
from moe_prompts.theory.temperature import tempered


def value_of(atom):
    return atom.function(atom.components[0])


@pytest.mark.parametrize(
    ("activation", "kept"), [(None, True), ("identity", True), ("tanh", False), ("sigmoid", False)]
)
def test_the_scaling_of_gate_and_temperature_is_seen_by_plain_differentiation(activation, kept):
    """tau u_tau + beta u_beta, with numbers put in: zero exactly where the logit is homogeneous."""
    made = tempered(activation)
    beta, tau, *_ = made.params
    moved = tau * sp.diff(value_of(made), tau) + beta * sp.diff(value_of(made), beta)
    at = dict(zip((*made.params, *made.inputs), (0.7, 1.3, -0.4, 0.2, 0.6, 0.9, -0.5), strict=True))
    assert (abs(float(moved.subs(at))) < 1e-12) is kept
    first = dependences(made, order=1)
    assert [first.text(identity) for identity in first.identities] == ([algebra.SCALING] if kept else [])


def test_a_scaled_mixture_is_the_same_mixture():
    """Three experts with normaliser: (c beta, c beta0, c tau) has the density of (beta, beta0, tau)."""
    rng = np.random.default_rng(0)
    beta, beta0, a, b = rng.standard_normal((4, 3))
    x, y = rng.standard_normal((2, 50, 1))

    def density(beta, beta0, tau):
        logits = (x * beta + beta0) / tau
        gates = np.exp(logits - logits.max(axis=1, keepdims=True))
        gates /= gates.sum(axis=1, keepdims=True)
        return (gates * np.exp(-((y - x * a - b) ** 2) / 2)).sum(axis=1)

    for c in (0.1, 3.0, 50.0):
        np.testing.assert_allclose(density(c * beta, c * beta0, c * 1.7), density(beta, beta0, 1.7), rtol=1e-12)


def test_an_activation_unties_gate_and_expert():
    """Without one, u_(beta b) is a multiple of u_a; with tanh only the heat equation of the noise is left."""
    plain, tanh = (dependences(tempered(name), order=2) for name in (None, "tanh"))
    assert "u_(beta b) = (1/tau) u_a" in [plain.text(identity) for identity in plain.identities]
    assert [tanh.text(identity) for identity in tanh.identities] == ["u_bb = 2 u_s"]


def test_an_unknown_activation_is_refused():
    with pytest.raises(InputError, match="nothing"):
        tempered("nothing")
