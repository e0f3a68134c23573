"""How a training ended."""

TRAINED = "TRAINED"
#: A loss was not finite.
DIVERGED = "DIVERGED"
#: Every setting of the method diverged, nothing was trained.
UNTUNED = "UNTUNED"
