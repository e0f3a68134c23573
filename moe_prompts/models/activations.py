"""Give adaptive prompts their activations, with two derivatives and the symmetries of a hidden unit.

A hidden unit contributes

    w sigma(v'x)

to a prompt. Its parameters (v, w) are known up to a sign if sigma is odd (tanh), and up to a positive scale
if it is positively homogeneous (relu). With the identity only the product of all units is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from scipy.special import expit, ndtr

from moe_prompts.checks import named, settings
from moe_prompts.errors import InputError
from moe_prompts.models.formulas import Formula, finite, parsed

Elementwise = Callable[[np.ndarray], np.ndarray]

#: Where an added activation is looked at, the step of its differences, and how far they may be off, relative
#: to 1 + size: rounding leaves 1e-11, curvature of order 1 another 1e-10.
LOOKED_AT, STEP, SAME = np.linspace(-3.01, 2.99, 60), 1e-5, 1e-7


@dataclass(frozen=True)
class Activation:
    """Hold an activation sigma, its first two derivatives and its symmetries.

    name                  what ``adaptive:NAME`` calls it
    value, first, second  sigma and its derivatives, elementwise on arrays
    odd                   whether sigma(-t) = -sigma(t)
    homogeneous           whether sigma(ct) = c sigma(t) for c > 0
    analytic              whether sigma is a power series everywhere, so that polynomial interpolation
                          converges
    width                 half the length over which ``rounded_relu`` rounds the kink
    formula               sigma as text, where it was made from one: rates are then derived by algebra too

    Raises ``InputError`` where one of them is of another kind.

    >>> import numpy as np
    >>> import moe_prompts as mp
    >>> sine = mp.Activation("sine", np.sin, np.cos, lambda t: -np.sin(t), odd=True)
    >>> float(sine.first(0.0))
    1.0
    """

    name: str
    value: Elementwise
    first: Elementwise
    second: Elementwise
    odd: bool = False
    homogeneous: bool = False
    analytic: bool = True
    width: float = 0.0
    formula: str = ""

    def __post_init__(self) -> None:
        named(self.name, "Activation: name")
        named(self.formula, "Activation: formula")
        for called in ("value", "first", "second"):
            if not callable(getattr(self, called)):
                raise InputError(f"Activation: {called} cannot be called; expected an elementwise function of arrays")
        settings(self, odd=bool, homogeneous=bool, analytic=bool, width="[0, inf)")

    @classmethod
    def of_formula(cls, name: str, text: str) -> Activation:
        """Return the activation that a formula in x describes, with derivatives and symmetries.

        name  name of the activation
        text  formula in x that SymPy reads, such as "x/sqrt(1+x**2)"

        Raises ``InputError`` where the formula cannot be read, or is not finite with two derivatives.

        >>> import moe_prompts as mp
        >>> mp.Activation.of_formula("isru", "x/sqrt(1+x**2)").odd
        True
        """
        parsed(text)
        finite(text)
        value, first, second = (Formula(text, order) for order in range(3))
        odd, homogeneous = (
            _same(value(-LOOKED_AT), -value(LOOKED_AT)),
            _same(value(3 * LOOKED_AT), 3 * value(LOOKED_AT)),
        )
        return cls(name, value, first, second, odd, homogeneous, formula=text)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.allclose(a, b, rtol=0, atol=SAME))


def _normal_density(t: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * t * t) / np.sqrt(2 * np.pi)


RELU = Activation(
    "relu",
    lambda t: np.maximum(t, 0),
    lambda t: (t > 0).astype(float),
    np.zeros_like,
    homogeneous=True,
    analytic=False,
)


def rounded_relu(width: float) -> Activation:
    """Return relu with its kink rounded to a parabola over |t| < ``width``.

    It differs from relu by at most width / 4.
    """
    return Activation(
        "relu",
        lambda t: np.where(np.abs(t) < width, (t + width) ** 2 / (4 * width), np.maximum(t, 0)),
        lambda t: np.clip((t + width) / (2 * width), 0, 1),
        lambda t: (np.abs(t) < width) / (2 * width),
        homogeneous=True,
        analytic=False,
        width=width,
    )


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation(
            "tanh",
            np.tanh,
            lambda t: 1 - np.tanh(t) ** 2,
            lambda t: -2 * np.tanh(t) * (1 - np.tanh(t) ** 2),
            odd=True,
        ),
        Activation(
            "gelu",
            lambda t: t * ndtr(t),
            lambda t: ndtr(t) + t * _normal_density(t),
            lambda t: (2 - t * t) * _normal_density(t),
        ),
        RELU,
        Activation(
            "sigmoid",
            expit,
            lambda t: expit(t) * expit(-t),
            lambda t: expit(t) * expit(-t) * (1 - 2 * expit(t)),
        ),
        Activation("identity", lambda t: t, np.ones_like, np.zeros_like, odd=True, homogeneous=True),
    )
}
#: The package's own; others were added.
BUILT_IN = frozenset(ACTIVATIONS)

#: Those that the compiled route knows; a user's own take the NumPy route.
COMPILED = tuple(ACTIVATIONS.values())


def activation(name: str) -> Activation:
    """Return the activation with this name.

    Raises ``InputError`` for a name that is not in ``ACTIVATIONS``.
    """
    if named(name, "activation") not in ACTIVATIONS:
        raise InputError(f"unknown activation {name!r}; expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def add_activation(new: Activation | str, formula: str | None = None) -> Activation:
    """Make an activation known by its name: ``adaptive:NAME`` then works in models, fits, losses and studies.

    new      an ``Activation``, or the name of one that ``formula`` describes
    formula  sigma as a text in x, such as ``x/sqrt(1+x**2)``, made of numbers, pi, + - * / ** and exp, log,
             sqrt, tanh, erf, sigmoid, sin, cos; derivatives and symmetries follow from it, and ``rate_table``
             and ``study`` derive its predicted rates by algebra

    ``prompt_truth("attention-NAME")`` is then the reference configuration with this activation. A study of
    the package that is made afterwards takes it along to its workers.

    Raises ``InputError`` for a name that is taken or not made of a-z, 0-9 and _, for derivatives that are not
    those of ``value``, for symmetries that are not as declared, for even functions (a sign that
    ``prompt_loss`` does not know), for ``analytic`` = False, and for a formula that cannot be read, is not
    finite, or is the identity times a number.

    >>> import moe_prompts as mp
    >>> mp.add_activation("isru", "x/sqrt(1+x**2)").name
    'isru'
    >>> mp.prompt_truth("attention-isru").kind
    'adaptive:isru'
    """
    if isinstance(new, str):
        if formula is None:
            raise InputError(f"add_activation({new!r}) has no formula; expected one such as 'x/sqrt(1+x**2)'")
        new = Activation.of_formula(new, formula)
    elif formula is not None or not isinstance(new, Activation):
        raise InputError("add_activation: expected one Activation, or a name and a formula")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", new.name) or new.name in (
        *ACTIVATIONS,
        "bias",
        "fixed",
        "decoupled",
        "prefix",
    ):
        raise InputError(f"activation name {new.name!r} is taken or not of a-z, 0-9 and _; expected a new one")
    if not new.analytic:
        raise InputError(f"activation {new.name!r} has analytic=False; expected True: kinks are rounded for relu only")
    t = LOOKED_AT
    for called, derivative, of in (("first", new.first, new.value), ("second", new.second, new.first)):
        wanted = (of(t + STEP) - of(t - STEP)) / (2 * STEP)
        off = np.abs(derivative(t) - wanted) / (1 + np.abs(wanted))
        if not (off < SAME).all():
            worst = int(np.argmax(off))
            raise InputError(
                f"activation {new.name!r}: {called}({t[worst]:.2f}) = {derivative(t)[worst]:.6g}, differences of what "
                f"it derives give {wanted[worst]:.6g}"
            )
    if _same(new.value(-t), new.value(t)):
        raise InputError(f"activation {new.name!r} is even; expected one without that symmetry, unknown to prompt_loss")
    found = {"odd": _same(new.value(-t), -new.value(t)), "homogeneous": _same(new.value(3 * t), 3 * new.value(t))}
    for called, holds in found.items():
        if getattr(new, called) != holds:
            raise InputError(f"activation {new.name!r}: {called}={getattr(new, called)}; its values say {holds}")
    if new.formula and new.homogeneous:
        raise InputError(f"activation {new.name!r} is the identity times a number; use adaptive:identity instead")
    if new.formula and _power(new.value):
        raise InputError(f"activation {new.name!r} is a power of x, whose scale prompt_loss does not know; use another")
    ACTIVATIONS[new.name] = new
    return new


def said_of(names: Iterable[str]) -> dict[str, str]:
    """Return what tells added activations apart from others of their names; the package's own are left out.

    That is the formula. Without one it is a fingerprint of sigma and its derivatives at points, to eight
    digits, which no two machines round differently.

    names  of activations; those that are unknown are left out, too
    """
    return {name: _said(ACTIVATIONS[name]) for name in sorted(set(names) & set(ACTIVATIONS)) if name not in BUILT_IN}


def _said(one: Activation) -> str:
    if one.formula:
        return one.formula
    values = np.array([part(LOOKED_AT) for part in (one.value, one.first, one.second)])
    return blake2b((np.round(values, 8) + 0.0).tobytes(), digest_size=8).hexdigest()


def same_activation(one: Activation, other: Activation) -> bool:
    """Return whether two activations of one name are the same function; copies of one are."""
    return one is other or _said(one) == _said(other)


def _power(value: Elementwise) -> bool:
    """Return whether sigma(2t) / sigma(t) is one number for all t > 0."""
    t = LOOKED_AT[LOOKED_AT > 0.5]
    with np.errstate(all="ignore"):
        ratio = value(2 * t) / value(t)
    return _same(ratio, ratio[:1])
