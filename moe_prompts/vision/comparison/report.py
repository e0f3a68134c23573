"""Report what a comparison found: accuracy per task and method, means, and paired differences with intervals.

A difference of two methods on a task is taken seed by seed; its interval is Student's 90 % interval over
seeds (``intervals``). The interval of the difference over all tasks is that of the tasks' mean differences:
tasks are what such a table samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np
import pandas as pd

from moe_prompts.errors import InputError
from moe_prompts.intervals import LEVEL, mean_interval
from moe_prompts.shown import Ending
from moe_prompts.tables import markdown
from moe_prompts.vision.comparison.plan import choose
from moe_prompts.vision.tasks.named import short
from moe_prompts.vision.training.methods import METHODS

#: Column of the published table of each method that it has: ViT-B/16, supervised ImageNet-21k.
PUBLISHED = {"full": "full", "linear": "linear", "vpt_shallow": "vpt_shallow", "vpt_deep": "vpt_deep"}
#: Group of tasks that are drawn.
STAND_IN = "stand-in"
#: 19-task mean of VAPT: the published mean of full fine-tuning, 65.57, and the published gain over it, 7.34.
PUBLISHED_VAPT_MEAN = 72.91
#: Published gain of VAPT over full fine-tuning in the mean of the five FGVC tasks, in points (arXiv
#: 2501.18936).
PUBLISHED_VAPT_GAIN_FGVC = 1.04


@cache
def published() -> pd.DataFrame:
    """Return the published top-1 accuracies on VTAB-1K in percent, by task.

    Source: arXiv 2203.12119, ViT-B/16 of ImageNet-21k.
    """
    file = resources.files("moe_prompts.vision") / "data" / "vtab1k_published.csv"
    with file.open(encoding="utf-8") as text:
        return pd.read_csv(text).set_index("task")


@cache
def published_fgvc() -> pd.DataFrame:
    """Return the published top-1 accuracies on FGVC in percent, by task, and the numbers of tokens there.

    They are those of full fine-tuning and VPT-deep of arXiv 2203.12119, ViT-B/16 of ImageNet-21k and all
    training images, as notes on arXiv 2507.13260 quote them: the table itself was not read. The numbers of
    tokens are those of the configuration of Adapter+ (arXiv 2406.06820) for VPT-deep.
    """
    file = resources.files("moe_prompts.vision") / "data" / "fgvc_published.csv"
    with file.open(encoding="utf-8") as text:
        return pd.read_csv(text).set_index("task")


def scores(final: pd.DataFrame) -> pd.DataFrame:
    """Return, for each task and method, mean and standard deviation over seeds of the accuracy in percent.

    ``seeds`` is the number of seeds that have one, ``failed`` that of the others.
    """
    rows = []
    for (task, method), group in final.groupby(["task", "method"], sort=False):
        accuracy = 100 * group["accuracy"].dropna()
        rows.append(
            {
                "task": task,
                "group": group["group"].iloc[0],
                "method": method,
                "accuracy": accuracy.mean(),
                "std": accuracy.std(ddof=1),
                "seeds": len(accuracy),
                "failed": len(group) - len(accuracy),
                "cross_entropy": group["cross_entropy"].mean(),
                "lr": group["lr"].iloc[0],
                "weight_decay": group["weight_decay"].iloc[0],
                "parameters": group["parameters"].iloc[0],
                "published": _published(task, method),
            }
        )
    return pd.DataFrame(rows)


def _published(task: str, method: str) -> float:
    table = published()
    return float(table.loc[task, PUBLISHED[method]]) if task in table.index and method in PUBLISHED else float("nan")


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Return, for each method, the mean over tasks and the mean over the means of groups (VTAB's two ways).

    They are NaN where a method lacks a task, or none of its seeds was sound there.
    """
    rows = []
    for method, own in table.groupby("method", sort=False):
        if set(own["task"]) != set(table["task"]):  # a mean over fewer tasks would not compare
            rows.append({"method": method, "tasks": len(own), "over tasks": np.nan, "over groups": np.nan})
            continue
        groups = own.groupby("group")["accuracy"].agg(lambda values: values.mean(skipna=False))
        rows.append(
            {
                "method": method,
                "tasks": len(own),
                "over tasks": own["accuracy"].mean(skipna=False),
                "over groups": groups.mean(skipna=False),
            }
        )
    return pd.DataFrame(rows)


def differences(final: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the accuracy of each method minus that of ``baseline``, in points, on each task and over all."""
    wide = final.pivot(index=["task", "seed"], columns="method", values="accuracy") * 100
    rows = []
    for method in (one for one in wide.columns if one != baseline):
        paired = (wide[method] - wide[baseline]).dropna()
        tasks = paired.groupby("task", sort=False)
        for task, own in tasks:
            rows.append({"method": method, "task": task, **_interval(own)})
        if len(tasks) > 1:
            rows.append({"method": method, "task": "all", **_interval(tasks.mean())})
    return pd.DataFrame(rows, columns=["method", "task", "difference", "low", "high", "pairs"])


def _interval(values: pd.Series) -> dict[str, float]:
    """Return the mean with Student's interval; the interval is NaN for a single value."""
    found = mean_interval(values.to_numpy(float))
    return {"difference": found.value, "low": found.low, "high": found.high, "pairs": found.count}


def text(final: pd.DataFrame, setup: str = "", baseline: str = "vpt_deep") -> str:
    """Return the report as Markdown.

    final     the table of final runs
    setup     what the reader is told of backbone and training
    baseline  the method that differences are taken from

    Raises ``InputError`` if a task, method and seed is there twice.
    """
    twice = final.duplicated(["task", "method", "seed"])
    if twice.any():
        first = final[twice].iloc[0]
        raise InputError(
            f"{first['task']} {first['method']} seed {first['seed']} is there twice; expected runs on other tasks or "
            "methods"
        )
    table = scores(final)
    methods = [name for name in METHODS if name in set(table["method"])]
    body = []
    for task, own in table.groupby("task", sort=False):
        cells = own.set_index("method")
        body.append([str(task), *(_cell(cells.loc[name]) if name in cells.index else "" for name in methods)])
        if cells["published"].notna().any():
            known = [cells["published"].get(name, np.nan) for name in methods]
            body.append(["published", *("" if np.isnan(x) else f"{x:.1f}" for x in known)])
    both = means(table).set_index("method")
    for column in ("over tasks", "over groups"):
        body.append([f"*mean {column}*", *(_mean(both.loc[name, column]) for name in methods)])
    lines = [markdown(["task", *methods], body)]
    lines += ["", "Top-1 accuracy on test in percent, last epoch, mean ± standard deviation over seeds.", setup]
    judged = final.drop_duplicates("task")
    lines.append("Test images: " + ", ".join(f"{row.task} {row.judged}" for row in judged.itertuples()) + ".")
    lines += _failures(table)
    if (final["group"] == STAND_IN).any():
        lines.append("Tasks named stand-in are drawn by formula (digits: a small real set); they are not VTAB-1K.")
    if table["published"].notna().any():
        lines.append(
            "*published*: ViT-B/16 of ImageNet-21k, arXiv 2203.12119, VPT with a number of tokens tuned for each task. "
            f"Published 19-task means: full fine-tuning 65.57, VAPT {PUBLISHED_VAPT_MEAN}. They compare only with "
            "numbers of that backbone on the 1000 images of that data."
        )
    if baseline in methods and len(methods) > 1:
        lines += ["", *_paired_lines(differences(final, baseline), baseline, methods)]
    return "\n".join(lines)


def ending_of(final: pd.DataFrame, setup: str, notes: Sequence[str] = (), baseline: str = "vpt_deep") -> Ending:
    """Return what the command prints: gains over the baseline, and a row for each task and method.

    final     the table of final runs
    setup     what the reader is told of backbone and training
    notes     more sentences
    baseline  the method that differences are taken from
    """
    table = scores(final)
    paired = differences(final, baseline) if baseline in set(table["method"]) else differences(final.iloc[:0], baseline)
    gains = paired.set_index(["task", "method"])
    findings = []
    for method in dict.fromkeys(paired["method"]):
        own = paired[paired["method"] == method]
        tasks = own[own["task"] != "all"]
        above, below = int((tasks["low"] > 0).sum()), int((tasks["high"] < 0).sum())
        findings.append(
            f"{method} is above {baseline} on {above} and below it on {below} of {len(tasks)} tasks, by 90 % intervals."
        )
    body = []
    for row in table.itertuples():
        key = (row.task, row.method)
        body.append(
            [
                short(str(row.task)),
                row.method,
                _cell(pd.Series(row._asdict())).replace("±", "+-"),
                _difference(gains.loc[key]) if key in gains.index else "",
                "" if np.isnan(row.published) else f"{row.published:.1f}",
            ]
        )
    header = ["task", "method", "accuracy", f"minus {baseline}", "published"]
    legend = (
        "accuracy: top-1 on test in percent, last epoch, +- standard deviation over seeds; * some seeds diverged. "
        f"minus {baseline}: in points, seed by seed, with 90 % interval / number of seeds. {setup}"
    )
    if table["published"].isna().all():
        header, body = header[:-1], [row[:-1] for row in body]
    return Ending([*findings, *(note for note in notes if note)], header, body, legend, keys=2)


def _cell(row: pd.Series) -> str:
    if not row["seeds"]:
        return "none trained"
    spread = "" if np.isnan(row["std"]) else f" ± {row['std']:.1f}"
    return f"{row['accuracy']:.1f}{spread}" + (" *" if row["failed"] else "")


def _mean(value: float) -> str:
    return "not all tasks" if np.isnan(value) else f"{value:.1f}"


def _failures(table: pd.DataFrame) -> list[str]:
    bad = table[table["failed"] > 0]
    return [
        f"\\* {row.task} {row.method}: {row.failed} of {row.failed + row.seeds} seeds diverged or had no sound "
        "setting, and are left out of its mean."
        for row in bad.itertuples()
    ]


def _paired_lines(table: pd.DataFrame, baseline: str, methods: list[str]) -> list[str]:
    tasks = list(dict.fromkeys(table["task"]))
    others = [name for name in methods if name != baseline]
    found = table.set_index(["task", "method"])
    body = []
    for task in tasks:
        cells = (found.loc[(task, one)] if (task, one) in found.index else None for one in others)
        body.append([task, *map(_difference, cells)])
    return [
        f"Minus {baseline}, in points, seed by seed; in brackets {100 * LEVEL:.0f} % intervals over seeds (`all`: over "
        "tasks),",
        "after / the number of seeds or tasks.",
        "",
        markdown(["task", *others], body),
    ]


def _difference(row: pd.Series | None) -> str:
    if row is None:
        return ""
    interval = "" if np.isnan(row["low"]) else f" [{row['low']:+.1f}, {row['high']:+.1f}]"
    return f"{row['difference']:+.1f}{interval} / {row['pairs']:.0f}"


def at_the_edge(tuned: pd.DataFrame) -> list[str]:
    """Return what to widen: pairs whose chosen learning rate is the smallest or largest that was tried.

    It is one paragraph, as lines; none where no pair is at the edge.
    """
    found = []
    for (task, method), setting in choose(tuned).items():
        tried = tuned.loc[(tuned["task"] == task) & (tuned["method"] == method), "lr"]
        if setting is not None and tried.nunique() > 1 and setting.lr in (tried.min(), tried.max()):
            found.append(f"{task} {method} ({setting.lr:g})")
    return (
        ["", "Chosen at an end of the grid of rates, so perhaps not the best: " + ", ".join(found) + "."]
        if found
        else []
    )
