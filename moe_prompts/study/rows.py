"""Describe how a fit ended, as the columns that every table of fits has."""

from __future__ import annotations

import numpy as np

from moe_prompts.engine.grid import Row
from moe_prompts.errors import InputError
from moe_prompts.estimators.result import FitResult, FitStatus


def failed(error: Exception) -> Row:
    """Return the columns of a fit that raised ``error``: its status, FAILED or RAISED, and the message.

    FAILED stands for numerical errors and bad input, RAISED for everything else. What the machine lacks
    (memory, disk) says nothing about the fit. Such an error is raised again, and the block can be run once
    more.
    """
    if isinstance(error, (MemoryError, OSError)):
        raise error
    if isinstance(error, (np.linalg.LinAlgError, ArithmeticError, InputError)):
        return {"status": FitStatus.FAILED.name, "message": str(error)}
    return {"status": FitStatus.RAISED.name, "message": f"{type(error).__name__}: {error}"}


def outcome(fit: FitResult) -> Row:
    """Return how a fit ended: status, certificate, log-likelihood in nats and number of iterations."""
    return {
        "status": fit.status.name,
        "gap_nats": fit.certificate.gap_nats,
        "relative_lmin": fit.certificate.relative_lmin,
        "log_likelihood": fit.log_likelihood,
        "iterations": fit.iterations,
    }
