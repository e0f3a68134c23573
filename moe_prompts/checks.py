"""Check what users hand in: arrays of real numbers, whole numbers, generators, kinds of things.

NumPy turns a masked array into its fill values, drops an imaginary part and reads text as numbers, and says
nothing. Here each of these is one clear line (``InputError``), the same for every function of the package.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from operator import index
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from moe_prompts.errors import InputError

Options = TypeVar("Options")

#: Sizes whose squares, summed over 1e8 pairs, are still numbers, and whose variances keep all their digits.
SMALLEST, LARGEST = 1e-140, 1e140
#: A column whose standard deviation is a smaller share of its largest value has lost most digits to its
#: origin.
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
    """Return an array of objects as floats; raise ``InputError`` where one of them is no real number."""
    for one in value.ravel():
        if isinstance(one, complex | np.complexfloating | str | bytes | np.datetime64 | np.timedelta64) or (
            not hasattr(one, "__float__") or _masked(one)
        ):
            raise InputError(f"{what}: holds {shown(one)} of type {type(one).__name__}; expected real numbers")
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
    """Return whether floats hold these whole numbers exactly."""
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


def whole(value: Any, least: int, what: str, most: float = EXACT_INTEGERS) -> int:
    """Return ``value`` as an int; ``InputError`` unless it is a whole number from ``least`` to ``most``.

    ``what`` names the value in the error.
    """
    found = integer(value)
    if found is None or found < least:
        raise InputError(f"{what} = {shown(value)}; expected a whole number of at least {least}")
    if found > most:
        raise InputError(f"{what} = {shown(value)}; expected a whole number of at most {most}")
    return found


def count(value: Any, least: int, what: str, most: float = EXACT_INTEGERS) -> int:
    """Return ``value`` as an int, as ``whole`` does; floats such as 1e5 count where they are whole."""
    if isinstance(value, float | np.floating) and np.isfinite(value) and value == int(value):
        value = int(value)
    return whole(value, least, what, most)


def real(value: Any, interval: str, what: str) -> float:
    """Return ``value`` as a float. Raises ``InputError`` unless it is a real number in ``interval``.

    interval  as it is written on paper: ``(0, 1]`` is above 0 and at most 1; ends may be ``-inf`` and ``inf``
    what      names the value in the error
    """
    low, high = map(float, interval[1:-1].split(","))
    found = np.nan
    if isinstance(value, np.ndarray | np.generic | int | float) and not isinstance(value, bool | np.bool_):
        with suppress(TypeError, ValueError, OverflowError):  # text in an array, several numbers, 10**400
            found = float(value)
    above = found >= low if interval[0] == "[" else found > low
    below = found <= high if interval[-1] == "]" else found < high
    if not (above and below):
        raise InputError(f"{what} = {shown(value)}; expected a number in {interval}")
    return found


def flag(value: Any, what: str) -> bool:
    """Return ``value`` as a bool. Raises ``InputError`` unless it is True or False, Python's or NumPy's."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{what} = {shown(value)}; expected True or False")
    return bool(value)


def one_of(value: Any, choices: Iterable[str], what: str) -> str:
    """Return ``value``. Raises ``InputError`` unless it is one of the words ``choices``."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{what} = {shown(value)}; expected one of {', '.join(choices)}")
    return value


def listed(value: Any, what: str) -> list[Any]:
    """Return the entries of a list, or of what else yields entries; ``InputError`` for text and one thing."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable) or getattr(value, "ndim", 1) == 0:
        raise InputError(f"{what}: {shown(value)}; expected a list")
    return list(value)


def settings(options: Any, **rules: int | str | type) -> None:
    """Check the fields of a frozen dataclass of options, and keep them as plain Python numbers.

    rules  of a field: a whole number, which is the least that it may be; an interval, as ``real`` takes it;
           ``bool``; or the class that it must be of

    Raises ``InputError`` for the first field that is not so.
    """
    for name, rule in rules.items():
        value, what = getattr(options, name), f"{type(options).__name__}: {name}"
        if rule is bool:
            found: Any = flag(value, what)
        elif isinstance(rule, int):
            found = whole(value, rule, what)
        elif isinstance(rule, str):
            found = real(value, rule, what)
        else:
            found = expect(value, rule, what)
        object.__setattr__(options, name, found)


def given(options: Any, kind: type[Options], what: str) -> Options:
    """Return ``options``, or the default ones for None; ``InputError`` if they are of another class."""
    return kind() if options is None else expect(options, kind, what)


def file_path(value: Any, what: str) -> Path:
    """Return ``value`` as a path; ``InputError`` for what is no name of a file, and for an empty one."""
    if not isinstance(value, str | PathLike) or not str(value).strip() or "\0" in str(value):
        raise InputError(f"{what}: {shown(value)}; expected a path")
    return Path(value)


def table(value: Any, columns: int, what: str) -> np.ndarray:
    """Return ``value`` (n, columns) in float64. Raises ``InputError`` for another shape or no numbers."""
    found = numbers(value, what)
    if found.ndim != 2 or found.shape[1] != columns:
        raise InputError(f"{what} has shape {found.shape}; expected (n, {columns})")
    return found


def shaped(value: Any, shape: tuple[int, ...], what: str) -> np.ndarray:
    """Return ``value`` in float64; ``InputError`` for another shape, no numbers, or numbers not finite."""
    found = numbers(value, what)
    if found.shape != shape:
        raise InputError(f"{what} has shape {found.shape}; expected {shape}")
    return finite(found, what)


def chosen_of(index: Any, size: int, what: str) -> np.ndarray:
    """Return which of ``size`` things ``index`` chooses, (chosen,): numbers, truth values, or a slice.

    Raises ``InputError`` where it chooses none, or one that does not exist.
    """
    try:
        found = np.atleast_1d(np.arange(size)[index if isinstance(index, slice) else np.asarray(index)])
    except (IndexError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{what}: {shown(index)} chooses none of {size}; expected a list of numbers below") from error
    if found.ndim != 1 or not found.size:
        raise InputError(f"{what}: {shown(index)} chooses none of {size}; expected a list of numbers below")
    return found


def shown(value: Any) -> str:
    """Return how an error shows what was given: in one line, at most 80 characters, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        return f"a whole number of {value.bit_length()} bits"
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def generator(rng: Any, what: str) -> np.random.Generator:
    """Return ``rng``. Raises ``InputError`` if it is no ``numpy.random.Generator``."""
    if not isinstance(rng, np.random.Generator):
        raise InputError(
            f"{what}: rng = {shown(rng)}; expected a numpy.random.Generator, as numpy.random.default_rng(0)"
        )
    return rng


def named(name: Any, what: str) -> str:
    """Return ``name``; ``InputError`` if it is no text."""
    if not isinstance(name, str):
        raise InputError(f"{what}: a name of type {type(name).__name__} ({shown(name)}); expected text")
    return name


def generators(rng_of: Any, what: str) -> None:
    """Raise ``InputError`` unless ``rng_of`` can be called: it gives the generator of draw i."""
    if not callable(rng_of) or isinstance(rng_of, type):
        raise InputError(
            f"{what}: rng_of = {shown(rng_of)}; expected a function from the number of a draw to its generator, as "
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
