"""Lay a comparison out as the papers do: rows are methods, columns are tasks, with means of groups between.

Below a method stands its published row, where there is one. The best of our numbers in a column is bold if
the interval of its paired difference from every other method lies above 0; otherwise nothing is. Differences
on a task are taken seed by seed; those of a mean over tasks, task by task; those of the mean over groups,
group by group. Published rows have no seeds, and are never bold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_prompts.intervals import mean_interval
from moe_prompts.tables import markdown
from moe_prompts.vision.comparison.report import (
    PUBLISHED,
    PUBLISHED_VAPT_GAIN_FGVC,
    PUBLISHED_VAPT_MEAN,
    means,
    published,
    published_fgvc,
    scores,
)
from moe_prompts.vision.training.methods import METHODS

OVER_TASKS, OVER_GROUPS = "mean of tasks", "mean of groups"
#: Where the published rows come from.
SOURCES = {
    1: "Published, arXiv 2203.12119: ViT-B/16 of ImageNet-21k, VPT with a number of tokens tuned for each task.",
    2: "Published, arXiv 2501.18936: the gain of VAPT over full fine-tuning, added to the mean of that row.",
    3: "Published, arXiv 2203.12119, as notes on arXiv 2507.13260 quote it: ViT-B/16 of ImageNet-21k, all training "
    "images, VPT with a number of tokens tuned for each task.",
}


@dataclass(frozen=True)
class PaperTable:
    """Hold the table, ready to be written.

    columns    its columns in order: tasks, "mean NAME" of their group, then the means over all
    groups     group -> its tasks
    ours       accuracies in percent, one row for each method
    theirs     published accuracies by method, NaN where there are none
    sources    method -> key of ``SOURCES`` of its published row
    bold       (method, column) of the numbers that are bold
    """

    columns: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    ours: pd.DataFrame
    theirs: pd.DataFrame
    sources: dict[str, int]
    bold: frozenset[tuple[str, str]]


def paper_table(final: pd.DataFrame, cut: bool = False) -> PaperTable:
    """Return the table of final runs.

    cut  True: some tasks have a share of their training images only, so published rows of FGVC do not compare
    """
    table = scores(final)
    groups = {str(group): tuple(dict.fromkeys(own["task"])) for group, own in table.groupby("group", sort=False)}
    columns = [column for group, tasks in groups.items() for column in (*tasks, _mean_of(group))]
    if len(groups) == 1:
        columns = [*columns[:-1], OVER_TASKS]
    else:
        columns += [OVER_TASKS, OVER_GROUPS]
    methods = [name for name in METHODS if name in set(table["method"])]
    both, ours = means(table).set_index("method"), {}
    for method in methods:
        own = table[table["method"] == method].set_index("task")["accuracy"]
        ours[method] = _with_means(own, groups) | {
            OVER_TASKS: both.loc[method, "over tasks"],
            OVER_GROUPS: both.loc[method, "over groups"],
        }
    theirs, sources = _published(methods, groups, cut)
    return PaperTable(
        tuple(columns),
        groups,
        pd.DataFrame(ours).T.reindex(columns=columns),
        theirs.reindex(columns=columns),
        sources,
        frozenset(_bold(final, methods, groups, tuple(columns))),
    )


def _mean_of(group: str) -> str:
    return f"mean {group}"


def _with_means(own: pd.Series, groups: dict[str, tuple[str, ...]]) -> dict[str, float]:
    """Return the accuracies of tasks and the means of groups, NaN where a task is missing."""
    found = {task: float(own.get(task, np.nan)) for tasks in groups.values() for task in tasks}
    return found | {_mean_of(group): float(np.mean([found[task] for task in tasks])) for group, tasks in groups.items()}


def _published(
    methods: list[str], groups: dict[str, tuple[str, ...]], cut: bool
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the published rows of these tasks, and the sources of their methods.

    Of VAPT the means over all 19 tasks of VTAB-1K and over all five of FGVC are known, and nothing else; of
    FGVC also full fine-tuning and VPT-deep, on all training images.
    """
    tasks, rows, sources = [task for own in groups.values() for task in own], {}, {}
    fine = set(tasks) <= set(published_fgvc().index)
    known = published_fgvc() if fine else published()
    if fine and cut:
        return pd.DataFrame(), {}
    for method in methods:
        if PUBLISHED.get(method) in known.columns and set(tasks) <= set(known.index):
            sources[method] = 3 if fine else 1
            own = _with_means(known[PUBLISHED[method]], groups)
            over_groups = float(np.mean([own[_mean_of(group)] for group in groups]))
            rows[method] = own | {OVER_TASKS: float(np.mean([own[task] for task in tasks])), OVER_GROUPS: over_groups}
        if method == "vapt" and set(tasks) == set(known.index):
            mean = PUBLISHED_VAPT_MEAN if not fine else float(known["full"].mean()) + PUBLISHED_VAPT_GAIN_FGVC
            rows[method], sources[method] = {OVER_TASKS: mean}, 2
    return pd.DataFrame(rows).T, sources


def _bold(
    final: pd.DataFrame, methods: list[str], groups: dict[str, tuple[str, ...]], columns: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Return the numbers whose paired difference from every other method has its interval above 0."""
    wide = 100 * final.pivot(index=["task", "seed"], columns="method", values="accuracy")
    members = {task: [task] for tasks in groups.values() for task in tasks}
    members |= {_mean_of(group): list(tasks) for group, tasks in groups.items()}
    members[OVER_TASKS] = [task for tasks in groups.values() for task in tasks]
    group_of = {task: group for group, tasks in groups.items() for task in tasks}
    found = []
    for column in columns:
        by_group = column == OVER_GROUPS
        rows = wide.loc[wide.index.get_level_values("task").isin(members[OVER_TASKS if by_group else column])]
        for method in methods:
            others = [other for other in methods if other != method]
            lows = []
            for other in others:
                paired = rows[method] - rows[other]
                values = paired if len(members.get(column, ())) == 1 else paired.groupby("task", sort=False).mean()
                if by_group:
                    values = values.groupby(group_of, sort=False).mean()
                # A pair that lacks a seed or a task compares nothing.
                whole = len(values) > 1 and not values.isna().any()
                lows.append(mean_interval(values.to_numpy(float)).low if whole else np.nan)
            if others and all(low > 0 for low in lows):
                found.append((method, column))
    return found


def _rows(table: PaperTable) -> list[tuple[str, int | None, list[str], list[bool]]]:
    """Return name, number of its source (None: ours), cells and which of them are bold, for each row."""
    rows: list[tuple[str, int | None, list[str], list[bool]]] = []
    for method in table.ours.index:
        bold = [(method, column) in table.bold for column in table.columns]
        rows.append((str(method), None, [_cell(value) for value in table.ours.loc[method]], bold))
        if method in table.theirs.index:
            theirs = [_cell(value) for value in table.theirs.loc[method]]
            rows.append((str(method), table.sources[str(method)], theirs, [False] * len(bold)))
    return rows


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.1f}"


def _notes(table: PaperTable) -> list[str]:
    """Return the sentences below the table."""
    used = sorted({source for _, source, _, _ in _rows(table) if source is not None})
    lines = [
        "Top-1 accuracy on test in percent, mean over seeds. Bold: best of our rows, with the 90 % interval of its "
        "paired difference from each of the others above 0."
    ]
    lines += [f"[{source}] {SOURCES[source]}" for source in used]
    if not used:
        lines.append("The package holds no published row for these tasks.")
    return lines


def as_markdown(table: PaperTable) -> str:
    """Return the table as Markdown, with notes below."""
    body = []
    for method, source, cells, bold in _rows(table):
        name = method if source is None else f"*{method}, published [{source}]*"
        body.append([name, *(f"**{cell}**" if strong else cell for cell, strong in zip(cells, bold, strict=True))])
    return "\n".join([markdown(["method", *table.columns], body), "", *_notes(table), ""])


def as_latex(table: PaperTable) -> str:
    """Return the table as LaTeX, for the packages booktabs and graphicx."""
    ends = [f" & \\rotatebox{{90}}{{{_escaped(column)}}}" for column in table.columns]
    spans, rules, first = [], [], 2
    for group, tasks in table.groups.items():
        width = len(tasks) + (len(table.groups) > 1)
        spans.append(f" & \\multicolumn{{{width}}}{{c}}{{{_escaped(group)}}}")
        rules.append((first, first + width - 1))
        first += width
    spans.append(" &" * (len(table.columns) + 2 - first))
    lines = [
        "% needs \\usepackage{booktabs,graphicx}",
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        "\\toprule",
        "".join(spans).strip() + " \\\\",
        " ".join(f"\\cmidrule(lr){{{start}-{end}}}" for start, end in rules),
        "method" + "".join(ends) + " \\\\",
        "\\midrule",
    ]
    for method, source, cells, bold in _rows(table):
        name = _escaped(method) if source is None else f"\\quad published [{source}]"
        shown = [f"\\textbf{{{cell}}}" if strong else cell for cell, strong in zip(cells, bold, strict=True)]
        lines.append(" & ".join([name, *shown]) + " \\\\")
    lines += ["\\bottomrule", "\\end{tabular}", *(f"% {note}" for note in _notes(table)), ""]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    return text.replace("_", "\\_").replace("%", "\\%")


def fractions_table(finals: dict[float, pd.DataFrame]) -> str:
    """Return the mean over tasks of each method at each share of the training images, as Markdown.

    finals  share of the training images -> table of final runs

    The difference from VPT-deep stands behind a mean, with its interval over tasks, where both methods ran.
    """
    shares = sorted(finals)
    methods = [name for name in METHODS if any(name in set(own["method"]) for own in finals.values())]
    body = []
    for method in methods:
        cells = []
        for share in shares:
            wide = 100 * finals[share].pivot_table(index="task", columns="method", values="accuracy", dropna=False)
            if method not in wide:
                cells.append("")
                continue
            shown = f"{wide[method].mean(skipna=False):.1f}"
            if "vpt_deep" in wide and method != "vpt_deep" and len(wide) > 1:
                gap = mean_interval((wide[method] - wide["vpt_deep"]).to_numpy(float))
                shown += f" ({gap.value:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}])"
            cells.append(shown)
        body.append([method, *cells])
    header = ["method", *(f"{100 * share:g} %" for share in shares)]
    steps = "each smaller share is contained in the larger ones" if len(shares) > 1 else "one share"
    return "\n".join(
        [
            markdown(header, body),
            "",
            f"Mean accuracy over tasks in percent, by share of the training images ({steps}); in brackets",
            "minus vpt_deep, with the 90 % interval over tasks.",
            "",
        ]
    )
