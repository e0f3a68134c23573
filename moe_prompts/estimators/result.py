"""Say what every fit returns: a value, a status that is advice, a certificate, and how the fit went.

A certificate is evidence of a local optimum: the gain left is negligible and the curvature has the right
sign,

    g'(-H)^-1 g / 2 <= tolerance   and   -H positive definite.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from moe_prompts.checks import real
from moe_prompts.shown import Rows, Shown, as_html, as_text

#: Estimated log-likelihood left to gain, in total nats, below which a local maximum counts as reached. 1e-3
#: is not safe: paths cross plateaus where -H is barely positive definite and the decrement is tiny.
GAP_TOLERANCE = 1e-6


class FitStatus(Enum):
    """Say how a fit ended; the value of each member says what to do about it.

    >>> import moe_prompts as mp
    >>> mp.FitStatus.CERTIFIED.advice
    'certified local maximum: use it'
    """

    CERTIFIED = "certified local maximum: use it"
    NOT_CERTIFIED = "stopped before the certificate was reached: raise max_iterations, or try another start"
    COLLAPSED = (
        "a component is collapsing on a few points, where the likelihood is unbounded: try another start, fewer atoms, "
        "tied_gate=True or more data"
    )
    STALLED = "no step improves the likelihood although the certificate is not reached: try another start"
    SEPARATED = (
        "the gate separates the data: it runs off to a step between two points, and no finite maximum exists; try "
        "another start, fewer atoms or more data"
    )
    FLAT = "the likelihood is flat to rounding along some direction: the parameters are not identified by these data"
    TOO_FEW_POINTS = "fewer data points than free parameters: raise n or lower k"
    FAILED = "the fit raised an error, kept in the column `message`: report it with the row's truth, n and replicate"
    RAISED = (
        "the fit raised an error that numbers alone do not explain, kept in the column `message`: a fault of the code, "
        "report it with the row's truth, n and replicate"
    )

    @property
    def advice(self) -> str:
        """Return the sentence that says what to do."""
        return self.value


@dataclass(frozen=True, repr=False)
class Certificate(Shown):
    """Give the evidence that a fit stands at a local optimum.

    kind           "maximum likelihood", "least squares" or "cross-entropy"
    gap_nats       estimated gain left, g'(-H)^-1 g / 2 in total nats; infinite where -H is not positive
                   definite, or unknown where the fit ended
    relative_lmin  smallest eigenvalue of the curvature in its own units, as follows

    For maximum likelihood, ``relative_lmin`` is that of I_c^-1 (-H), with I_c the complete-data information.
    At a stationary point it is 1 - (contraction rate of EM), so that EM would need about 4 / relative_lmin
    iterations. For least squares it is that of D^-1/2 (-H) D^-1/2, with D the diagonal of the Gauss-Newton
    matrix, on the parameters that the box does not hold. It is 0 up to rounding where surplus prompts
    coincide. For cross-entropy (prompts of a ViT) it is the smallest curvature that Lanczos' method met, in
    the metric of the Gauss-Newton matrix, or of its diagonal above 3000 parameters; no smallest eigenvalue
    lies above it. There 1 is the curvature of Fisher information alone and 0 that of a symmetry, and NaN says
    that no curvature was asked for.

    >>> import moe_prompts as mp
    >>> fit = mp.fit(mp.sample("gmoe-1", 500, seed=0), k=2, seed=0, starts=2)
    >>> fit.certificate.holds(tolerance=1e-6)
    True
    """

    kind: str
    gap_nats: float
    relative_lmin: float

    def holds(self, tolerance: float = GAP_TOLERANCE) -> bool:
        """Say whether at most ``tolerance`` nats are left to gain and the curvature has the right sign."""
        return self.gap_nats <= real(tolerance, "[0, inf]", "holds: tolerance") and self.relative_lmin > 0


#: The certificate of a fit that never got to where one could be computed.
NO_CERTIFICATE = Certificate("maximum likelihood", float("inf"), float("nan"))


@dataclass(frozen=True, repr=False)
class FitResult:
    """Hold what one fit found and how it went.

    value           parameters, in the units of the data
    status          how the fit ended, with advice
    certificate     evidence that it stands at a local optimum
    log_likelihood  total in nats at ``value``
    iterations      how many were used
    passes          number of passes over the data by kind: ``e1`` gives one EM step, ``e2`` also the
                    curvature
    history         lists by name, one entry per iteration
    detail          the guard that ended a fit that collapsed
    starts          how many starts were tried, where it is the best of several
    share           share of them that ended on it

    It prints as a small table.

    >>> import moe_prompts as mp
    >>> found = mp.fit(mp.sample("gmoe-1", n=1_000, seed=0), k=3, seed=0)
    >>> isinstance(found, mp.FitResult), found.status.name, found.certificate.gap_nats <= 1e-6
    (True, 'CERTIFIED', True)
    """

    value: Any
    status: FitStatus
    certificate: Certificate
    log_likelihood: float
    iterations: int
    passes: dict[str, int] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    detail: str = ""
    starts: int = 1
    share: float = 1.0

    @property
    def certified(self) -> bool:
        """Say whether the fit is a certified local maximum."""
        return self.status is FitStatus.CERTIFIED

    def __str__(self) -> str:
        return as_text(*self._shown)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        return as_html(*self._shown)

    @property
    def _shown(self) -> tuple[str, Rows]:
        rows = [
            ("status", self.status.advice + (f" ({self.detail})" if self.detail else "")),
            ("left to gain", f"{self.certificate.gap_nats:.1e} nats ({self.certificate.kind})"),
            ("curvature", f"smallest relative eigenvalue {self.certificate.relative_lmin:.2g}"),
            ("log-likelihood", f"{self.log_likelihood:.6g} nats"),
            ("iterations", str(self.iterations)),
        ]
        if self.starts > 1:
            rows.append(("starts", f"{self.starts}, of which {self.share:.0%} ended here"))
        return f"fit of {_named(self.value)}", rows


def _named(value: Any) -> str:
    """Return the class of parameters with their sizes."""
    sizes = [f"{name} = {size}" for name in ("k", "d", "l") if isinstance(size := getattr(value, name, None), int)]
    kind = getattr(value, "kind", None)
    return ", ".join([type(value).__name__, *([str(kind)] if kind is not None else []), *sizes])


@dataclass(frozen=True, repr=False)
class SearchResult:
    """Hold the best of several fits.

    best    the best fit on all the data
    starts  how many starts were tried
    share   share of the starts whose path ended on ``best``
    """

    best: FitResult
    starts: int
    share: float

    @property
    def fit(self) -> FitResult:
        """Return the best fit, which then says how many starts there were and how many ended on it."""
        return replace(self.best, starts=self.starts, share=self.share)

    def __str__(self) -> str:
        return str(self.fit)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        return self.fit._repr_html_()
