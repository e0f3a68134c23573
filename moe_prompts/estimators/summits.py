"""Say what a search for a global maximum found, and what speaks for its being the highest there is.

Searches of every model share this: how many starts ended on the best summit and in which ways, how far below
it the next one lies, and what starts found that were held back until the search was over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from moe_prompts.estimators.result import FitResult
from moe_prompts.estimators.stages import SAME_SUMMIT
from moe_prompts.shown import Shown


@dataclass(frozen=True, repr=False)
class GlobalResult(Shown):
    """Hold the best certified fit that was found, and what speaks for its being the best there is.

    best         the best certified fit of all starts, held-back ones among them
    starts       how many starts climbed with k atoms before the held-back ones
    reached      how many of them ended within ``SAME_SUMMIT`` nats of the best fit of the search
    ways         which sorts of starts did, such as "data", "slice", "split", "insert"
    next_nats    nats from the best fit of the search down to its next certified summit; NaN if there is none
    held_back    how many starts were held back
    missed       how many of them ended above the best fit of the search
    missed_nats  nats by which the highest of them did; 0 if none did
    """

    best: FitResult
    starts: int
    reached: int
    ways: tuple[str, ...]
    next_nats: float
    held_back: int
    missed: int
    missed_nats: float

    @classmethod
    def of(
        cls, best: FitResult, fits: Sequence[tuple[str, FitResult]], later: Sequence[FitResult], ways: Sequence[str]
    ) -> GlobalResult:
        """Return the result of a search from its fits.

        best   the estimate
        fits   the search's own fits, each with the sort of its start
        later  those of the starts that were held back
        ways   sorts of starts in the order in which they are named

        Only certified fits count, and those within ``SAME_SUMMIT`` nats of each other are one summit.
        """
        certified = [(way, fit.log_likelihood) for way, fit in fits if fit.certified]
        top = max((height for _, height in certified), default=float("nan"))
        above = [fit.log_likelihood - top for fit in later if fit.certified and fit.log_likelihood > top + SAME_SUMMIT]
        others = [top - height for _, height in certified if top - height > SAME_SUMMIT]
        return cls(
            best=best,
            starts=len(fits),
            reached=len(certified) - len(others),
            ways=tuple(way for way in ways if any(one == way and top - h <= SAME_SUMMIT for one, h in certified)),
            next_nats=min(others, default=float("nan")),
            held_back=len(later),
            missed=len(above),
            missed_nats=max(above, default=0.0),
        )
