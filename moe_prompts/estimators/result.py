"""What every fit returns: a value, a status that is advice, a certificate, and how it went."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

#: Estimated log-likelihood left to gain, in total nats, below which a local maximum counts as reached. 1e-3 is not
#: safe: paths cross plateaus where -H is barely positive definite and the decrement is tiny.
GAP_TOLERANCE = 1e-6


class FitStatus(Enum):
    """How a fit ended; the value of each member says what to do about it."""

    CERTIFIED = "certified local maximum: use it"
    NOT_CERTIFIED = (
        "stopped before the certificate was reached: raise max_iterations, or replace em(...) by newton(...)"
    )
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
        return self.value


@dataclass(frozen=True)
class Certificate:
    """Evidence that a fit stands at a local optimum.

    kind           "maximum likelihood" or "least squares"
    gap_nats       estimated gain left, g'(-H)^-1 g / 2 in total nats; infinite where -H is not positive definite
    relative_lmin  of maximum likelihood: smallest eigenvalue of I_c^-1 (-H), I_c the complete-data information; at a
                   stationary point 1 - (contraction rate of EM), so EM would need about 4 / relative_lmin iterations.
                   Of least squares: smallest eigenvalue of D^-1/2 (-H) D^-1/2, D the diagonal of the Gauss-Newton
                   matrix, on the parameters that the box does not hold; 0 up to rounding where surplus prompts coincide
    """

    kind: str
    gap_nats: float
    relative_lmin: float

    def holds(self, tolerance: float = GAP_TOLERANCE) -> bool:
        return self.gap_nats <= tolerance and self.relative_lmin > 0


#: Of a fit that never got to where one could be computed.
NO_CERTIFICATE = Certificate("maximum likelihood", float("inf"), float("nan"))


@dataclass(frozen=True)
class FitResult:
    """One fit. ``value`` holds the parameters, ``log_likelihood`` the total in nats at them.

    ``history`` maps names to lists, one entry per iteration; ``passes`` counts passes over the data (e1, e2);
    ``detail`` says which guard ended a fit that collapsed.
    """

    value: Any
    status: FitStatus
    certificate: Certificate
    log_likelihood: float
    iterations: int
    passes: dict[str, int] = field(default_factory=dict)
    history: dict[str, list[float]] = field(default_factory=dict)
    detail: str = ""

    @property
    def certified(self) -> bool:
        return self.status is FitStatus.CERTIFIED


@dataclass(frozen=True)
class SearchResult:
    """``best`` fit on all the data; ``starts`` how many were tried; ``share`` of them whose path ended on ``best``."""

    best: FitResult
    starts: int
    share: float
