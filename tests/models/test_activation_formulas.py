"""Activations read from text: values against closed forms, rates by algebra, and what is refused."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import erf, expit

from moe_prompts import add_activation, predict, prompt_truth, rate_table, run_study
from moe_prompts.engine.executors import Joblib
from moe_prompts.errors import InputError
from moe_prompts.models import prompt_truths
from moe_prompts.models.activations import ACTIVATIONS, BUILT_IN, Activation
from moe_prompts.models.formulas import FUNCTIONS, Formula, parsed
from moe_prompts.study.attention import AttentionCell, attention_study
from moe_prompts.theory.certificates.verify import verify_table
from moe_prompts.theory.kernels import T, of_formula

#: Formulas with their values, first and second derivatives by hand.
BY_HAND = {
    "x/sqrt(1+x**2)": (
        lambda t: t / np.sqrt(1 + t * t),
        lambda t: (1 + t * t) ** -1.5,
        lambda t: -3 * t * (1 + t * t) ** -2.5,
    ),
    "x*sigmoid(x)": (
        lambda t: t * expit(t),
        lambda t: expit(t) * (1 + t * expit(-t)),
        lambda t: expit(t) * expit(-t) * (2 + t * (1 - 2 * expit(t))),
    ),
    "erf(x)": (
        erf,
        lambda t: 2 / np.sqrt(np.pi) * np.exp(-t * t),
        lambda t: -4 * t / np.sqrt(np.pi) * np.exp(-t * t),
    ),
    "x + sin(2*x)/4": (
        lambda t: t + np.sin(2 * t) / 4,
        lambda t: 1 + np.cos(2 * t) / 2,
        lambda t: -np.sin(2 * t),
    ),
    "log(1 + exp(t))": (lambda t: np.logaddexp(0, t), expit, lambda t: expit(t) * expit(-t)),
}
POINTS = np.linspace(-3, 3, 41)


@pytest.fixture
def clean():
    """Leave no activation behind."""
    yield
    for name in set(ACTIVATIONS) - BUILT_IN:
        del ACTIVATIONS[name]
    prompt_truths._found.cache_clear()


@pytest.mark.parametrize("text", BY_HAND)
def test_values_and_derivatives_are_those_by_hand(text):
    for order, wanted in enumerate(BY_HAND[text]):
        # Both are rounded at each of some ten operations of numbers of order 1.
        np.testing.assert_allclose(Formula(text, order)(POINTS), wanted(POINTS), rtol=1e-13, atol=1e-14)


def test_a_formula_keeps_the_shape_and_travels():
    formula = pickle.loads(pickle.dumps(Formula("2*x+1", 1)))
    assert formula(np.zeros((2, 3))).tolist() == [[2.0] * 3] * 2


@pytest.mark.parametrize("text", BY_HAND)
def test_the_ring_is_closed_and_right(text):
    """Each symbol's derivative in the ring is the derivative of its function; so is the value's."""
    import sympy as sp

    kernel = of_formula("mine", text)
    functions = dict(zip(kernel.symbols, kernel.functions, strict=True))
    assert set().union(*(d.free_symbols for d in kernel.derivatives)) <= {T, *kernel.symbols}
    for symbol, derivative in zip(kernel.symbols, kernel.derivatives, strict=True):
        off = (sp.diff(functions[symbol], T) - derivative.xreplace(functions)).subs(T, sp.Rational(7, 10))
        assert abs(off.evalf(40)) < 1e-30
    off = (kernel.value.xreplace(functions) - parsed(text)).subs(T, sp.Rational(-13, 10))
    assert abs(off.evalf(40)) < 1e-30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('__import__("os").system("touch here")', "is not understood"),
        ("(lambda: 1)()", "is not understood"),
        ("x.real", "is not understood"),
        ("x if x else 1", "is not understood"),
        ("[x]", "is not understood"),
        ("True*x", "is not understood"),
        ("abs(x)", "is not understood"),
        ("exp(x, x)", "is not understood"),
        ("y + 1", "is not understood"),
        ("x**x", "power t; expected a fixed multiple of 1/2"),
        ("x**(1/3)", "power 1/3; expected a fixed multiple of 1/2"),
        ("9**9**9", "power 387420489"),
        ("((9**12)**12)**12", "of a large number"),
        ("((x+1)**12)**12", "a power of a power"),
        ("1e9*x", "is not understood"),
        ("1", "is a constant"),
        ("x - x", "is a constant"),
        ("x/0", "divides by zero"),
        ("x +", "cannot be read"),
        ("", "expected a text of 1 to 200 characters"),
        ("x+" * 150 + "x", "expected a text of 1 to 200 characters"),
        ("1/x", "it is no finite number at 0"),
        ("sqrt(x**2)*x", "derivative is no finite number at 0"),
        ("exp(x**2)", "no finite number at -40"),
        ("x**2", "is even"),
        ("3*x", "is the identity times a number"),
        ("x**3", "is a power of x"),
    ],
)
def test_other_text_is_refused(text, message, tmp_path, monkeypatch, clean):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message.replace("*", r"\*").replace("(", r"\(")) as caught:
        add_activation("mine", text)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert "mine" not in ACTIVATIONS


def test_every_function_of_the_list_is_understood():
    for name in FUNCTIONS:
        inner = "2+x*x" if name in ("log", "sqrt") else "x"
        kernel = of_formula("mine", f"{name}({inner})")
        assert kernel.symbols


def test_names_and_arguments_are_checked(clean):
    for arguments, message in [
        (("isru",), "has no formula"),
        (("tanh", "x*sigmoid(x)"), "is taken"),
        (("fixed", "x*sigmoid(x)"), "is taken"),
        ((ACTIVATIONS["tanh"], "x"), "expected one Activation, or a name and a formula"),
        ((3,), "expected one Activation, or a name and a formula"),
    ]:
        with pytest.raises(InputError, match=message):
            add_activation(*arguments)


def test_rates_by_algebra_are_those_of_a_smooth_odd_activation_and_verify(clean):
    """As of tanh: regular where exact, n^-1/4 for a split prompt; the certificates hold by other means."""
    add_activation("isru", "x/sqrt(1+x**2)")
    table = rate_table("adaptive:isru", [1, 2], hidden=2)
    like = rate_table("adaptive:tanh", [1, 2], hidden=2)
    assert [(r.group, r.cell, r.exponent.theta) for r in table.rates] == [
        (r.group, r.cell, r.exponent.theta) for r in like.rates
    ]
    assert {rate.exponent.status for rate in table.rates} == {"proved"}
    assert verify_table(json.loads(table.to_json()))


@pytest.mark.parametrize("fit_class", ["exact", "over"])
def test_predictions_are_derived_for_an_added_activation(fit_class, clean):
    """The formula of tanh under another name gives what the committed file says of tanh."""
    add_activation("mytanh", "tanh(x)")
    for group in ("L2", "D", "singleton", "split"):
        mine, known = (
            predict("prompt-attention", f"adaptive:{name}", f"adaptive:{name}", fit_class, group)
            for name in ("mytanh", "tanh")
        )
        assert (mine and mine.exponent) == (known and known.exponent), group


def test_an_activation_without_a_formula_has_no_rates_and_says_so(clean):
    add_activation(
        Activation(
            "halftanh",
            lambda t: np.tanh(t) / 2,
            lambda t: (1 - np.tanh(t) ** 2) / 2,
            lambda t: -np.tanh(t) * (1 - np.tanh(t) ** 2),
            odd=True,
        )
    )
    with pytest.raises(InputError, match="was added without a formula"):
        rate_table("adaptive:halftanh", [1, 2])
    assert predict("prompt-attention", "adaptive:halftanh", "adaptive:halftanh", "exact", "D") is None


def test_a_formula_simulates_as_the_same_activation_does(clean):
    """Same data addresses differ by name, so the truth is compared: the regression of tanh under another name."""
    add_activation("mytanh", "tanh(x)")
    mine, known = prompt_truth("attention-mytanh"), prompt_truth("attention-tanh")
    np.testing.assert_allclose(mine.params.regression(mine.x), known.params.regression(known.x), rtol=1e-12)


def test_workers_know_it(clean, tmp_path):
    """Two processes, which import the package afresh, give the rows that one gives."""
    add_activation("isru", "x/sqrt(1+x**2)")
    made = attention_study(sizes=[1_000], replicates=1, entropy=3, truths=["attention-isru"], lines={}, ks=[2])
    fits = replace(made, cells=[cell for cell in made.cells if isinstance(cell, AttentionCell)])
    two = run_study(fits, tmp_path / "two", executor=Joblib(2, insist=True), progress=False)
    assert two.equals(run_study(fits, tmp_path / "one", progress=False))
    assert set(two["truth"]) == {"attention-isru"}
    assert set(two["status"]) == {"CERTIFIED"}
