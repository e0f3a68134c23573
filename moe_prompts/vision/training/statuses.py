"""Name the ways in which a training can end."""

TRAINED = "TRAINED"
#: A loss was not finite.
DIVERGED = "DIVERGED"
#: Every setting of the method diverged, nothing was trained.
UNTUNED = "UNTUNED"
