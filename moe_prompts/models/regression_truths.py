"""Hold what the truths of regressions on a fixed design share: their checks, how data are drawn, E |f*|^2.

x is uniform on the points of the design, so that the counts and the means of its cells are exactly
sufficient. Data of any n then cost the same to draw and to fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from moe_prompts.checks import count, expect, finite, generator, named, real, table
from moe_prompts.errors import InputError
from moe_prompts.models.data import RegressionData


@dataclass(frozen=True, eq=False)
class RegressionTruth:
    """Hold the parameters that generate data of a regression, with the design and the source.

    name      what functions of its model and studies call it
    params    the parameters; they have ``regression`` and the number ``k`` of atoms
    noise     standard deviation of each output
    x         (m, d), the points of the design
    citation  source of the parameters

    Raises ``InputError`` where one of them is of another kind or shape.
    """

    name: str
    params: Any
    noise: float
    x: np.ndarray
    citation: str

    #: What a subclass says of its model: the class of ``params``, and the interval of its noise.
    PARAMS_TYPE: ClassVar[type]
    NOISE_INTERVAL: ClassVar[str]

    def __post_init__(self) -> None:
        who = type(self).__name__
        named(self.name, f"{who}: name")
        named(self.citation, f"{who}: citation")
        expect(self.params, self.PARAMS_TYPE, f"{who}: params")
        object.__setattr__(self, "noise", real(self.noise, self.NOISE_INTERVAL, f"{who}: noise"))
        x = finite(table(self.x, self.inputs, f"{who}: x"), f"{who}: x")
        if not len(x):
            raise InputError(f"{who}: x has no points; expected at least one")
        object.__setattr__(self, "x", x)

    @property
    def inputs(self) -> int:
        """Return d, the number of inputs."""
        return self.params.d

    @property
    def k_true(self) -> int:
        """Return the number of atoms: prompts or experts."""
        return self.params.k

    @property
    def signal(self) -> float:
        """Return E |f*|^2 over the points of the design: the unit of relative risks."""
        return float((self.params.regression(self.x) ** 2).sum(axis=1).mean())

    def data(self, n: int, rng: np.random.Generator) -> RegressionData:
        """Draw n pairs, exactly: multinomial counts of the cells and Gaussian sums of their outputs.

        Raises ``InputError`` where n is no positive whole number.
        """
        n = count(n, 1, "data: n")
        generator(rng, "data")
        m, values = len(self.x), self.params.regression(self.x)
        counts = rng.multinomial(n, np.full(m, 1 / m))
        noise = self.noise * np.sqrt(counts)[:, None] * rng.standard_normal(values.shape)
        return RegressionData(self.x, counts, counts[:, None] * values + noise, n)

    def population(self, n: int = 1) -> RegressionData:
        """Return the expectation of ``data(n)``: no noise, every cell as often as any other."""
        share = real(n, "(0, inf)", "population: n") / len(self.x)
        return RegressionData(self.x, np.full(len(self.x), share), share * self.params.regression(self.x), n)
