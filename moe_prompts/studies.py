"""Measure the rates of a truth in one call: data of several sizes, certified fits, slopes and verdicts.

    found = study(truth, n="1e3..1e5", seed=0)
    found.table, found.slopes, found.verdicts, found.plot()

It runs on the engine of ``run_study``, with the defaults of the package's own studies.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from moe_prompts import cli
from moe_prompts.checks import count, expect, flag, listed, named, whole
from moe_prompts.engine.executors import InProcess, Joblib
from moe_prompts.engine.grid import Study
from moe_prompts.engine.runner import run_study
from moe_prompts.errors import InputError
from moe_prompts.models.added import ADDED, same_contents
from moe_prompts.models.gaussian_gated import GaussianGatedFamily, GaussianGatedMoE
from moe_prompts.models.gaussian_truths import TRUTHS, Truth
from moe_prompts.models.prompt_truths import PromptTruth, names_one
from moe_prompts.models.softmax_truths import SOFTMAX_TRUTHS, SoftmaxTruth
from moe_prompts.models.truths import add_truth
from moe_prompts.shown import aligned, html_table, paragraph
from moe_prompts.study.attention import LINES, attention_study
from moe_prompts.study.gaussian import gaussian_study
from moe_prompts.study.report import report_of
from moe_prompts.study.softmax import softmax_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AnyTruth = Truth | PromptTruth | SoftmaxTruth
#: More sizes than a range has use for, and more workers than a machine has room for.
MOST_POINTS, MOST_WORKERS = 1000, 10_000
#: Columns of ``slopes``, as ``table`` has them.
SLOPES = ("truth", "kind", "k", "measure", "predicted", "slope", "low", "high", "verdict")
#: What stands below every table, and what a measure is where the table has it.
LEGEND = "theory: the predicted slope; slope: of log median error on log n, with its 90 % interval"
MEASURES = {
    "risk": "mean squared error of the regression function over its mean square",
    "L2": "root mean square error of the regression function",
    "D": "Voronoi loss of the parameters",
    "singleton": "error of parameters alone in their cell, the fitted atoms nearest to one true atom",
    "split": "root mean square error of atoms that share a cell",
}
SHARE = "fits: share that stands at a certified optimum; only those count"


@dataclass(frozen=True, eq=False, repr=False)
class StudyResult:
    """Hold what a study found.

    rows   one per fit, with every error, status and certificate (pandas)
    table  one line per kind, k and measure: slopes with intervals, prediction, verdict (pandas)
    seed   of data and starts
    text   the tables as Markdown, as the command prints them into summary.md

    It prints as a table of slopes.

    >>> import moe_prompts as mp
    >>> found = mp.study("gmoe-1", ks=[3], n=[200, 1_000], reps=2, seed=0)
    >>> isinstance(found, mp.StudyResult), len(found.rows)
    (True, 4)
    >>> list(found.slopes.columns)[-4:]
    ['slope', 'low', 'high', 'verdict']
    """

    rows: pd.DataFrame
    table: pd.DataFrame
    seed: int
    text: str

    @property
    def slopes(self) -> pd.DataFrame:
        """Return the slopes with 90 % intervals, one line per truth, kind, k and measure."""
        return self.table[list(SLOPES)]

    @property
    def verdicts(self) -> pd.Series:
        """Return the verdict of each line, indexed by truth, kind, k and measure."""
        return self.table.set_index(["truth", "kind", "k", "measure"])["verdict"]

    def plot(self) -> Figure:
        """Return the figure of the study: errors against n, with slopes."""
        from moe_prompts.figures.studies import figures

        return next(iter(figures(self.rows, self.seed).values()))

    def __str__(self) -> str:
        return f"{self._title}\n\n{aligned(*self._lines)}\n\n{paragraph(self._legend)}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Return the table and its legend for a notebook."""
        return f"{html_table(*self._lines, caption=self._title)}<p>{escape(self._legend)}</p>"

    @property
    def _legend(self) -> str:
        words = {word for measure in self.table["measure"] for word in str(measure).split()}
        return "; ".join([LEGEND, *(f"{word}: {said}" for word, said in MEASURES.items() if word in words), SHARE])

    @property
    def _title(self) -> str:
        truths, sizes = ", ".join(map(str, self.rows["truth"].unique())), self.rows.loc[self.rows["n"] > 0, "n"]
        return f"{truths}: n = {sizes.min():,.0f} to {sizes.max():,.0f}"

    @property
    def _lines(self) -> tuple[list[str], list[list[str]]]:
        header = ["prompts", "k", "measure", "theory", "slope [90 %]", "fits", "verdict"]
        body = []
        for line in self.table.itertuples():
            interval = "" if np.isnan(line.low) else f" [{line.low:.2f}, {line.high:.2f}]"
            body.append(
                [
                    str(line.kind).removeprefix("adaptive:"),
                    str(line.k),
                    str(line.measure),
                    "-" if np.isnan(line.predicted) else f"{line.predicted:.3g}",
                    "too few fits" if np.isnan(line.slope) else f"{line.slope:.2f}{interval}",
                    f"{line.certified:.0%}",
                    str(line.verdict).removesuffix(" here"),
                ]
            )
        return header, body


def study(
    truth: str | AnyTruth | GaussianGatedMoE,
    *,
    seed: int,
    kinds: Sequence[str] | None = None,
    ks: Sequence[int] | None = None,
    n: str | Sequence[int] = "1e3..1e5",
    points: int = 5,
    reps: int = 16,
    start: str | None = None,
    workers: int = 1,
    out: str | Path | None = None,
    progress: bool = False,
) -> StudyResult:
    """Measure how fast the errors of certified fits fall with n, for data from one truth.

    truth     a name that ``truth``, ``prompt_truth`` or ``softmax_truth`` knows, such a truth, or the
              parameters ``GaussianGatedMoE`` of your own
    seed      of data and starts
    kinds     what is fitted: fixed, adaptive, of prompts in attention also decoupled and adaptive:SIGMA
              (default: the truth's own kind; of the package's truths of attention the lines of their study)
    ks        numbers of atoms or prompts (default: as many as the truth has, and one more)
    n         sizes: a range such as "1e3..1e6", or a list
    points    how many sizes a range has
    reps      data sets of each size; verdicts need at least 8
    start     "near_truth", "data" or "random", in place of the study's default
    workers   processes; results do not depend on their number
    out       folder that keeps the run; by default nothing is kept but the result
    progress  show a bar with the time left

    Raises ``InputError`` for an unknown truth or kind, and for sizes below the number of parameters.

    >>> import moe_prompts as mp
    >>> found = mp.study("gmoe-1", n=[300, 3000], reps=8, ks=[3], seed=0)
    >>> found.slopes[["measure", "predicted"]].values.tolist()
    [['risk', -1.0], ['loss D', -0.5]]
    """
    known = _known(truth)
    points, reps = count(points, 1, "study: points", most=MOST_POINTS), count(reps, 1, "study: reps")
    workers, progress = whole(workers, 1, "study: workers", most=MOST_WORKERS), flag(progress, "study: progress")
    of_list = lambda: [count(one, 1, "study: n") for one in listed(n, "study: n")]
    sizes = cli.sizes(n, points, "n =") if isinstance(n, str) else of_list()
    kinds = None if kinds is None else [named(kind, "study: kinds") for kind in listed(kinds, "study: kinds")]
    ks = None if ks is None else [whole(k, 1, "study: ks") for k in listed(ks, "study: ks")]
    if kinds == [] or ks == []:
        raise InputError("study: an empty list of kinds or of ks; expected at least one of each, or leave it out")
    if out is not None:
        expect(out, (str, PathLike), "study: out")
    made = study_of(known, kinds, ks, sizes, reps, seed, start)
    executor = InProcess() if workers == 1 else Joblib(workers)
    if out is not None:
        rows = run_study(made, Path(out), executor=executor, progress=progress)
    else:
        with tempfile.TemporaryDirectory() as folder:
            rows = run_study(made, Path(folder) / "run", executor=executor, progress=progress)
    text, table = report_of(rows, seed)
    return StudyResult(rows, table, seed, text)


def _known(truth: str | AnyTruth | GaussianGatedMoE) -> AnyTruth:
    """Return a truth that studies know by name."""
    if isinstance(truth, GaussianGatedMoE):
        truth = _own(truth)
    if isinstance(truth, AnyTruth):
        mine = ADDED.get(truth.name)
        if mine is None and not _packaged(truth.name):
            add_truth(truth)  # type: ignore[type-var]  # one of the three
            return truth
        if mine is not None and mine is not truth:
            raise InputError(f"study: another truth named {truth.name!r} was added before; give this one a new name")
        # Cells find their truth by its name: one that was changed and kept its name would not be the one that
        # is run.
        if mine is None and not same_contents(_known(truth.name), truth):
            raise InputError(
                f"study: this truth differs from the package's {truth.name!r}; expected a new name, as "
                'replace(truth, name="mine")'
            )
        return truth
    if not isinstance(truth, str):
        raise InputError(f"study: truth of type {type(truth).__name__}; expected a name, a truth or GaussianGatedMoE")
    from moe_prompts.models.gaussian_truths import truth as gaussian
    from moe_prompts.models.prompt_truths import prompt_truth
    from moe_prompts.models.softmax_truths import softmax_truth

    if truth in ADDED:
        if isinstance(ADDED[truth], AnyTruth):
            return ADDED[truth]
        raise InputError(
            f"study: {truth!r} is a truth of class {type(ADDED[truth]).__name__}; expected a Truth, a PromptTruth or "
            "a SoftmaxTruth (study.experts.experts_study is the study of gated experts)"
        )
    if truth in TRUTHS:
        return gaussian(truth)
    if truth in SOFTMAX_TRUTHS:
        return softmax_truth(truth)
    if names_one(truth):
        return prompt_truth(truth)
    raise InputError(
        f"study: unknown truth {truth!r}; expected one of {', '.join((*TRUTHS, *SOFTMAX_TRUTHS))}, attention-KIND "
        "such as attention-gelu, or one that add_truth made known"
    )


def _packaged(name: str) -> bool:
    return name in TRUTHS or name in SOFTMAX_TRUTHS or names_one(name)


def _own(params: GaussianGatedMoE) -> Truth:
    """Return parameters as a truth, named after their values, so that the same ones have the same data."""
    arrays = [np.ascontiguousarray(getattr(params, name), dtype=float) for name in _ARRAYS]
    name = "mine-" + blake2b(b"".join(a.tobytes() for a in arrays), digest_size=4).hexdigest()
    if name in ADDED:
        return ADDED[name]
    kind = "adaptive" if np.any(params.slopes) else "fixed"
    family = GaussianGatedFamily(params.d, params.l, params.k, "affine" if kind == "adaptive" else "constant")
    return Truth(name, params, family, kind, "given as arrays")


_ARRAYS = ("weights", "gate_means", "gate_covs", "slopes", "intercepts", "noise_covs")


def study_of(
    known: AnyTruth,
    kinds: Sequence[str] | None,
    ks: Sequence[int] | None,
    sizes: list[int],
    reps: int,
    seed: int,
    start: str | None,
) -> Study:
    """Return the study of one truth, by its model; arguments are those of ``study``.

    known  a truth that studies know by its name

    Raises ``InputError`` for arguments that the model does not take, or that its study refuses.
    """
    seed = whole(seed, 0, "study: seed", np.inf)
    common: dict[str, Any] = {"sizes": sizes, "replicates": reps, "entropy": seed, "truths": [known.name]}
    if isinstance(known, SoftmaxTruth):
        if kinds is not None or start is not None:
            raise InputError("study: softmax-gated truths have no kinds of prompts and one start; leave both out")
        return softmax_study(**common, ks=ks or (known.k_true, known.k_true + 1))
    if isinstance(known, PromptTruth):
        return attention_study(**common, lines=LINES, kinds=kinds, ks=ks, start=start)
    own = (known.k_true, known.k_true + 1)
    return gaussian_study(**common, kinds=kinds or [known.kind], ks=ks or own, start=start)
