"""Compiled steps of a climb against those in NumPy, in every sort of family and at every guard."""

import numpy as np
import pytest
from cases import FAMILIES, member
from numpy.testing import assert_allclose

from moe_prompts import compilation
from moe_prompts.estimators.gaussian.chart import Chart
from moe_prompts.estimators.gaussian.moments import DataPasses
from moe_prompts.estimators.gaussian.steps import KERNELS, CompiledSteps, PlainSteps, steps_of
from moe_prompts.estimators.trust_region import CollapseError

loops = pytest.importorskip(KERNELS)


def both(family, n=400, seed=0, min_eigenvalue=1e-7):
    """Both sorts of steps on the same passes, and a point that is neither the truth nor a maximum."""
    data = member(family, seed).sample(n, np.random.default_rng(seed + 1))
    passes = DataPasses(family, data, min_eigenvalue=min_eigenvalue)
    chart = Chart(family)
    theta = chart.theta_of(passes.scale.inward(family.project(member(family, seed))))
    theta = theta + 0.05 * np.random.default_rng(seed + 2).standard_normal(len(theta))
    return PlainSteps(passes, chart), CompiledSteps(loops, passes, chart), theta


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_are_those_of_numpy(name):
    plain, fast, theta = both(FAMILIES[name])
    W, log_mass = plain.chart.coefficients(plain.chart.atoms(theta))
    got, got_mass = fast._coefficients(theta)
    assert_allclose(got, W, rtol=1e-13, atol=1e-13 * np.abs(W).max())
    assert_allclose(got_mass, log_mass, rtol=1e-13)
    # Inverses and Cholesky factors of matrices of condition up to 1e3 lose so many digits.
    assert_allclose(fast.em(theta, 3), plain.em(theta, 3), rtol=1e-10, atol=1e-10)
    _, S, Q = plain.passes.e2(W, log_mass)
    atoms = plain.chart.atoms(theta)
    for one, other in zip(
        fast.curvature(theta, S, Q), plain.chart.curvature(atoms, S, Q, plain.passes.total), strict=True
    ):
        assert_allclose(one, other, rtol=1e-11, atol=1e-12 * np.abs(other).max())
    got_value, spectrum = fast.evaluate(theta)
    plain_value, expected = plain.evaluate(theta)
    assert got_value == pytest.approx(plain_value, rel=1e-13)
    assert_allclose(spectrum.values, expected.values, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", FAMILIES)
def test_spectrum_solves_the_pencil(name):
    """C C' is the information, and C^-1 H C^-T has these eigenvalues and vectors."""
    plain, _, theta = both(FAMILIES[name])
    W, log_mass = plain.chart.coefficients(plain.chart.atoms(theta))
    _, S, Q = plain.passes.e2(W, log_mass)
    gradient, hessian, information = plain.chart.curvature(plain.chart.atoms(theta), S, Q, plain.passes.total)
    _, spectrum = plain.evaluate(theta)
    C = spectrum.root
    assert_allclose(C @ C.T, information, rtol=1e-12, atol=1e-12 * np.abs(information).max())
    back = C @ (spectrum.vectors * spectrum.values) @ spectrum.vectors.T @ C.T
    assert_allclose(back, hessian, rtol=1e-9, atol=1e-11 * np.abs(hessian).max())
    assert_allclose(C @ spectrum.vectors @ spectrum.gradient, gradient, rtol=1e-9, atol=1e-10 * np.abs(gradient).max())
    s = np.linspace(-1, 1, len(theta))
    assert_allclose(C.T @ spectrum.step(s), spectrum.vectors @ s, rtol=1e-9, atol=1e-10)


def raised(call):
    with pytest.raises(CollapseError) as error:
        call()
    return str(error.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_guards_say_the_same(name):
    family = FAMILIES[name]
    plain, fast, theta = both(family, min_eigenvalue=0.9)  # standardised atoms are narrower than that
    for call in ("em", "evaluate"):
        arguments = (theta, 1) if call == "em" else (theta,)
        said = raised(lambda: getattr(fast, call)(*arguments))  # noqa: B023
        assert said == raised(lambda: getattr(plain, call)(*arguments))  # noqa: B023
        assert "narrower" in said
    if family.k > 1:
        plain, fast, theta = both(family)
        theta[plain.chart.slot[0]] = -700.0  # no mass for the first atom
        for call, arguments in (("em", (theta, 1)), ("evaluate", (theta,))):
            said = raised(lambda: getattr(fast, call)(*arguments))  # noqa: B023
            assert said == raised(lambda: getattr(plain, call)(*arguments))  # noqa: B023
            assert "explains" in said


def test_frozen_atoms_without_points():
    family = next(family for family in FAMILIES.values() if family.frozen is not None)
    plain, fast, theta = both(family)
    theta[plain.chart.slot.reshape(family.k, -1)[:, 0]] = 700.0
    assert raised(lambda: fast.em(theta, 1)) == raised(lambda: plain.em(theta, 1))
    assert "frozen" in raised(lambda: fast.em(theta, 1))


def test_no_number_is_a_collapse():
    _, fast, theta = both(next(iter(FAMILIES.values())))
    theta[:] = np.nan
    raised(lambda: fast.em(theta, 1))
    raised(lambda: fast.evaluate(theta))


def test_route_is_that_of_the_loops(monkeypatch):
    plain, _, _ = both(next(iter(FAMILIES.values())))
    monkeypatch.setenv(compilation.VARIABLE, "numpy")
    assert isinstance(steps_of(plain.passes, plain.chart), PlainSteps)
    monkeypatch.setenv(compilation.VARIABLE, "compiled")
    assert isinstance(steps_of(plain.passes, plain.chart), CompiledSteps)
