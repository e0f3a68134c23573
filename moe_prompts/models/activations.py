"""Activations of adaptive prompts, with two derivatives and the symmetries that they give to a hidden unit.

A hidden unit contributes w sigma(v'x) to a prompt. Its parameters (v, w) are known up to a sign if sigma is odd (tanh),
up to a positive scale if it is positively homogeneous (relu), and with the identity only the product of all units is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr

from moe_prompts.errors import InputError

Elementwise = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Activation:
    """``value`` and its first two derivatives. ``odd``: sigma(-t) = -sigma(t); ``homogeneous``: for c > 0,
    sigma(ct) = c sigma(t); ``analytic``: a power series everywhere, so that polynomial interpolation converges."""

    name: str
    value: Elementwise
    first: Elementwise
    second: Elementwise
    odd: bool = False
    homogeneous: bool = False
    analytic: bool = True


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
    """relu with its kink rounded to a parabola over |t| < ``width``; it differs from relu by at most width / 4."""
    return Activation(
        "relu",
        lambda t: np.where(np.abs(t) < width, (t + width) ** 2 / (4 * width), np.maximum(t, 0)),
        lambda t: np.clip((t + width) / (2 * width), 0, 1),
        lambda t: (np.abs(t) < width) / (2 * width),
        homogeneous=True,
        analytic=False,
    )


ACTIVATIONS = {
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


def activation(name: str) -> Activation:
    if name not in ACTIVATIONS:
        raise InputError(f"unknown activation {name!r}; expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
