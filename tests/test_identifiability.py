"""What noise-free profiles say, against finite differences, SciPy and the numbers of the reference configuration."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from moe_prompts import InputError
from moe_prompts.identifiability import (
    DenseQuartic,
    Profile,
    _smallest_quartic,
    kappas,
    likelihood_gaps,
    profile,
    second_order_part,
)
from moe_prompts.models.gaussian_truths import prompt_data
from moe_prompts.models.prompt_attention import PromptAttention
from moe_prompts.models.prompt_derivatives import PromptMap
from moe_prompts.models.prompt_truths import prompt_truth, random_configuration


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("name", "kappa1", "kappa2"), [("fixed", 0.174, 0.857), ("tanh", 0.0234, 0.0122), ("gelu", 0.0429, 0.0385)]
)
def test_kappas_of_the_reference(name, kappa1, kappa2):
    found = kappas(prompt_truth(f"attention-{name}"), rng())
    assert_allclose([found.kappa1, found.kappa2], [kappa1, kappa2], atol=6e-4)  # known to three digits
    assert found.kappa2 == found.per_prompt.min()
    assert_allclose(np.linalg.norm(found.directions, axis=1), 1)


@pytest.mark.parametrize("name", ["decoupled", "identity", "fixed-rank1", "random-3-decoupled", "random-2-fixed-rank1"])
def test_invisible_splits_have_no_kappa2_but_a_kappa1(name):
    found = kappas(prompt_truth(f"attention-{name}"), rng())
    assert found.kappa2 < 1e-5
    assert found.kappa1 > 1e-3


@pytest.mark.parametrize("name", ["fixed", "decoupled", "gelu", "tanh", "identity", "prefix_tanh_gelu"])
def test_second_order_part_against_finite_differences(name):
    """The differences are those of e^{s} (v - f) / den in the prompt's own parameters, with den and f held."""
    params = prompt_truth(f"attention-{name}").params
    x = prompt_truth(f"attention-{name}").x[::17]
    values = PromptMap(params.family, x).at(params.vector[None])
    found = second_order_part(values, 1)
    f, frozen = params.regression(x), params.head.gates_and_experts(x)[0]
    keys, _ = params.prompts(x)
    den = np.exp(frozen).sum(axis=1) + np.exp(np.einsum("mp,mkp->mk", params.head.queries(x), keys) + params.b).sum(
        axis=1
    )

    def part(theta):
        one = PromptAttention(params.head, params.kind, params.b[1:], theta[None], params.W2)
        key, value = one.prompts(x)
        weight = np.exp((params.head.queries(x) * key[:, 0]).sum(axis=1) + one.b[0]) / den
        return (weight[:, None] * (value[:, 0] @ params.head.C.T - f)).T

    h, theta, units = 1e-4, params.atoms[1], np.eye(params.atoms.shape[1])
    for a, first in enumerate(units):
        for b, second in enumerate(units):
            corners = part(theta + h * (first + second)) + part(theta - h * (first + second))
            corners = corners - part(theta + h * (first - second)) - part(theta - h * (first - second))
            assert_allclose(found[a, b], corners / (8 * h * h), atol=1e-6)  # rounding over step squared: about 1e-8


@pytest.mark.parametrize("name", ["fixed", "gelu", "tanh", "random-3-prefix_tanh_gelu"])
def test_local_exponents_are_one_and_two(name):
    """At the smallest spreads, within .05 and .12: the limits 1 and 2 are reached as eps -> 0."""
    known = prompt_truth(f"attention-{name}")
    exact, over = (profile(known, rng(), surplus, eps=(0.0125, 0.025)) for surplus in (0, 1))
    assert abs(exact.exponents[0] - 1) < 0.05
    assert abs(over.exponents[0] - 2) < 0.12
    assert not over.vanishes
    assert exact.certified.all()
    assert over.certified[1]  # at the smallest spread of all the certificate may be lost to rounding: an upper bound


@pytest.mark.parametrize("name", ["decoupled", "identity", "fixed-rank1", "prefix_tanh_identity-separate"])
def test_profiles_of_invisible_splits_vanish(name):
    found = profile(prompt_truth(f"attention-{name}"), rng(), eps=(0.0125, 0.1))
    assert (found.value < 1e-12).all()
    assert found.vanishes
    assert np.isinf(found.exponents).all()
    assert np.isinf(found.predicted_split(np.array([1e3, 1e9]), 0.1)).all()


def test_kappa2_is_the_limit_of_the_profile():
    """profile(eps) -> kappa2 eps^2: a pair of total mass M and spread eps moves f by M eps^2 / 2 times the second
    derivative of a prompt of mass 1, kappa2 has e^b / 2 times it, and M -> e^b."""
    known = prompt_truth("attention-gelu")
    found = profile(known, rng(), eps=(0.004, 0.008))
    assert_allclose(found.value / found.eps**2, kappas(known, rng()).kappa2, rtol=0.02)


def test_the_exact_profile_is_scipys():
    """SLSQP on the same problem: one prompt at distance .1 from a true one, everything else free."""
    from scipy.optimize import minimize

    known = prompt_truth("attention-fixed")
    truth, family, eps = known.params.regression(known.x), known.params.family, 0.1
    slots = (slice(2, 4), slice(4, 6))
    error = lambda vector: 1e3 * ((family.unpack(vector).regression(known.x) - truth) ** 2).sum(axis=1).mean()
    best = np.inf
    for l, slot in enumerate(slots):
        held = {"type": "eq", "fun": lambda v, slot=slot, l=l: ((v[slot] - known.params.atoms[l]) ** 2).sum() - eps**2}
        for angle in np.linspace(0, 2 * np.pi, 4, endpoint=False):
            start = known.params.vector.copy()
            start[slot] += eps * np.array([np.cos(angle), np.sin(angle)])
            done = minimize(error, start, method="SLSQP", constraints=[held], options={"ftol": 1e-14, "maxiter": 300})
            best = min(best, done.fun) if abs(held["fun"](done.x)) < 1e-9 else best
    found = profile(known, rng(), 0, eps=(0.05, eps))
    assert_allclose(found.value[1], np.sqrt(best / 1e3), rtol=1e-4)


def test_splits_beyond_the_cell_are_left_out():
    """Prompts of the reference are about 2.7 apart: a pair with spread 4 cannot stay in one cell."""
    found = profile(prompt_truth("attention-fixed"), rng(), eps=(0.1, 4.0))
    assert np.isfinite(found.value[0])
    assert np.isnan(found.value[1])


@pytest.mark.parametrize("kind", ["tanh", "decoupled"])
def test_profiles_do_not_depend_on_the_unit_of_the_outputs(kind):
    """Outputs, and the noise, times 1e-8: exponents are what they were, and only invisible splits vanish."""
    known, u = prompt_truth(f"attention-{kind}"), 1e-8
    head = known.params.head
    small = replace(head, eta=u * head.eta, C=u * head.C, c=u * head.c)
    other = replace(known, params=replace(known.params, head=small), noise=u * known.noise)
    found, scaled = (profile(one, rng(), eps=(0.0125, 0.025)) for one in (known, other))
    assert scaled.vanishes == found.vanishes == (kind == "decoupled")
    if not found.vanishes:
        assert_allclose(scaled.value, u * found.value, rtol=1e-4)  # a minimum is certified to 1e-4 of its size


def test_predicted_split_solves_profile_equals_noise_level():
    eps = np.array([0.01, 0.1, 1.0])
    found = Profile(eps, 3 * eps**2, np.zeros(3, dtype=int), np.ones(3, dtype=bool))
    n = np.array([1e2, 1e5, 1e9, 1e12])
    wanted = np.sqrt(0.1 / np.sqrt(n) / 3)
    assert_allclose(found.predicted_split(n, 0.1), wanted, rtol=1e-12)  # the last by extension
    assert np.isinf(found.predicted_split(np.array([1e-6]), 0.1)).all()
    assert_allclose(found.exponents, 2)


def test_gaps_are_bounded_where_splits_are_invisible_and_grow_with_n_elsewhere():
    gaps = {
        name: [
            likelihood_gaps(prompt_truth(name), [prompt_data(name, n, 1, r) for r in range(4)], 0.4, rng())
            for n in (10_000, 1_000_000)
        ]
        for name in ("attention-fixed", "attention-decoupled")
    }
    assert all((gap > -2e-6).all() for pair in gaps.values() for gap in pair)  # certificates of 1e-6 each
    small, large = (gap.mean() for gap in gaps["attention-fixed"])
    assert_allclose(large / small, 100, rtol=0.1)  # about 356 and 36 000 nats, standard errors below 3 %
    # Over 16 data sets the mean is 1.3 to 1.7 nats, with standard deviation 1.6; four of them, four standard errors.
    assert max(gap.mean() for gap in gaps["attention-decoupled"]) < 5


@pytest.mark.slow
def test_random_configurations_are_not_selected():
    """Their kappas spread over a decade, and the reference is above most of them: it was chosen."""
    drawn = [kappas(random_configuration(number, "adaptive:tanh"), rng()).kappa2 for number in range(1, 13)]
    assert max(drawn) > 3 * min(drawn)
    reference = kappas(prompt_truth("attention-tanh"), rng()).kappa2
    assert reference > np.median(drawn)


def test_wrong_input():
    known = prompt_truth("attention-fixed")
    with pytest.raises(InputError, match=r"eps = \[0.1\]; expected at least two positive spreads"):
        profile(known, rng(), eps=[0.1])
    with pytest.raises(InputError, match="expected at least two positive spreads"):
        profile(known, rng(), eps=[0.0, 0.1])
    with pytest.raises(InputError, match=r"surplus = 2; expected 0 \(exact\) or 1"):
        profile(known, rng(), 2)
    with pytest.raises(InputError, match=r"spread = 0; expected a number in \(0, inf\)"):
        likelihood_gaps(known, [prompt_data(known.name, 100, 0)], 0, rng())


def test_a_profile_does_not_depend_on_which_other_spreads_are_asked_for():
    """Spreads of one call are data sets of very different n; what is small is relative to each one's own weights."""
    known = prompt_truth("attention-fixed")
    wide = profile(known, rng(), eps=(0.003125, 0.0125, 0.4))
    narrow = profile(known, rng(), eps=(0.0125, 0.4))
    assert (narrow.value > 0).all()
    assert_allclose(wide.value[1:], narrow.value, rtol=1e-6)  # both certified to 1e-6 of 100 nats


@pytest.mark.parametrize("seed", range(4))
def test_the_smallest_quartic_is_that_of_a_grid_and_of_scipy(seed):
    """In the plane against a fine grid; in four dimensions no descent of SciPy's from many starts ends below it."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(seed)
    for q in (2, 4):
        off = rng.standard_normal((q, q, 6))
        off = off + off.swapaxes(0, 1)
        gram = np.einsum("abm,cdm->abcd", off, off)
        size, u = _smallest_quartic(DenseQuartic(gram), np.random.default_rng(1).standard_normal((24, q)))
        value = lambda v, off=off: float((np.einsum("abm,a,b->m", off, v, v) ** 2).sum() / (v @ v) ** 2)
        assert np.linalg.norm(u) == pytest.approx(1, rel=1e-14)
        assert size**2 == pytest.approx(value(u), rel=1e-12)
        if q == 2:
            angles = np.linspace(0, np.pi, 100_001)
            values = np.einsum("abm,an,bn->mn", off, *[np.array([np.cos(angles), np.sin(angles)])] * 2)
            # The grid is at most pi / 2e5 away from the minimum, where the slope is 0.
            assert 0 <= (values**2).sum(axis=0).min() - size**2 < 1e-7 * np.abs(gram).sum()
        else:

            def with_slope(v, off=off):
                at, size = np.einsum("abm,b->am", off, v), v @ v
                seen = v @ at
                return (seen @ seen) / size**2, 4 * (at @ seen - (seen @ seen) / size * v) / size**2

            lowest = min(minimize(with_slope, start, jac=True).fun for start in rng.standard_normal((100, q)))
            assert size**2 <= lowest * (1 + 1e-9)
