"""Turn the rows of a replication, and the losses that the paper published, into one table and sentences.

There is one line per truth, k, loss and source: the slopes of median and mean, the level at the largest n,
how many losses run away, and how the fits ended. Published losses are lines of the same table under the
source ``published file``.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from moe_prompts.errors import InputError
from moe_prompts.estimators.result import FitStatus
from moe_prompts.intervals import RESAMPLES
from moe_prompts.losses.softmax_voronoi import UNIDENTIFIED
from moe_prompts.seeds import bootstrap_rng
from moe_prompts.shown import Ending
from moe_prompts.slopes import slope
from moe_prompts.study.replication import MODELS, PROCEDURES, PUBLISHED_K, PUBLISHED_REPLICATES
from moe_prompts.tables import markdown, short

FILE = "published file"
#: Losses by name: as published, smallest over translations of the gate (softmax gates), intrinsic.
LOSSES = {"published": "loss_published", "translated": "loss_translated", "intrinsic": "loss_intrinsic"}
#: Slopes are of the sizes from here on; a loss above this many times the median of its size has run away.
FROM_N, RUNAWAY = 1_000, 10.0
#: Levels that differ by more than this factor are told apart.
SAME_LEVEL = 1.2
#: A median falls at a rate where the whole interval of its slope lies below this.
FALLING = -0.4
#: Infinite losses (a mass beyond the largest number) stand here, so that medians and quantiles keep their
#: place.
ENDLESS = 1e100
#: Its many sizes and replicates make few resamples enough.
RESAMPLES_OF_FILE = 1_000
SIZES_IN_FILE = {"gmoe": 100, "sgame": 200}


def summarise_replication(results: pd.DataFrame, entropy: int) -> pd.DataFrame:
    """Return one line per truth, k, loss and procedure of ``results``.

    Columns are those of ``line_of`` and these:

    certified     share of fits with a certificate; losses of certified procedures are of these only
    statuses      how many fits ended with which status
    nats_below    median log-likelihood of the certified fit on the same data minus the procedure's own
    unidentified  share of fits in which every cell holds several atoms
    """
    lines = []
    maxima = results[(results["procedure"] == "certified") & (results["status"] == FitStatus.CERTIFIED.name)]
    reference = maxima.set_index(["truth", "k", "n", "replicate"])
    for (name, k), rows in results.groupby(["truth", "k"], sort=False):
        for loss, column in LOSSES.items():
            for procedure in PROCEDURES:
                fits = rows[rows["procedure"] == procedure]
                if fits[column].isna().all():
                    continue
                certified = fits["status"] == FitStatus.CERTIFIED.name
                losses = losses_by_size(fits, loss, procedure)
                keys = pd.MultiIndex.from_frame(fits[["truth", "k", "n", "replicate"]])
                gaps = reference["log_likelihood"].reindex(keys).to_numpy() - fits["log_likelihood"].to_numpy()
                paper = str(rows["paper"].iloc[0])
                lines.append(
                    {"paper": paper, "truth": name, "k": int(k), "loss": loss, "source": procedure}
                    | line_of(losses, entropy, str(name), int(k), loss, procedure)
                    | {
                        "fits": len(fits),
                        "iterations": float(fits["iterations"].median()),
                        "most_iterations": int(fits["iterations"].max()),
                        "certified": float(certified.mean()),
                        "statuses": fits["status"].value_counts().to_dict(),
                        "nats_below": float(np.nanmedian(gaps)) if np.isfinite(gaps).any() else np.nan,
                        "unidentified": float((fits["notice"] == UNIDENTIFIED).mean()),
                    }
                )
    return pd.DataFrame(lines)


def losses_by_size(fits: pd.DataFrame, loss: str, procedure: str) -> dict[int, np.ndarray]:
    """Return n -> the losses of one procedure, of certified fits alone where it is one that certifies.

    fits       rows of one truth and k by that procedure
    loss       one of ``LOSSES``
    procedure  one of ``PROCEDURES``
    """
    certified = fits["status"] == FitStatus.CERTIFIED.name
    used = fits[certified] if procedure.startswith("certified") else fits
    used = used[used[LOSSES[loss]].notna()]
    return {int(n): group[LOSSES[loss]].to_numpy() for n, group in used.groupby("n")}


def counted(losses: dict[int, np.ndarray]) -> dict[int, np.ndarray]:
    """Return the losses that slopes are computed from: n >= 1e3, infinite ones set to ``ENDLESS``."""
    finite = {n: np.minimum(values, ENDLESS) for n, values in sorted(losses.items()) if len(values)}
    return {n: values for n, values in finite.items() if n >= FROM_N}


def line_of(losses: dict[int, np.ndarray], entropy: int, *names: str | int, resamples: int = RESAMPLES) -> dict:
    """Return slopes, levels and curve of some losses, by the names of their columns.

    slope, mean_slope       slope of the median and of the mean over n >= 1e3, each with its 90 % interval
    median, mean, q90       at the largest n
    runaway                 share of losses above ten times the median of their size
    sizes, medians, means   the curve

    losses     n -> losses of the replicates
    entropy    seed of the resamples, with ``names``, which address them
    resamples  how many are drawn
    """
    finite = {n: np.minimum(values, ENDLESS) for n, values in sorted(losses.items()) if len(values)}
    line: dict = {"n_max": max(finite, default=0)}
    for prefix, statistic in (("", "median"), ("mean_", "mean")):
        found = slope(counted(losses), bootstrap_rng(entropy, *names, statistic), statistic, resamples)
        line |= {f"{prefix}slope": found.value, f"{prefix}low": found.low, f"{prefix}high": found.high}
    last = finite[line["n_max"]] if finite else np.array([np.nan])
    line |= {"median": float(np.median(last)), "mean": float(last.mean()), "q90": float(np.quantile(last, 0.9))}
    ratios = [values / np.median(values) for values in finite.values()]
    line["runaway"] = float((np.concatenate(ratios) > RUNAWAY).mean()) if ratios else np.nan
    line |= {
        "sizes": list(finite),
        "medians": [float(np.median(values)) for values in finite.values()],
        "means": [float(values.mean()) for values in finite.values()],
    }
    return line


# The published losses ------------------------------------------------------------------------------


def published_lines(paper: str, path: Path, entropy: int = 0) -> pd.DataFrame:
    """Return the losses that the paper published as lines of the table; they are of the loss ``published``.

    The file holds these arrays:

        gmoe   ``n`` (100,), ``loss_model{1..4}_k{4,5}`` (100, 20) and ``iterations_...`` (100, 20)
        sgame  ``n_k{2,3,4}`` (200,) and ``loss_k{2,3,4}`` (200, 40)

    Raises ``InputError`` where it does not.
    """
    arrays, lines = read_published(paper, path), []
    for (name, k), losses in published_losses(paper, arrays).items():
        iterations = arrays.get(f"iterations{_suffix(paper, name)}_k{k}")
        lines.append(
            {"paper": paper, "truth": name, "k": k, "loss": "published", "source": FILE}
            | line_of(losses, entropy, name, k, "published", FILE, resamples=RESAMPLES_OF_FILE)
            | {
                "fits": sum(map(len, losses.values())),
                "iterations": np.nan if iterations is None else float(np.median(iterations)),
                "most_iterations": np.nan if iterations is None else int(iterations.max()),
                "certified": np.nan,
                "statuses": {},
                "nats_below": np.nan,
                "unidentified": np.nan,
            }
        )
    return pd.DataFrame(lines)


def published_losses(paper: str, arrays: Mapping[str, np.ndarray]) -> dict[tuple[str, int], dict[int, np.ndarray]]:
    """Return (truth, k) -> n -> losses of the arrays that ``read_published`` returned."""
    found: dict[tuple[str, int], dict[int, np.ndarray]] = {}
    for name in [f"gmoe-{model}" for model in MODELS] if paper == "gmoe" else ["sgame"]:
        for k in PUBLISHED_K[paper]:
            n = arrays["n" if paper == "gmoe" else f"n_k{k}"]
            losses = found.setdefault((name, k), {})
            table = arrays[f"loss{_suffix(paper, name)}_k{k}"]
            for size, values in zip(n.astype(int), table, strict=True):  # one size of gmoe stands there twice
                losses[int(size)] = np.concatenate([losses.get(int(size), np.empty(0)), values])
    return found


def _suffix(paper: str, name: str) -> str:
    return f"_model{name.removeprefix('gmoe-')}" if paper == "gmoe" else ""


def read_published(paper: str, path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file of published losses.

    Raises ``InputError`` where the file cannot be read, lacks an array, or holds numbers that are no losses.
    """
    count, replicates = SIZES_IN_FILE[paper], PUBLISHED_REPLICATES[paper]
    if paper == "gmoe":
        names = [f"model{model}_k{k}" for model in MODELS for k in PUBLISHED_K[paper]]
        expected: dict[str, tuple[int, ...]] = {"n": (count,)}
        expected |= {f"{what}_{name}": (count, replicates) for name in names for what in ("loss", "iterations")}
    else:
        expected = {f"n_k{k}": (count,) for k in PUBLISHED_K[paper]}
        expected |= {f"loss_k{k}": (count, replicates) for k in PUBLISHED_K[paper]}
    arrays = _arrays(path, expected, paper)
    for name in expected:
        low = 0 if name.startswith("iterations") else np.nextafter(0, 1)
        if not (arrays[name] >= low).all() or not np.isfinite(arrays[name]).all():
            raise InputError(f"{path}: {name} has values that are not finite and positive; expected sizes and losses")
    return arrays


def _arrays(path: Path, expected: Mapping[str, tuple[int, ...]], paper: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name; each header's shape is looked at before anything is unpacked."""
    try:
        with zipfile.ZipFile(path) as file:
            missing = sorted(expected.keys() - {name.removesuffix(".npy") for name in file.namelist()})
            if missing:
                raise InputError(f"{path} lacks {', '.join(missing[:3])}; expected the published losses of {paper}")
            return {name: _array(file, name, shape, path) for name, shape in expected.items()}
    except InputError:
        raise
    except Exception as error:  # zipfile and numpy raise whatever the bytes of a damaged file lead them to
        why = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"cannot read {path} as published losses ({why}); expected an .npz of arrays") from error


def _array(file: zipfile.ZipFile, name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    if file.getinfo(f"{name}.npy").compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{path}: {name} is packed in an odd way; expected an .npz as numpy.savez writes it")
    with file.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        found, _, kind = read(member)
    if found != shape or not np.issubdtype(kind, np.number):
        raise InputError(f"{path}: {name} has shape {found!s:.60} of {kind!s:.60}; expected numbers {shape}")
    with file.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


# What it says --------------------------------------------------------------------------------------


def replication_table(summary: pd.DataFrame) -> str:
    """Return the lines of the published loss as Markdown.

    Those of softmax gates also show the smallest loss over translations.
    """
    header = [
        "truth",
        "k",
        "loss",
        "source",
        "slope of median",
        "slope of mean",
        "at n",
        "median",
        "mean",
        "90 %",
        "runaway",
        "iterations",
        "nats below",
        "certified",
    ]
    body = [
        [
            line.truth,
            str(line.k),
            line.loss,
            line.source,
            _interval(line.slope, line.low, line.high),
            _interval(line.mean_slope, line.mean_low, line.mean_high),
            short(line.n_max),
            f"{line.median:.2g}",
            f"{line.mean:.2g}",
            f"{line.q90:.2g}",
            f"{line.runaway:.1%}",
            _number(line.iterations, ".0f"),
            _number(line.nats_below, ".2g"),
            _number(line.certified, ".0%"),
        ]
        for line in _ordered(summary[summary["loss"] != "intrinsic"]).itertuples()
    ]
    return markdown(header, body)


def _ordered(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the rows by truth, k and loss, the published file first."""
    sources = [FILE, *PROCEDURES]
    places = summary.assign(
        _truth=summary["truth"],
        _loss=summary["loss"].map(list(LOSSES).index),
        _source=summary["source"].map(sources.index),
    )
    return places.sort_values(["_truth", "k", "_loss", "_source"]).drop(columns=["_truth", "_loss", "_source"])


def _interval(value: float, low: float, high: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _number(value: float, form: str) -> str:
    return "-" if value is None or np.isnan(value) else format(value, form)


def findings(summary: pd.DataFrame) -> list[str]:
    """Return what the table says, sentence by sentence.

    Every number and every choice of words is the table's.
    """
    paper = summary["paper"].iloc[0]
    return [sentence for sentence in (say(summary) for say in SENTENCES[paper]) if sentence]


def _wide(summary: pd.DataFrame, value: str, loss: str = "published") -> pd.DataFrame:
    """Return ``value`` by (truth, k) and source, of one loss."""
    return summary[summary["loss"] == loss].pivot(index=["truth", "k"], columns="source", values=value)


def _ratio(summary: pd.DataFrame, above: str, below: str, curve: str, loss: str = "published") -> pd.Series:
    """Return the ratio of the curves of two sources by (truth, k).

    It is a geometric mean over the sizes of both from ``FROM_N`` on.
    """
    values, sizes = _wide(summary, curve, loss), _wide(summary, "sizes", loss)
    ratios = {}
    if {above, below} <= set(values.columns):
        for index in values.index[values[[above, below]].notna().all(axis=1)]:
            curves = [dict(zip(sizes[name][index], values[name][index], strict=True)) for name in (above, below)]
            shared = [n for n in curves[0].keys() & curves[1].keys() if n >= FROM_N]
            if shared:
                ratios[index] = np.exp(np.mean([np.log(curves[0][n] / curves[1][n]) for n in shared]))
    return pd.Series(ratios, dtype=float)


def _span(values: pd.Series, form: str = ".2g") -> str:
    low, high = (format(float(v), form) for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _same_slope(summary: pd.DataFrame, one: str, other: str) -> str:
    """Say in how many lines the intervals of two sources' slopes overlap, and what follows."""
    low, high = _wide(summary, "low"), _wide(summary, "high")
    if not {one, other} <= set(low.columns):
        return ""
    both = low[[one, other]].notna().all(axis=1)
    if not both.any():
        return ""
    overlap = ((low[one] <= high[other]) & (low[other] <= high[one]))[both]
    ends = "the slope cannot tell them apart" if overlap.all() else "the slope tells them apart in the others"
    ends = ends if overlap.any() else "the slope tells them apart"
    return f"the intervals of their slopes overlap in {int(overlap.sum())} of {len(overlap)} lines: {ends}"


def _gmoe_iterations(summary: pd.DataFrame) -> str:
    most = _wide(summary, "most_iterations")
    if FILE not in most:
        return ""
    top = most[FILE].max()
    slopes = _span(_wide(summary, "slope")[FILE], ".2f")
    if top == 0:
        return f"Published losses have slopes {slopes}, and every published run counts 0 iterations: one EM step."
    return f"Published losses have slopes {slopes}; the published runs count up to {top:.0f} iterations."


def _gmoe_reproduced(summary: pd.DataFrame) -> str:
    return _reproduced(summary, "One EM step on our data")


def _sgame_reproduced(summary: pd.DataFrame) -> str:
    return _reproduced(summary, "The published procedure on our data")


def _reproduced(summary: pd.DataFrame, what: str) -> str:
    ratio = _ratio(summary, "published", FILE, "medians")
    if ratio.empty:
        return ""
    agree = "reproduces" if ratio.between(0.5, 2).all() else "does not reproduce"
    return f"{what} {agree} the published level: its medians are {_span(ratio)} times the published ones at the same n."


def _gmoe_slopes(summary: pd.DataFrame) -> str:
    slopes, overlap = _wide(summary, "slope"), _same_slope(summary, "published", "certified")
    if not overlap:
        return ""
    return (
        f"One step has slopes {_span(slopes['published'], '.2f')}, the certified maximum "
        f"{_span(slopes['certified'], '.2f')}; {overlap}."
    )


def _gmoe_levels(summary: pd.DataFrame) -> str:
    ratio, means = (_ratio(summary, "certified", "published", curve) for curve in ("medians", "means"))
    start = _ratio(summary, "published", "start", "medians")
    if ratio.empty or start.empty:
        return ""
    apart = (ratio > SAME_LEVEL) | (ratio < 1 / SAME_LEVEL)
    tells = "tells them apart" if apart.all() else "tells some of them apart" if apart.any() else "does not either"
    closer = "closer to" if (start > 1).all() else "no closer to" if (start <= 1).all() else "in some lines closer to"
    return (
        f"The level {tells}: the median loss of the certified maximum is {_span(ratio)} times that of one step (the "
        f"mean, which single runaways move, {_span(means)} times), and the start is {closer} the truth than one step, "
        f"whose median loss is {_span(start)} times the start's (geometric means over n >= {short(FROM_N)})."
    )


def _from_data(summary: pd.DataFrame) -> str:
    loss = "translated" if "translated" in set(summary["loss"]) else "published"
    ratio = _ratio(summary, "certified-data", "certified", "medians", loss)
    certified = _wide(summary, "certified", loss)
    if ratio.empty:
        return ""
    return (
        f"Starts from data end certified in {_span(certified['certified-data'] * 100, '.0f')} % of the fits (starts "
        f"beside the truth: {_span(certified['certified'] * 100, '.0f')} %), with medians {_span(ratio)} times those "
        "from beside the truth."
    )


def _runaways(summary: pd.DataFrame) -> str:
    loss = summary[summary["loss"] == "published"]
    shares = [
        f"{source} {_span(100 * rows['runaway'], '.1f')} %" for source, rows in loss.groupby("source", sort=False)
    ]
    return f"Losses above {RUNAWAY:g} times the median of their size: {', '.join(shares)}."


def _sgame_file(summary: pd.DataFrame) -> str:
    lines = summary[(summary["loss"] == "published") & (summary["source"] == FILE)]
    if lines.empty:
        return ""
    each = [
        f"k = {line.k}: median {_interval(line.slope, line.low, line.high)}, mean {line.mean_slope:.2f}"
        for line in lines.itertuples()
    ]
    holding = lines[lines["high"] < FALLING]["k"].tolist()
    falling = (
        f"the median falls at a rate for k = {', '.join(map(str, holding))} only"
        if holding
        else "no median falls at a rate"
    )
    if len(holding) == len(lines):
        falling = "all medians fall at a rate"
    return f"Slopes of the published losses, {'; '.join(each)}: {falling}."


def _sgame_stop(summary: pd.DataFrame) -> str:
    iterations, below = _wide(summary, "iterations"), _wide(summary, "nats_below")
    if not {"published", "certified"} <= set(iterations.columns):
        return ""
    return (
        f"The published stopping rule ends EM after {_span(iterations['published'], '.0f')} steps (medians), "
        f"{_span(below['published'].clip(lower=0))} nats below the certified maximum of the same data."
    )


def _sgame_translation(summary: pd.DataFrame) -> str:
    fixed, free = _wide(summary, "median"), _wide(summary, "median", "translated")
    if "published" not in fixed or "published" not in free:
        return ""
    ratio = fixed["published"] / free["published"]
    # Where most gates are not identified, neither is a translation of them: another line is quoted if there
    # is one.
    identified = ratio[_wide(summary, "unidentified")["published"] < 0.1]
    most = (identified if len(identified) else ratio).idxmax()
    if ratio.max() < 1.5:
        return "Taking the smallest loss over translations of the gate changes the medians by less than half."
    return (
        f"Much of the published loss is the gate's translation, which no density shows: at the largest n the median as "
        f"published is {_span(ratio)} times the smallest over translations (k = {most[1]}: "
        f"{fixed['published'][most]:.2g} against {free['published'][most]:.2g})."
    )


def _sgame_certified(summary: pd.DataFrame) -> str:
    slopes, low, high, medians, means = (
        _wide(summary, name, "translated") for name in ("slope", "low", "high", "median", "mean")
    )
    if not {"published", "certified"} <= set(slopes.columns):
        return ""
    each = [
        f"k = {k}: slope {_interval(*(found['certified'][name, k] for found in (slopes, low, high)))}, median "
        f"{medians['certified'][name, k]:.2g}, mean {means['certified'][name, k]:.2g}"
        for name, k in slopes.index
    ]
    ratio = medians["certified"] / medians["published"]
    worse = [str(k) for (_, k), value in ratio.items() if value > 1.2]
    ends = (
        f"larger than where EM was stopped for k = {', '.join(worse)}" if worse else "not larger than where EM stopped"
    )
    return f"Certified maxima, smallest loss over translations, at the largest n, {'; '.join(each)}: medians {ends}."


def _sgame_unidentified(summary: pd.DataFrame) -> str:
    share = _wide(summary, "unidentified")
    shown = [
        f"{share.loc[index, source]:.0%} of the fits {source} with k = {index[1]}"
        for index in share.index
        for source in ("published", "certified")
        if source in share and share.loc[index, source] > 0
    ]
    return f"Every cell holds several atoms, so that gate slopes mean nothing, in {', '.join(shown)}." if shown else ""


SENTENCES = {
    "gmoe": (_gmoe_iterations, _gmoe_reproduced, _gmoe_slopes, _gmoe_levels, _from_data, _runaways),
    "sgame": (
        _sgame_file,
        _sgame_reproduced,
        _sgame_stop,
        _sgame_translation,
        _sgame_certified,
        _from_data,
        _sgame_unidentified,
        _runaways,
    ),
}


def replication_report(results: pd.DataFrame, published: pd.DataFrame | None, entropy: int) -> tuple[str, pd.DataFrame]:
    """Return the text of summary.md and the lines of summary.json.

    results    rows of the run
    published  lines of the paper's own losses, or None
    entropy    seed of the run, from which resamples are drawn
    """
    ours = summarise_replication(results, entropy)
    summary = ours if published is None else pd.concat([ours, published], ignore_index=True)
    texts = [replication_table(summary), " ".join(findings(summary)), "\n".join(_endings(summary))]
    if published is None:
        texts.append("Without --published the losses that the paper published are left out.")
    return "\n\n".join(texts), summary


def replication_ending(summary: pd.DataFrame) -> Ending:
    """Return what the command prints of a run: findings, and the losses of each procedure in 80 columns.

    summary  lines of ``replication_report``
    """
    body = [
        [
            line.truth,
            str(line.k),
            _SOURCES.get(line.source, line.source) + (", translated" if line.loss == "translated" else ""),
            "-" if np.isnan(line.slope) else f"{line.slope:.2f} +- {(line.high - line.low) / 2:.2f}",
            f"{line.median:.2g}",
            short(line.n_max),
            _number(line.nats_below, ".2g"),
            _number(line.certified, ".0%"),
        ]
        for line in _ordered(summary[summary["loss"] != "intrinsic"]).itertuples()
    ]
    header = ["truth", "k", "fit", "slope of median loss", "median", "at n", "nats below", "certified"]
    legend = (
        "fit: paper, the losses that the paper published; start, where its procedure starts; published, where it "
        "stops; certified, the maximum climbed from there; from data, the maximum from starts that do not know the "
        "truth. slope: on log n, with half of its 90 % interval. nats below: log-likelihood that the maximum has more. "
        "certified: share that is a certified local maximum."
    )
    return Ending(findings(summary), header, body, legend, keys=3)


_SOURCES = {FILE: "paper", "certified-data": "from data"}


def _endings(summary: pd.DataFrame) -> list[str]:
    """Say how the fits of each procedure ended, in words, with what to do about it."""
    first = summary[summary["source"] != FILE].drop_duplicates(["truth", "k", "source"])
    lines = []
    for source, rows in first.groupby("source", sort=False):
        counts = pd.DataFrame(rows["statuses"].tolist()).sum()
        shown = ", ".join(f"{int(count)} {name}" for name, count in counts.sort_values(ascending=False).items())
        lines.append(f"{source}: {shown}")
    seen = {name for statuses in first["statuses"] for name in statuses}
    lines += [f"{status.name}: {status.advice}" for status in FitStatus if status.name in seen]
    return lines
