"""Report the study of a planted head: tables, a verdict computed from the rows, and the figure.

A floor is the least risk that was found for a class, without noise or by any fit: an upper bound. Means and
standard errors are over all fits, certified or not; the share of certified ones stands beside them.

A verdict has the one meaning of ``intervals``: it *holds* if the whole 90 % interval lies in the band.

contains the truth   the mean of n risk / (s^2 P) over all fits is in [.9, 1.1]
plateau              of a class without the truth: the slope of the mean risk over the last decade is in
                     [-.08, .08], and the mean risk at the largest n over the floor is in [.95, 1.05]
one prompt too many  the slope of the median distance of split prompts is within .08 of -1/4, where theory
                     gives a rate
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_prompts.claims.claim import combined
from moe_prompts.estimators.result import FitStatus
from moe_prompts.figures.style import STYLE, column, finding, legend_of, log_log, power, spoken
from moe_prompts.identifiability import ZERO_PROFILE, order_of_outputs
from moe_prompts.intervals import half_width, mean_interval, percentiles, standard_error
from moe_prompts.seeds import bootstrap_rng
from moe_prompts.shown import Ending
from moe_prompts.slopes import slope
from moe_prompts.tables import markdown
from moe_prompts.vision.figures import COLOURS
from moe_prompts.vision.planted_head.study import FLOORS, KAPPAS, PROFILES

#: Sizes at which the text says how many directions of the parameters data locate: in a head, and in a whole
#: block.
LOCATED = {True: (1e4, 1e6, 1e8), False: (1e3, 1e4, 1e6)}

#: Where n risk / (s^2 P) and risk over floor must lie.
PRICE_BAND, FLOOR_BAND = (0.9, 1.1), (0.95, 1.05)
#: Slope of the distance of split prompts where a split is seen in second order.
SPLIT_RATE = -0.25
#: Bars of medians are read by eye.
RESAMPLES = 1_000
WORDS = {
    "exact": "right class",
    "over": "one prompt too many",
    "contained": "larger class, truth at a singular point",
    "misspecified": "wrong class",
}
KEY = ["truth", "kind", "k", "fit_class", "n_parameters"]


def risk_curves(results: pd.DataFrame) -> pd.DataFrame:
    """Return one line per truth, kind, k and n of the table of fits.

    Columns: ``risk``, the mean in units of E |f*|^2, and its standard ``error``; ``ratio`` to floor + s^2 P /
    n and ``ratio_error``; ``split``, the median distance of split prompts in units of a token; ``certified``
    and ``start_share``, means in [0, 1]. ``floor`` is the least risk found by any fit or start; 0 where the
    class contains the truth.
    """
    lines = []
    for key, rows in results.groupby(KEY, sort=False):
        wrong = key[3] == "misspecified"
        floor = min(float(rows["floor"].iloc[0]), float(rows["relative_risk"].min())) if wrong else 0.0
        for n, own in rows.groupby("n"):
            price = float(own["price"].iloc[0])
            risk = own["relative_risk"].to_numpy(float)
            lines.append(
                dict(zip(KEY, key, strict=True))
                | {
                    "n": int(n),
                    "fits": len(own),
                    "risk": risk.mean(),
                    "error": standard_error(risk),
                    "floor": floor,
                    "price": price,
                    "ratio": risk.mean() / (floor + price),
                    "ratio_error": standard_error(risk) / (floor + price),
                    "split": float(own["split_rms"].median()),
                    "predicted_split": float(own["predicted_split"].iloc[0])
                    if "predicted_split" in own
                    else float("nan"),
                    "certified": float((own["status"] == FitStatus.CERTIFIED.name).mean()),
                    "start_share": float(own["start_share"].mean()),
                }
            )
    return pd.DataFrame(lines)


def report(results: pd.DataFrame, noise_free: pd.DataFrame, head: dict[str, Any], entropy: int) -> str:
    """Return all tables and the verdict as text.

    head  the choice, as ``meta.json`` keeps it
    """
    found = risk_curves(results)
    parts = [facts(noise_free, head), identification(noise_free), risks(found, noise_free), ratios(found)]
    return "\n\n".join([*parts, "\n".join(["Verdict", *verdict(results, noise_free, entropy)])])


def facts(noise_free: pd.DataFrame, head: dict[str, Any]) -> str:
    """Return in words which head it is, what it sees, and how much its planted prompts do."""
    rows = noise_free[noise_free["what"] == KAPPAS]
    one, block = rows.iloc[0], "head" not in head
    which, whose = ("all heads", "block") if block else (f"head {head['head']}", "head")
    lines = [
        f"backbone {head['backbone']}, block {head['block']}, {which}, query token {head['query']}, "
        f"{head['images']} images of the stand-in, {one.tokens:.0f} tokens (all of their variance kept)",
        f"adaptive prompts read {head['coordinates']} principal coordinates: {one.kept:.1%} of the tokens' variance; "
        f"outputs {one.outputs:.0f}: {one.kept_outputs:.1%} of the variance of the {whose}'s output",
        f"of {one.width:.0f} directions of a prompt logits see {one.by_logit:.0f} (rank of B), values "
        f"{one.by_value:.0f} (rank of C), together {one.together:.0f}: {one.width - one.together:.0f} have no rate "
        "at all",
    ]
    for row in rows.itertuples():
        sizes = np.array(row.sizes)
        located = ", ".join(f"{int((sizes > row.noise / np.sqrt(n)).sum())} at n = {n:.0e}" for n in LOCATED[block])
        lines.append(
            f"{row.truth} truth: {row.k} prompts with {row.mass:.2f} of the gate make {row.effect:.2f} of E |f*|^2; "
            f"s = {row.noise:.3g}, E |f*|^2 = {row.signal:.3g}; of {len(sizes)} visible directions of the parameters "
            f"those with a standard error below one unit: {located}"
        )
    return "\n".join(lines)


def identification(noise_free: pd.DataFrame) -> str:
    """Return the table of kappas in both coordinates and of exponents of profiles, one line per truth."""
    header = [
        "truth",
        "kappa1, token coordinates",
        "kappa1, visible",
        "exponent, exact",
        "kappa2",
        "exponent, one too many",
        "silent splits",
        "largest change of f by a silent split",
    ]
    body = []
    for row in noise_free[noise_free["what"] == KAPPAS].itertuples():
        own = noise_free[(noise_free["what"] == PROFILES) & (noise_free["truth"] == row.truth)]
        unit = order_of_outputs(row.signal)
        exact, over = (exponent(own[own["k"] == row.k + surplus], unit) for surplus in (0, 1))
        change = f"{row.split_change:.0e}" if row.silent_splits else "none"
        body.append(
            [
                row.truth,
                f"{row.kappa1_token:.0e}",
                f"{row.kappa1:.2e}",
                exact,
                f"{row.kappa2:.1e}",
                over,
                f"{row.silent_splits:.0f} dimensions",
                change,
            ]
        )
    return markdown(header, body)


def exponent(profile: pd.DataFrame, unit: float) -> str:
    """Return the local exponent of a profile between its two smallest spreads.

    A profile below 1e-12 of ``unit``, the order of magnitude of the outputs, is zero, and its exponent
    infinite.
    """
    if len(profile) < 2:
        return "not asked"
    first = profile.sort_values("eps").iloc[:2]
    low, high = first["profile"]
    if low < ZERO_PROFILE * unit:
        return "infinite"
    value = np.log(high / low) / np.log(first["eps"].iloc[1] / first["eps"].iloc[0])
    return f"{value:.2f}" + ("" if first["certified"].all() else " (a minimum without certificate)")


def ending_of(results: pd.DataFrame, noise_free: pd.DataFrame, entropy: int) -> Ending:
    """Return what the command prints: whether theory holds in this head, and a line for each class."""
    judged = judgements(results, entropy)
    counts = pd.Series([word for *_, word in judged.values()]).value_counts()
    last = int(results["n"].max())
    found = [
        f"Risk against s^2 P / n where the class holds the truth, and against its floor where it does not: of "
        f"{len(judged)} lines " + ", ".join(f"{count} {word}" for word, count in counts.items()) + "."
    ]
    found += [f"{line.removeprefix('- ').capitalize()}." for line in crossings(risk_curves(results))]
    body = []
    for row in risk_curves(results).groupby(KEY, sort=False).tail(1).itertuples():
        key = (row.truth, row.kind, row.k, row.fit_class, row.n_parameters)
        body.append(
            [
                row.truth,
                row.kind.removeprefix("adaptive:"),
                str(row.k),
                WORDS[row.fit_class].partition(",")[0],
                str(row.n_parameters),
                f"{row.risk:.1e}",
                f"{row.floor:.1e}" if row.fit_class == "misspecified" else "0",
                f"{row.ratio:.2f} +- {row.ratio_error:.2f}",
                f"{row.certified:.0%}",
                judged[key][1].removesuffix(" here") if key in judged else "not judged",
            ]
        )
    header = ["truth", "prompts", "k", "class", "P", "risk", "floor", "observed / predicted", "fits", "verdict"]
    legend = (
        f"risk: mean E |f_hat - f*|^2 at n = {last:.0e} (or the largest n of the line) in units of E |f*|^2; "
        "predicted: floor + s^2 P / n with P parameters, beside it the standard error; fits: share that is certified. "
        "The verdict is of all n; how split prompts come together is in summary.md."
    )
    return Ending(found, header, body, legend, keys=3)


def risks(found: pd.DataFrame, noise_free: pd.DataFrame) -> str:
    """Return the table of mean risks for each class and n with their standard errors, and of floors."""
    sizes = sorted(found["n"].unique())
    header = ["truth", "prompts", "k", "", "P", *(f"n = {n}" for n in sizes), "floor", "certified"]
    body = []
    for key, own in found.groupby(KEY, sort=False):
        truth, kind, k, word, count = key
        by_n = {row.n: f"{row.risk:.2e} ± {row.error:.0e}" for row in own.itertuples()}
        floor = f"{own['floor'].iloc[0]:.2e}" if word == "misspecified" else "0"
        certified = f"{np.average(own['certified'], weights=own['fits']):.0%}"
        cells = [by_n.get(n, "") for n in sizes]
        body.append([truth, kind, str(k), WORDS[word], str(count), *cells, floor, certified])
    fitted = set(zip(found["truth"], found["kind"], found["k"], strict=True))
    for row in noise_free[noise_free["what"] == FLOORS].itertuples():
        if (row.truth, row.kind, row.k) not in fitted:
            word, none = f"{WORDS['misspecified']}, floor only", [""] * len(sizes)
            body.append([row.truth, row.kind, str(row.k), word, "", *none, f"{row.floor:.2e}", ""])
    notes = (
        "Risk E |f_hat - f*|^2 in units of E |f*|^2, mean ± standard error over all fits. Floors are upper bounds: the "
        "least risk of any noise-free start or fit."
    )
    return f"{markdown(header, body)}\n\n{notes}"


def ratios(found: pd.DataFrame) -> str:
    """Return the table of measured over predicted risk, floor + s^2 P / n, for each class and n."""
    sizes = sorted(found["n"].unique())
    header = ["truth", "prompts", "k", *(f"n = {n}" for n in sizes)]
    body = []
    for (truth, kind, k, *_), own in found.groupby(KEY, sort=False):
        by_n = {row.n: f"{row.ratio:.2f} ± {row.ratio_error:.2f}" for row in own.itertuples()}
        body.append([truth, kind, str(k), *(by_n.get(n, "") for n in sizes)])
    return f"Risk over floor + s^2 P / n\n\n{markdown(header, body)}"


def verdict(results: pd.DataFrame, noise_free: pd.DataFrame, entropy: int) -> list[str]:
    """Return the sentences that the rows decide, each with its verdict."""
    lines = [f"- {sentence}" for sentence, _ in judgements(results, entropy).values()]
    return [*lines, *crossings(risk_curves(results)), *splits(results, noise_free, entropy)]


def judgements(results: pd.DataFrame, entropy: int) -> dict[tuple, tuple[str, str]]:
    """Return, for each class whose risk is judged, a sentence and its verdict; keys are those of ``KEY``."""
    found: dict[tuple, tuple[str, str]] = {}
    for key, own in results.groupby(KEY, sort=False):
        truth, kind, k, word, _ = key
        name = f"{truth} truth, {k} {kind} ({WORDS[word]})"
        if word in ("exact", "contained"):
            ratio = mean_interval((own["relative_risk"] / own["price"]).to_numpy(float))
            shown = f"{ratio.value:.3f} s^2 P / n, 90 % interval [{ratio.low:.3f}, {ratio.high:.3f}]"
            verdict = ratio.verdict(PRICE_BAND).value
            found[key] = f"{name}: risk = {shown}: {verdict}", verdict
        elif word == "misspecified":
            said, verdict = plateau(own, bootstrap_rng(entropy, "planted-head floor", *map(str, key)))
            found[key] = f"{name}: {said}", verdict
    return found


def plateau(own: pd.DataFrame, rng: np.random.Generator) -> tuple[str, str]:
    """Return whether the risk of a class without the truth has come to rest on its floor: words and verdict.

    own  fits of one class on one truth
    rng  of the bootstrap of the slope
    """
    curve = risk_curves(own).sort_values("n")
    last, n = curve.iloc[-1], own["n"]
    decade = own[n >= n.max() / 10 * (1 - 1e-9)]
    samples = {int(size): rows["relative_risk"].to_numpy(float) for size, rows in decade.groupby("n")}
    fall = slope(samples, rng, "mean")
    level = mean_interval(own.loc[n == n.max(), "relative_risk"].to_numpy(float) / last.floor)
    rests = combined([fall.verdict(0.0), level.verdict(FLOOR_BAND)])
    value, low, high = (round(end, 3) + 0.0 for end in (fall.value, fall.low, fall.high))  # no -0.000
    return (
        f"floor at most {last.floor:.2e} of E |f*|^2; at n = {last.n} the mean risk is {level.value:.3f} "
        f"[{level.low:.3f}, {level.high:.3f}] of it, s^2 P / n {last.price / last.floor:.1e} of it, and the slope of "
        f"the last decade {value:.3f} [{low:.3f}, {high:.3f}]; a plateau: {rests.value}",
        rests.value,
    )


def crossings(found: pd.DataFrame) -> list[str]:
    """Return, for each truth, from which n on the right class beats the wrong one, predicted and observed."""
    lines = []
    for truth, own in found.groupby("truth", sort=False):
        exact, wrong = (own[own["fit_class"] == word] for word in ("exact", "misspecified"))
        if exact.empty or wrong.empty:
            continue
        extra = exact["price"].iloc[0] * exact["n"].iloc[0] - wrong["price"].iloc[0] * wrong["n"].iloc[0]
        at = extra / wrong["floor"].iloc[0]
        both = exact.merge(wrong, on="n", suffixes=("", "_wrong"))
        better = both[both["risk"] < both["risk_wrong"]]["n"]
        when = (
            "every n" if len(better) == len(both) else f"n = {', '.join(map(str, better))}" if len(better) else "no n"
        )
        predicted = f"from n = {max(at, 0):.2g}" if at > 0 else "at every n, its class is the smaller one"
        lines.append(
            f"- {truth} truth: {exact['kind'].iloc[0]} prompts should be better {predicted}; they are at {when} of "
            f"{', '.join(map(str, both['n']))}"
        )
    return lines


def splits(results: pd.DataFrame, noise_free: pd.DataFrame, entropy: int) -> list[str]:
    """Return how the distance of split prompts from the true one shrinks, for classes with one too many."""
    lines = []
    for key, own in results[results["fit_class"] == "over"].groupby(["truth", "kind"], sort=False):
        samples = {int(n): rows["split_rms"].dropna().to_numpy(float) for n, rows in own.groupby("n")}
        if len(samples) < 2:
            continue
        found = slope(samples, bootstrap_rng(entropy, "planted-head", *key))
        predicted = own.groupby("n")["predicted_split"].first() if "predicted_split" in own else {}
        levels = ", ".join(
            f"{np.median(values):.2g} at n = {n}{_predicted(predicted.get(n, np.inf))}" for n, values in samples.items()
        )
        silent = float(
            noise_free[(noise_free["what"] == KAPPAS) & (noise_free["truth"] == key[0])]["silent_splits"].iloc[0]
        )
        theory = "no rate" if silent else f"-1/4, {found.verdict(SPLIT_RATE).value}"
        certified = float((own["status"] == FitStatus.CERTIFIED.name).mean())
        lines.append(
            f"- {key[0]} truth, one {key[1]} prompt too many: median distance of split prompts {levels} (in units of a "
            f"token); slope {found.value:.2f} on [{found.low:.2f}, {found.high:.2f}], theory: {theory}; certified "
            f"{certified:.0%}"
        )
    return lines


def _predicted(split: float) -> str:
    return f" (predicted {split:.2g})" if np.isfinite(split) else ""


# Figure -----------------------------------------------------------------------------------------------------

#: Marks of fixed and adaptive prompts, as in the other figures.
MARKS = {"fixed": "o", "adaptive": "s"}


def _style(kind: str, word: str) -> dict[str, Any]:
    colour = COLOURS["VPT" if kind == "fixed" else "VAPT"]
    hollow = word in ("over", "contained")
    mark = "^" if word == "contained" else MARKS["fixed" if kind == "fixed" else "adaptive"]
    return {"color": colour, "marker": mark, "markerfacecolor": "white" if hollow else colour}


def _dashes(kind: str, word: str = "exact") -> str:
    return ":" if word == "contained" else "-" if kind == "fixed" else "--"


def draw_risk(ax: Axes, found: pd.DataFrame) -> None:
    """Draw risk against n on one truth.

    Marks are measured, with 90 % intervals of their means; lines are predicted, floor + s^2 P / n.

    found  rows of ``risk_curves``
    """
    low, high = found["n"].min(), found["n"].max()
    at = np.geomspace(low / 1.5, high * 1.5, 100)
    own = found[found["fit_class"] != "over"]
    for key, rows in own.groupby(KEY, sort=False):
        _, kind, k, word, count = key
        style = _style(kind, word)
        price = rows["price"].iloc[0] * rows["n"].iloc[0]
        ax.plot(
            at,
            rows["floor"].iloc[0] + price / at,
            color=style["color"],
            linewidth=1,
            linestyle=_dashes(kind, word),
        )
        if word == "misspecified":
            ax.axhline(rows["floor"].iloc[0], color=style["color"], linewidth=0.8, linestyle=":")
        label = f"{k} {spoken(kind)} ({count})"
        ax.errorbar(
            rows["n"],
            rows["risk"],
            yerr=half_width(rows["error"], rows["fits"]),
            linestyle="none",
            label=label,
            **style,
        )
    log_log(ax)
    ax.set_xlabel("number of pairs n")


def draw_splits(ax: Axes, results: pd.DataFrame) -> None:
    """Draw the distance of split prompts from the true one, for classes with one prompt too many.

    Dots are fits, hollow marks their medians with 90 % bootstrap intervals, dashes the predictions.
    """
    own, told = results[results["fit_class"] == "over"], "predicted by the profile"
    for (truth, kind), rows in own.groupby(["truth", "kind"], sort=False):
        style = _style(kind, "over") | {"linestyle": _dashes(kind)}
        ax.plot(rows["n"], rows["split_rms"], ".", color=style["color"], alpha=0.3, markersize=4, markeredgewidth=0)
        median = rows.groupby("n")["split_rms"].median()
        bars = np.array([_median_bar(own, (truth, kind, n)) for n, own in rows.groupby("n")["split_rms"]])
        ax.errorbar(
            median.index,
            median,
            yerr=np.abs(bars.T - median.to_numpy()),
            label=f"{rows['k'].iloc[0]} {spoken(kind)}, {truth} truth",
            capsize=3,
            **style | {"markersize": 2},
        )
        if "predicted_split" in rows:
            predicted = rows.groupby("n")["predicted_split"].first()
            predicted = predicted[np.isfinite(predicted)]
            if len(predicted):
                bar = {"color": style["color"], "marker": "_", "markersize": 14, "linestyle": "none"}
                ax.plot(predicted.index, predicted, label=told, **bar)
    log_log(ax)
    ax.set_xlabel("number of pairs n")
    ax.set_ylabel("distance of split prompts")


def _median_bar(values: pd.Series, name: tuple) -> tuple[float, float]:
    """Return the 90 % bootstrap interval of the median of some fits, whose resamples are named ``name``."""
    rng, finite = bootstrap_rng(0, "planted-head median", *map(str, name)), values.dropna().to_numpy(float)
    if not len(finite):
        return np.nan, np.nan
    low, high = percentiles(np.median(finite[rng.integers(len(finite), size=(RESAMPLES, len(finite)))], axis=1))
    return float(low), float(high)


def _risk_said(found: pd.DataFrame) -> str:
    """Return how the risk of the right class lies to s^2 P / n, and where wrong ones stop."""
    right = found[found["fit_class"] == "exact"]
    wrong = found[found["fit_class"] == "misspecified"]
    said = []
    if len(right):
        ratio = right["ratio"]
        said.append(f"risk of the right class is {ratio.min():.2f} to {ratio.max():.2f} times $s^2 P/n$")
    if len(wrong):
        said.append(f"the wrong class stops at {wrong['floor'].min():.2g}")
    return "; ".join(said)


def planted_head_figure(results: pd.DataFrame) -> Figure:
    """Draw risk on both truths, and splits where there are any."""
    found = risk_curves(results)
    over = (results["fit_class"] == "over").any()
    with plt.rc_context(STYLE):
        figure, grid = column(3 if over else 2, 1.75, 1.35)
        axes = grid[:, 0]
        axes[1].sharey(axes[0])
        for ax, truth in zip(axes, ("fixed", "adaptive"), strict=False):
            own = found[found["truth"] == truth]
            draw_risk(ax, own)
            finding(ax, f"{truth} truth in one head: {_risk_said(own)}")
            ax.set_ylabel(r"risk $E|\hat f-f^*|^2\,/\,E|f^*|^2$")
        if over:
            draw_splits(axes[2], results)
            finding(
                axes[2],
                f"one prompt too many: medians go as {_split_slopes(results)}; theory {power(SPLIT_RATE)} where data "
                "see a split",
            )
        told = "in brackets: parameters; lines of risk: predicted, dotted: floor"
        dots = "dots: every fit, around medians with 90 % bootstrap intervals"
        legend_of(figure, axes, 1, f"{told}; 90 % intervals of mean risk are smaller than marks; {dots}")
    return figure


def _split_slopes(results: pd.DataFrame) -> str:
    own, said = results[results["fit_class"] == "over"], []
    for (_, kind), rows in own.groupby(["truth", "kind"], sort=False):
        median = rows.groupby("n")["split_rms"].median()
        steep = np.polyfit(np.log(median.index.to_numpy(dtype=float)), np.log(median.to_numpy()), 1)[0]
        said.append(f"{power(steep)} ({spoken(kind)})")
    return ", ".join(said)
