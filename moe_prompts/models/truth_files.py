"""Read a truth of one's own from a file of arrays: ``read_truth``.

A JSON file is one object; of a Python file, which is run, the values of these names at its end count.

    Gaussian gates  weights, gate_means, gate_covs, slopes, intercepts, noise_covs
    softmax gates   gate_intercepts, gate_slopes, slopes, intercepts, noise_vars
    prompts         kind, b, noise, and by kind: prompts; or keys and values; or W1 and W2;
                    a head A, a, eta, B, C and points x, or without them those of the reference configuration

``name`` may be added; without it the name of the file counts. Other names are mistakes in JSON, and are left
alone in Python.
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from moe_prompts.checks import plain
from moe_prompts.errors import InputError
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE
from moe_prompts.models.gaussian_truths import Truth
from moe_prompts.models.prompt_attention import Head, PromptAttention, PromptKind
from moe_prompts.models.prompt_truths import PromptTruth, midpoint_grid, reference_head
from moe_prompts.models.softmax_gated import SoftmaxGatedMoE
from moe_prompts.models.softmax_truths import SoftmaxTruth

#: Names of arrays, by what they describe.
GAUSSIAN = ("weights", "gate_means", "gate_covs", "slopes", "intercepts", "noise_covs")
SOFTMAX = ("gate_intercepts", "gate_slopes", "slopes", "intercepts", "noise_vars")
HEAD = ("A", "a", "eta", "B", "C")
#: Of prompts: arrays by the base of their kind.
PROMPTS = {"fixed": ("prompts",), "prefix": ("prompts",), "decoupled": ("keys", "values"), "adaptive": ("W1", "W2")}
EVERY = {
    *GAUSSIAN,
    *SOFTMAX,
    *HEAD,
    "kind",
    "b",
    "noise",
    "x",
    "name",
    *(n for names in PROMPTS.values() for n in names),
}
#: Bytes that a file of parameters may have.
LARGEST = 10_000_000


@dataclass(frozen=True)
class Cube:
    """Draw inputs uniformly on [0, 1]^d."""

    d: int

    def __call__(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return n inputs (n, d)."""
        return rng.uniform(size=(n, self.d))


def read_truth(path: Path) -> Truth | SoftmaxTruth | PromptTruth:
    """Return the truth that a file describes; the head of this module says what stands in it.

    Raises ``InputError`` in one line for a file that is missing, a folder, too large, no JSON or Python, or
    raises; and where an array is missing, has another shape, or holds NaN.
    """
    arrays = _python(path) if path.suffix == ".py" else _json(path)
    name = arrays.pop("name", None)
    if name is None:
        name = f"{_word(path.stem)}-{_digest(arrays)}"
    try:
        return _truth(str(name), arrays)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _truth(name: str, arrays: Mapping[str, Any]) -> Truth | SoftmaxTruth | PromptTruth:
    if {"gate_means", "gate_covs", "weights"} & set(arrays):
        return _gaussian(name, _complete(arrays, GAUSSIAN, "Gaussian gates"))
    if {"gate_intercepts", "gate_slopes", "noise_vars"} & set(arrays):
        params = SoftmaxGatedMoE(**_complete(arrays, SOFTMAX, "softmax gates"))
        return SoftmaxTruth(name, params, Cube(params.d), "a file of one's own; x uniform on [0, 1]^d")
    if {"kind", "b"} & set(arrays):
        return _prompts(name, arrays)
    raise InputError(
        f"no truth in it (names: {', '.join(sorted(arrays)) or 'none'}); expected {', '.join(GAUSSIAN)}; or "
        f"{', '.join(SOFTMAX)}; or kind, b, noise and the arrays of that kind"
    )


def _gaussian(name: str, arrays: dict[str, np.ndarray]) -> Truth:
    params = GaussianGatedMoE(**arrays)
    kind = "adaptive" if np.any(params.slopes) else "fixed"
    family = GaussianGatedFamily(params.d, params.l, params.k, "affine" if kind == "adaptive" else "constant")
    return Truth(name, params, family, kind, "a file of one's own")


def _prompts(name: str, arrays: Mapping[str, Any]) -> PromptTruth:
    if not isinstance(arrays.get("kind"), str):
        raise InputError("kind; expected a text such as fixed, decoupled, prefix:tanh:identity or adaptive:gelu")
    kind = PromptKind.parse(arrays["kind"])
    needed = ("b", *PROMPTS[kind.base])
    given = _complete({key: value for key, value in arrays.items() if key != "kind"}, (*needed, "noise"), str(kind))
    noise = given.pop("noise")
    if noise.shape != () or not noise > 0:
        raise InputError(f"noise of shape {noise.shape}; expected one positive number, a standard deviation")
    own = [part for part in HEAD if part in arrays]
    head = Head(**_complete(arrays, HEAD, "a head")) if own else reference_head()
    if "x" in arrays:
        x = _complete(arrays, ("x",), "points")["x"]
        if x.ndim != 2 or x.shape[1] != head.d:
            raise InputError(f"x of shape {x.shape}; expected (points, {head.d})")
    elif head.d == 2:
        x = midpoint_grid()
    else:
        raise InputError(f"no x for a head of d = {head.d}; expected points (m, {head.d})")
    if kind.base == "fixed":
        params = PromptAttention.fixed(head, given["b"], given["prompts"])
    elif kind.base == "prefix":
        params = PromptAttention.prefix(head, given["b"], given["prompts"], kind.sigma, kind.value)
    elif kind.base == "decoupled":
        params = PromptAttention.decoupled(head, given["b"], given["keys"], given["values"])
    else:
        params = PromptAttention.adaptive(head, given["b"], given["W1"], given["W2"], kind.sigma, kind.bias)
    return PromptTruth(name, params, float(noise), x, "a file of one's own")


def _complete(arrays: Mapping[str, Any], names: Iterable[str], what: str) -> dict[str, np.ndarray]:
    """Return the named arrays as finite numbers."""
    names = list(names)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise InputError(f"no {', '.join(missing)}; {what} need {', '.join(names)}")
    found = {}
    for name in names:
        value = plain(arrays[name], name).astype(float)
        if not np.isfinite(value).all():
            raise InputError(f"{name} has NaN or infinite entries; expected finite numbers")
        found[name] = value
    return found


def _json(path: Path) -> dict[str, Any]:
    content = _content(path)
    try:
        found = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: no JSON ({str(error).splitlines()[0]}); expected one object of arrays") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: a {type(found).__name__} of JSON; expected one object with names and arrays")
    unknown = [name for name in found if name not in EVERY]
    if unknown:
        raise InputError(f"{path}: unknown name {unknown[0]!r}; expected some of {', '.join(sorted(EVERY))}")
    return found


def _python(path: Path) -> dict[str, Any]:
    _content(path)
    try:
        values = runpy.run_path(str(path))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a file of somebody's own may end in any way, SystemExit included
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: raised {type(error).__name__}: {reason}; run it by itself to see where") from error
    return {name: values[name] for name in values if name in EVERY}


def _content(path: Path) -> bytes:
    """Return the bytes of a file; nothing of a large one is read."""
    if path.suffix not in (".json", ".py"):
        raise InputError(f"{path}; expected a file .json or .py")
    if not path.exists():
        raise InputError(f"{path}: no such file; expected a file .json or .py")
    if not path.is_file():
        raise InputError(f"{path}: no plain file; expected a file .json or .py")
    size = path.stat().st_size
    if size > LARGEST:
        raise InputError(f"{path}: {size / 1e6:.0f} MB; expected parameters of at most {LARGEST / 1e6:.0f} MB")
    return path.read_bytes()


def _digest(arrays: Mapping[str, Any]) -> str:
    """Return a short hash of what stands in a file, whatever the order of its names."""
    parts = [f"{name}={np.asarray(arrays[name]).tolist()!r}" for name in sorted(arrays)]
    return blake2b(";".join(parts).encode(), digest_size=4).hexdigest()


def _word(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", stem).strip("-.")[:40] or "mine"
