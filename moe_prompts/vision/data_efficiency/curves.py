"""Summarise curves over n: means with errors, slopes above a floor, and where two methods cross.

A regular student that holds the truth pays P / (2 n) nats for its P parameters; one that does not hold it
ends at a floor F. So a fixed student (P_f, F_f) and an adaptive one (P_a, F_a) should cross near

    n* = (P_a - P_f) / (2 (F_f - F_a)).

Nothing promises that networks of this size are regular at small n: the study looks whether they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pandas as pd

from moe_prompts.errors import InputError
from moe_prompts.intervals import RESAMPLES, Verdict, mean_interval, percentiles, standard_error, within
from moe_prompts.seeds import bootstrap_rng
from moe_prompts.slopes import slope
from moe_prompts.vision.training.statuses import TRAINED

PLANTED = ("planted-fixed", "planted-adaptive")
#: Students whose class holds the planted truth, at least in its closure: their floor is 0, wherever training
#: ends.
CLASS_HOLDS_TRUTH = {
    "planted-fixed": ("vpt_deep", "vpt_matched", "vpt_large", "vapt_offset", "at_teacher"),
    "planted-adaptive": ("vapt", "vapt_offset", "at_teacher"),
}
#: In place of n: no step sees an image twice.
FRESH = 0
#: Replicates from which differences between methods decide anything.
LEAST = 3
#: What is measured, where it is: excess risk and cross-entropy in nats, accuracy as a share.
VALUES = ("excess", "cross_entropy", "accuracy")


def mean_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each value and its standard error over replicates, for each task, method and n.

    n = 0 stands for fresh images. ``fits`` counts the replicates that trained, ``failed`` the others.
    """
    rows = []
    for key, group in table.groupby(["task", "method", "parameters", "n"], sort=False):
        sound = group[group["status"] == TRAINED]
        row = dict(zip(("task", "method", "parameters", "n"), key, strict=True))
        for value in VALUES:
            if value in table:
                row[value] = sound[value].mean()
                row[f"{value}_error"] = standard_error(sound[value].to_numpy(float))
        rows.append(row | {"fits": len(sound), "failed": len(group) - len(sound)})
    return pd.DataFrame(rows)


def regular(parameters: float, n: np.ndarray | float, floor: float = 0.0) -> np.ndarray:
    """Return the excess risk F + P / (2 n) in nats of a regular student at large n.

    parameters  P
    floor       F in nats
    """
    return floor + parameters / (2 * np.asarray(n, dtype=float))


def above_floor(table: pd.DataFrame, task: str, method: str, entropy: int, value: str) -> dict[str, float]:
    """Return the floor of one curve and its log-log slope above the floor, with its 90 % interval.

    The slope is that of value(n) - floor, its interval is over replicates. The floor is the mean on fresh
    images, NaN where there are none. Only sizes whose value lies above the floor in every replicate enter the
    slope; ``sizes`` counts them. Without a floor, or with fewer than two such sizes, the slope is NaN.
    """
    own = table[(table["task"] == task) & (table["method"] == method) & (table["status"] == TRAINED)]
    floor = float(own[own["n"] == FRESH][value].mean())
    samples = {int(n): group[value].to_numpy() - floor for n, group in own[own["n"] > 0].groupby("n")}
    samples = {n: values for n, values in samples.items() if (values > 0).all()}
    found = slope(samples, bootstrap_rng(entropy, "above floor", task, method), "mean")
    return {"floor": floor, "slope": found.value, "low": found.low, "high": found.high, "sizes": len(samples)}


#: Columns of ``differences``.
DIFFERENCES = ["task", "claim", "better", "other", "n", "difference", "low", "high", "count", "verdict"]


def differences(table: pd.DataFrame, pairs: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Return what the methods of each pair differ by in accuracy at the largest n, replicate by replicate.

    table  rows of methods on tasks; replicates of one number share their images and their seed
    pairs  name of a claim -> (the method that it says is more accurate, the other)

    A claim *holds* where Student's 90 % interval of the mean difference is above 0, and *fails* where it is
    below; fewer than three replicates decide nothing. Pairs are left out where a task lacks one of the two.

    Columns: task, claim, better, other, n, difference, low, high (shares), count (replicates), verdict.
    """
    rows = []
    for task, own in _trained(table).groupby("task", sort=False):
        n = int(own["n"].max())
        wide = own[own["n"] == n].pivot(index="replicate", columns="method", values="accuracy")
        for claim, (better, other) in pairs.items():
            if {better, other} <= set(wide):
                found = _judged((wide[better] - wide[other]).dropna().to_numpy())
                rows.append((task, claim, better, other, n, *found))
    return pd.DataFrame(rows, columns=DIFFERENCES)


def mean_differences(table: pd.DataFrame, pairs: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Return what the methods of each pair differ by in the mean over tasks at the largest n.

    The arguments, the rule and the columns are those of ``differences``, with "mean of T tasks" as the task.
    A replicate counts where all tasks have both methods in it; pairs are left out where a task lacks one.
    """
    rows, sound = [], _trained(table)
    n, tasks = int(sound["n"].max()), f"mean of {sound['task'].nunique()} tasks"
    for claim, (better, other) in pairs.items():
        lead = _mean_lead(sound, better, other, n)
        if lead is not None:
            rows.append((tasks, claim, better, other, n, *_judged(lead.to_numpy())))
    return pd.DataFrame(rows, columns=DIFFERENCES)


def lead_changes(table: pd.DataFrame, pairs: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """Return how much larger the first method's lead is at the smallest n than at the largest.

    The arguments, the rule and the columns are those of ``mean_differences``; n is a text with both n. A
    replicate counts where all tasks have both methods in it at both n.
    """
    rows, sound = [], _trained(table)
    few, many = int(sound["n"].min()), int(sound["n"].max())
    tasks = f"mean of {sound['task'].nunique()} tasks"
    for claim, (better, other) in pairs.items():
        at_few, at_many = (_mean_lead(sound, better, other, n) for n in (few, many))
        if at_few is not None and at_many is not None:
            change = (at_few - at_many).dropna()
            rows.append((tasks, claim, better, other, f"{few} less that at {many}", *_judged(change.to_numpy())))
    return pd.DataFrame(rows, columns=DIFFERENCES)


def mean_over_tasks(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each method, n and replicate with its mean accuracy over tasks.

    table  rows of methods on tasks; fresh images, what did not train, and what lacks a task are left out

    Columns: task ("mean of T tasks"), method, parameters (the most of any task), n, replicate, accuracy (a
    share), status.
    """
    sound, tasks = _trained(table), table["task"].nunique()
    means = sound.groupby(["method", "n", "replicate"], sort=False).agg(
        accuracy=("accuracy", "mean"), tasks=("task", "nunique")
    )
    whole = means[means["tasks"] == tasks].drop(columns="tasks").reset_index()
    most = whole["method"].map(sound.groupby("method")["parameters"].max())
    return whole.assign(task=f"mean of {tasks} tasks", parameters=most, status=TRAINED)


def _mean_lead(sound: pd.DataFrame, better: str, other: str, n: int) -> pd.Series | None:
    """Return accuracy of one method less that of another at n, replicate by replicate, in the mean over tasks.

    None where a task of ``sound``, the trainings that ended, lacks one of the two.
    """
    wide = sound[sound["n"] == n].pivot(index="replicate", columns=["task", "method"], values="accuracy")
    if not {better, other} <= set(wide.columns.levels[1]):
        return None
    both = [wide.xs(method, axis="columns", level="method") for method in (better, other)]
    if any(own.shape[1] != sound["task"].nunique() for own in both):
        return None
    return (both[0] - both[1]).dropna().mean(axis="columns")


def _trained(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of trainings on n images that ended."""
    return table[(table["n"] != FRESH) & (table["status"] == TRAINED)]


def _judged(apart: np.ndarray) -> tuple[float, float, float, int, str]:
    """Return the mean of differences, its interval, their number, and what they say of a claim that it is above 0."""
    found = mean_interval(apart)
    decided = within(found.low, found.high, (0.0, np.inf))
    verdict = decided if found.count >= LEAST else Verdict.UNDECIDED
    return found.value, found.low, found.high, found.count, verdict.value


def crossing(
    table: pd.DataFrame,
    task: str,
    fixed: str,
    adaptive: str,
    entropy: int,
    value: str = "excess",
    known: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, float]:
    """Return from which n on the adaptive method has the smaller value, as observed and as predicted.

    observed   between two sizes, linear in log n; 0 if the adaptive method is better at all of them, infinite
               if it is not better at the largest
    low, high  90 % percentile interval over replicates, resampled for both methods alike
    predicted  n* of the module, with F the value on fresh images: 0 if P_a <= P_f, infinite if F_a >= F_f,
               NaN without fresh images

    value      the column that is compared
    known      floors in nats, by method, that are known and need no measurement

    Every n is one that either of the two methods was run at. Raises ``InputError`` if no replicate has both
    methods at every n, which ``comparable`` tells beforehand.
    """
    sizes, apart = _apart(table, task, fixed, adaptive, value)
    if not len(apart):
        raise InputError(f"{task}: no replicate has both {fixed} and {adaptive} at every n; expected at least one")
    own = table[(table["task"] == task) & (table["status"] == TRAINED)]
    draws = bootstrap_rng(entropy, "crossing", task, fixed, adaptive).integers(len(apart), size=(RESAMPLES, len(apart)))
    resampled = [overtakes_from(sizes, apart[rows].mean(axis=0)) for rows in draws]
    low, high = percentiles(np.array(resampled))
    floor = own[own["n"] == FRESH].groupby("method")[value].mean().to_dict() | dict(known)
    counts = own.groupby("method")["parameters"].first()
    gap = floor.get(fixed, float("nan")) - floor.get(adaptive, float("nan"))
    return {
        "observed": overtakes_from(sizes, apart.mean(axis=0)),
        "low": float(low),
        "high": float(high),
        "predicted": predicted_crossing(float(counts[adaptive] - counts[fixed]), float(gap)),
    }


def predicted_crossing(extra: float, gap: float) -> float:
    """Return n* = (P_a - P_f) / (2 (F_f - F_a)), at least 0; infinite where the gap is not positive.

    extra  P_a - P_f, a number of parameters; NaN gives NaN where the gap is positive
    gap    F_f - F_a in nats; NaN gives NaN
    """
    if np.isnan(gap):
        return float("nan")
    return float(np.maximum(0.0, extra / (2 * gap))) if gap > 0 else float("inf")


def comparable(table: pd.DataFrame, task: str, fixed: str, adaptive: str, value: str = "excess") -> bool:
    """Return whether ``crossing`` can compare two methods: some replicate of the task has both at every n.

    value  the column that is compared
    """
    return len(_apart(table, task, fixed, adaptive, value)[1]) > 0


def _apart(table: pd.DataFrame, task: str, fixed: str, adaptive: str, value: str) -> tuple[np.ndarray, np.ndarray]:
    """Return every n of two methods, and what they differ by there: a row for each replicate that has them all."""
    pair = [fixed, adaptive]
    own = table[(table["task"] == task) & table["method"].isin(pair) & (table["n"] != FRESH)]
    sizes = np.array(sorted(own["n"].unique()))
    wide = own[own["status"] == TRAINED].pivot(index="replicate", columns=["method", "n"], values=value)
    wide = wide.reindex(columns=pd.MultiIndex.from_product([pair, sizes])).dropna()
    values = wide.to_numpy(dtype=float)
    return sizes, values[:, : len(sizes)] - values[:, len(sizes) :] if len(sizes) else np.empty((0, 0))


def overtakes_from(sizes: np.ndarray, apart: np.ndarray) -> float:
    """Return from which n on a difference is above 0: its last change of sign, linear in log n.

    It is 0 where the difference is above 0 at every n, and infinite where it is not at the largest.

    sizes  (m,) numbers of images, in ascending order
    apart  (m,) the difference at each of them, in any unit

    >>> sizes = np.array([100, 10_000])
    >>> round(overtakes_from(sizes, np.array([-1.0, 1.0]))), overtakes_from(sizes, np.array([1.0, -1.0]))
    (1000, inf)
    """
    if apart[-1] <= 0:
        return float("inf")
    below = np.flatnonzero(apart <= 0)
    if not len(below):
        return 0.0
    i = below[-1]
    share = -apart[i] / (apart[i + 1] - apart[i])
    return float(np.exp(np.log(sizes[i]) + share * np.log(sizes[i + 1] / sizes[i])))
