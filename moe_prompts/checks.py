"""Check what users hand in: arrays of real numbers, whole numbers, generators, kinds of things.

NumPy turns a masked array into its fill values, drops an imaginary part and reads text as numbers, and says
nothing. Here each of these is one clear line (``InputError``), the same for every function of the package.
"""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from moe_prompts.errors import InputError

#: Sizes whose squares, summed over 1e8 pairs, are still numbers, and whose variances keep all their digits.
SMALLEST, LARGEST = 1e-140, 1e140
#: A column whose standard deviation is a smaller share of its largest value has lost most digits to its origin.
RESOLVED = 1e-12
#: Integers up to here are exact as floating-point numbers.
EXACT_INTEGERS = 2**53


def plain(value: Any, what: str) -> np.ndarray:
    """Return ``value`` as an array of real numbers in its own number type; ``what`` names it in errors.

    It takes arrays, lists, tuples, pandas objects and tensors on the CPU, of any real type. Raises
    ``InputError`` for masked entries, complex numbers, text, dates, whatever is no number, and integers that
    floats cannot hold.
    """
    if _masked(value):
        raise InputError(
            f"{what}: a masked array with masked entries, which would be read as the numbers under the mask; expected "
            "plain numbers: leave these rows out (compressed()), or fill them (filled(...)) on purpose"
        )
    try:
        found = np.asarray(value)
        if found.dtype == object:
            found = _of_objects(found, what)
        if found.dtype.kind not in "biuf":
            raise InputError(f"{what}: {_kind(found)}; expected real numbers")
        if found.dtype.kind in "iu" and found.size and not _exact(found):
            raise InputError(
                f"{what}: whole numbers beyond 2^53, which floating-point numbers cannot tell apart; subtract an "
                "origin first"
            )
        return found
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        why = " ".join(str(error).split())[:120]
        raise InputError(f"{what}: {type(value).__name__} ({why}); expected an array of real numbers") from error


def numbers(value: Any, what: str) -> np.ndarray:
    """Return ``value`` in float64, checked as ``plain`` does; the array itself where it is one already."""
    return np.asarray(plain(value, what), dtype=float)


def rounding(value: Any) -> float:
    """Return four times the relative spacing of the number type of ``value``, and at least 1e-8.

    Numbers that were computed in float32 and sum to 1, or are symmetric, are so up to this.
    """
    dtype = getattr(value, "dtype", None)
    if dtype is not None and not isinstance(dtype, np.dtype):  # a tensor's type has a name alone
        try:
            dtype = np.asarray(value).dtype
        except (TypeError, RuntimeError):
            dtype = None
    if isinstance(dtype, np.dtype) and dtype.kind == "f":
        return max(1e-8, 4 * float(np.finfo(dtype).eps))
    if isinstance(value, list | tuple) and value:
        return max(rounding(one) for one in value)
    return 1e-8


def _masked(value: Any) -> bool:
    if isinstance(value, np.ma.MaskedArray):
        return bool(np.ma.getmaskarray(value).any())
    return isinstance(value, list | tuple) and any(map(_masked, value))


def _of_objects(value: np.ndarray, what: str) -> np.ndarray:
    """Objects that are numbers each, as floats."""
    for one in value.ravel():
        if isinstance(one, complex | np.complexfloating | str | bytes | np.datetime64 | np.timedelta64) or (
            not hasattr(one, "__float__") or _masked(one)
        ):
            raise InputError(f"{what}: holds {one!r} of type {type(one).__name__}; expected real numbers")
    return value.astype(float)


def _kind(value: np.ndarray) -> str:
    kinds = {
        "c": "complex numbers, whose imaginary parts would be lost",
        "U": "text",
        "S": "text",
        "M": "dates",
        "m": "lengths of time",
    }
    return kinds.get(value.dtype.kind, f"type {value.dtype}")


def _exact(value: np.ndarray) -> bool:
    """Whole numbers that floats hold exactly."""
    if max(abs(int(value.min())), abs(int(value.max()))) <= EXACT_INTEGERS:
        return True
    return all(int(float(int(one))) == int(one) for one in value.ravel())


def finite(value: np.ndarray, what: str) -> np.ndarray:
    """Return ``value``. Raises ``InputError`` if an entry is NaN or infinite."""
    if not np.isfinite(value).all():
        raise InputError(f"{what} has NaN or infinite entries; expected finite numbers: drop or impute them first")
    return value


def resolved(mean: np.ndarray, sd: np.ndarray, size: np.ndarray, names: list[str]) -> None:
    """Raise ``InputError`` unless every column varies, by more than its rounding, in a usable unit.

    The rounding is that of the column's largest value.

    mean, sd, size  per column: mean, standard deviation and largest absolute value
    names           per column, for errors, as "column 0 of x"
    """
    for column, name in enumerate(names):
        if not sd[column] > np.finfo(float).eps * size[column]:  # equal numbers have a mean that is rounded
            raise InputError(
                f"data: {name} is constant ({mean[column]:.6g}); a density needs every column to vary: drop it"
            )
        if sd[column] <= RESOLVED * size[column]:
            raise InputError(
                f"data: {name} is constant up to rounding: it varies by {sd[column]:.1g} around {mean[column]:.6g}; "
                "subtract its origin before the numbers are rounded, or drop it"
            )
        if sd[column] < SMALLEST:
            raise InputError(
                f"data: {name} varies by {sd[column]:.1g}, whose square is no number; expected a unit in which it "
                f"varies by more than {SMALLEST:.0e}"
            )


def integer(value: Any) -> int | None:
    """Return a whole number, also NumPy's, as an int; None for anything else, truth values too."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return index(value)
    except TypeError:
        return None


def whole(value: Any, least: int, what: str) -> int:
    """Return ``value`` as an int. Raises ``InputError`` unless it is a whole number of at least ``least``.

    ``what`` names the value in the error.
    """
    found = integer(value)
    if found is None or found < least:
        raise InputError(f"{what} = {value!r}; expected a whole number of at least {least}")
    return found


def count(value: Any, least: int, what: str) -> int:
    """Return ``value`` as an int, as ``whole`` does; floats such as 1e5 count where they are whole."""
    if isinstance(value, float | np.floating) and np.isfinite(value) and value == int(value):
        value = int(value)
    return whole(value, least, what)


def generator(rng: Any, what: str) -> np.random.Generator:
    """Return ``rng``. Raises ``InputError`` if it is no ``numpy.random.Generator``."""
    if not isinstance(rng, np.random.Generator):
        raise InputError(f"{what}: rng = {rng!r}; expected a numpy.random.Generator, as numpy.random.default_rng(0)")
    return rng


def named(name: Any, what: str) -> str:
    """Return ``name``; ``InputError`` if it is no text."""
    if not isinstance(name, str):
        raise InputError(f"{what}: a name of type {type(name).__name__} ({name!r:.60}); expected text")
    return name


def generators(rng_of: Any, what: str) -> None:
    """Raise ``InputError`` unless ``rng_of`` can be called: it gives the generator of draw i."""
    if not callable(rng_of):
        raise InputError(
            f"{what}: rng_of = {rng_of!r}; expected a function from the number of a draw to its generator, as "
            "lambda i: numpy.random.default_rng([0, i])"
        )


def expect(value: Any, kind: type | tuple[type, ...], what: str) -> Any:
    """Return ``value``. Raises ``InputError`` if it is not of ``kind``.

    The error has a hint where the value is the result of a fit. ``what`` names the value.
    """
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        hint = ""
        if hasattr(value, "best"):
            hint = ": take its best.value"
        elif hasattr(value, "certificate") and hasattr(value, "value"):
            hint = ": take its value"
        expected = " or ".join(one.__name__ for one in kinds)
        raise InputError(f"{what}: a {type(value).__name__}; expected a {expected}{hint}")
    return value


def parameters(given: Any) -> Any:
    """Return the parameters of a fit, of a search, or of a named truth; parameters themselves as they are."""
    given = getattr(given, "best", given)  # a search holds its best fit
    if hasattr(given, "certificate"):
        return given.value
    return getattr(given, "params", given)
