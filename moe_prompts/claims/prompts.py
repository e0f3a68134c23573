"""Judge claims about prompts in attention (P): rates, no rates, floors, and what a wrong kind costs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache, partial
from importlib import resources

import numpy as np
import pandas as pd

from moe_prompts.claims.algebra import rate_of
from moe_prompts.claims.claim import DERIVED, Claim, Line, Tables, combined
from moe_prompts.claims.evidence import MIN_CERTIFIED, gap_odds, mean_odds, slope_line, slope_lines, slope_odds
from moe_prompts.estimators.prompts.least_squares import DEFINITE
from moe_prompts.estimators.result import FitStatus
from moe_prompts.identifiability import tangent_rank
from moe_prompts.intervals import Interval, Verdict, mean_interval, within
from moe_prompts.models.prompt_attention import PromptKind
from moe_prompts.models.prompt_truths import prompt_truth
from moe_prompts.seeds import bootstrap_rng
from moe_prompts.study.attention import MODEL, SPREAD, STUDY_FITS, STUDY_GAPS
from moe_prompts.study.attention_report import BOUNDED_GAP, L2, SPLIT, D, identifiability, summarise_attention
from moe_prompts.study.summary import Measure, errors_by_size, measured_slope
from moe_prompts.tables import short
from moe_prompts.theory import predictions

RATES, CROSS, RISKS = "attention-rates", "attention-cross", "attention-risk"
SINGULAR = "attention-singular"
IDENTIFIED = ("attention-fixed", "attention-gelu", "attention-tanh", "attention-relu")
RANK_ONE = ("attention-fixed-rank1", "attention-gelu-rank1")
ALL = (*IDENTIFIED, "attention-decoupled", "attention-identity", *RANK_ONE)
TRUTHS_CROSSED = ("attention-fixed", "attention-decoupled", "attention-gelu")
PREFIX, VAPT = "arXiv 2410.02200", "arXiv 2501.18936"
#: Ratio of n risk / s^2 to the rank of the tangent, and of the median risk to the noise-free floor.
RANK_BAND, FLOOR_BAND = (0.9, 1.1), (0.95, 1.05)
#: What a band for s^2 rank / n must tell from it: the rank where the number of parameters is said, as 14 of
#: 18.
WRONG_RANK = 14 / 18
#: Starts with which a fit counts as a search, and how far above the rank n risk / s^2 has to be then.
SEARCHED, ABOVE = 16, 1.1
#: Floors of ``experiments/floors.py --write``, whose boxes are named there.
FLOORS = "floors.json"
RISK = Measure("L2", "relative_risk", "risk")

SLOPE_RULE = (
    "each slope of the median on log n by the one-sided rule of slopes, from certified fits that start beside the "
    "truth, if these are 90 % of all at every n"
)
CERTIFIED_RULE = SLOPE_RULE.replace(" that start beside the truth", "")
NO_RATE_RULE = (
    f"holds if the noise-free profile vanishes (< 1e-12) and the mean log-likelihood gap at a split of {SPREAD} stays "
    f"below {BOUNDED_GAP:g} nats at every n from 1e4 to 1e6; fails if the profile has exponent 2 and the gap is larger "
    "at some n"
)
FLOOR_RULE = (
    "of all fits, certified or not; a floor: risk with slope 0 over the last decade and a median within 5 % of the "
    "least risk found without noise, in the box b in [-1, 3], all else in [-5, 5]; s^2 rank / n: 90 % interval of the "
    "mean of n risk / (s^2 rank) within [.9, 1.1] at n = 1e6, where the tangent of the class has the rank P at the "
    "truth; elsewhere there is no prediction and the line is not judged"
)


def predicted(fit_classes: Sequence[str], groups: Sequence[str], truths: Sequence[str]) -> str:
    """Return the entries of predictions.json in words, kinds with the same prediction together.

    fit_classes  words of the column ``fit_class``
    groups       of parameters, such as "D", "split" or "L2"
    truths       names; their kinds of prompts are looked up
    """
    kinds = {prompt_truth(name).kind for name in truths}
    said: dict[tuple[str, str, str], list[str]] = {}
    for entry in predictions():
        mine = entry["model"] == MODEL and entry["truth_kind"] in kinds and entry["fit_class"] in fit_classes
        if mine and entry["group"] in groups:
            names = said.setdefault((entry["group"], entry["exponent"], entry["status"]), [])
            name = entry["truth_kind"].replace(",", " with")
            names += [name] if name not in names else []
    return "; ".join(f"{group} n^({p}), {status}: {', '.join(names)}" for (group, p, status), names in said.items())


def _rates(tables: Tables, seed: int, fit_class: str, measures: Sequence[Measure]) -> list[Line]:
    rows = tables[RATES]
    summary, fits = summarise_attention(rows, seed), rows[rows["study"] == STUDY_FITS]
    return slope_lines(summary[summary["fit_class"] == fit_class], fits, measures, seed)


def _of(tables: Tables, truths: Sequence[str]) -> Tables:
    """Return the rows of some truths; a run may hold more than a claim asked for."""
    return {name: table[table["truth"].isin(truths)] for name, table in tables.items()}


def density(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of P-density: slopes of the L2 error of all fits, with or without a certificate."""
    fits, lines = _of(tables, ALL)[RATES], []
    for _, rows in fits[fits["study"] == STUDY_FITS].groupby(["truth", "kind", "k"], sort=False):
        lines.append(slope_line(rows, L2, -0.5, seed, all_fits=True))
    return lines


def exact(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of P-exact: slopes of the loss D with as many prompts as there are."""
    return _rates(_of(tables, ALL), seed, "exact", [D])


def over(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of P-over: slopes of the loss D and of splits, and what profiles and gaps say."""
    mine = _of(tables, IDENTIFIED)
    return [*_rates(mine, seed, "over", [D, SPLIT]), *split_rates(mine[RATES], "n^-1/4")]


def split_rates(rows: pd.DataFrame, expected: str, seed: int | None = None) -> list[Line]:
    """Return the lines that noise-free profile and likelihood gaps give for a prompt that is split in two.

    ``expected`` is "n^-1/4" or "no rate"; the other one fails, anything else is undecided. ``seed`` is
    that of the odds of "no rate".
    """
    lines = []
    for line in identifiability(rows).itertuples():
        gaps = ", ".join(f"{gap:.3g} (n = {short(n)})" for n, gap in zip(line.gap_n, line.mean_gap, strict=True))
        profile = f"{line.profile:.0e}" if not np.isfinite(line.over_exponent) else f"exponent {line.over_exponent:.2f}"
        other = {"no rate": "n^-1/4", "n^-1/4": "no rate"}[expected]
        verdict = {expected: Verdict.HOLDS, other: Verdict.FAILS}.get(line.verdict, Verdict.UNDECIDED)
        found = f"profile {profile}; mean gaps {gaps} nats"
        part = "expert" if str(line.truth).startswith("experts-") else "prompt"
        name, odds = f"{line.truth}: split of one {part} in two", None
        if expected == "no rate" and seed is not None:
            own = rows[(rows["truth"] == line.truth) & (rows["study"] == STUDY_GAPS)]
            odds = gap_odds({int(n): gaps.to_numpy() for n, gaps in own.groupby("n")["gap"]}, BOUNDED_GAP, seed, name)
        lines.append(Line(name, expected, found, verdict, odds=odds))
    return lines


def unidentified(truth: str, tables: Tables, seed: int) -> list[Line]:
    """Return the lines of a truth whose surplus prompts should have no rate."""
    return split_rates(_of(tables, [truth])[RATES], "no rate", seed)


def rank(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of P-rank: no rate of fixed prompts and n^-1/4 of gelu prompts.

    The head projects keys to fewer dimensions.
    """
    fixed, gelu = (_of(tables, [name]) for name in RANK_ONE)
    seen = [*split_rates(fixed[RATES], "no rate", seed), *split_rates(gelu[RATES], "n^-1/4")]
    return [*seen, *_rates(gelu, seed, "over", [SPLIT])]


def _fits(tables: Tables, run: str, truths: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Yield the fits of one kind and number of prompts to one truth, in turn."""
    fits = _of(tables, truths)[run]
    for _, rows in fits[fits["study"] == STUDY_FITS].groupby(["truth", "kind", "k"], sort=False):
        yield rows


def _name(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return f"{first['truth']}, {first['kind']}, k = {first['k']}"


@cache
def box_floors() -> pd.DataFrame:
    """Return the committed floors, one row for each truth, kind, k and box."""
    return pd.DataFrame(json.loads(resources.files(__package__).joinpath(FLOORS).read_text(encoding="utf-8")))


def floor_line(rows: pd.DataFrame, seed: int) -> Line:
    """Return the line of a class that does not contain the truth, in the box of the study."""
    found = measured_slope(rows, RISK, "last decade", seed, all_fits=True)
    risk = float(rows.loc[rows["n"] == rows["n"].max(), "relative_risk"].median())
    least = float(rows["population_relative_risk"].median())
    ratio = risk / least if least > 0 else np.nan
    verdict = combined([found.verdict(0.0), within(ratio, ratio, FLOOR_BAND)])
    slope, low, high = (round(value, 3) + 0.0 for value in (found.value, found.low, found.high))  # no -0.000
    shown = f"risk {risk:.2%}, without noise {least:.2%}{_wider(rows)}; slope {slope:.3f} [{low:.3f}, {high:.3f}]"
    samples = errors_by_size(rows, RISK.column, all_fits=True)
    odds = slope_odds({n: samples[n] for n in found.n}, 0.0, seed, f"{_name(rows)}: floor", bound=False)
    estimate = Interval(found.value, found.low, found.high, found.replicates)
    return Line(_name(rows), "floor", f"{shown}; {_certified(rows)}", verdict, estimate, odds)


def _wider(rows: pd.DataFrame) -> str:
    """Return the floor of the same class in the widest box, in words; nothing where it is not known."""
    first, known = rows.iloc[0], box_floors()
    same = (known["truth"] == first["truth"]) & (known["kind"] == first["kind"]) & (known["k"] == first["k"])
    widest = known[same & (known["box"] == "widest")]
    return f" ({widest['floor'].iloc[0]:.2%} in the widest box)" if len(widest) else ""


def box_lines(truth: str, kind: str) -> list[Line]:
    """Return how the floor of a kind falls with k, one line for each box: upper bounds, not judged."""
    known = box_floors()
    lines = []
    for _, rows in known[(known["truth"] == truth) & (known["kind"] == kind)].groupby("box", sort=False):
        last = rows.iloc[-1]
        held = ", ".join(str(b + rest) for b, rest in zip(rows["b_on_bound"], rows["theta_on_bound"], strict=True))
        levels = ", ".join(f"{100 * value:.2f}" for value in rows["floor"])
        steps = rows["floor"].to_numpy()
        fall = 1 - steps[-1] / steps[-2]
        ks = ", ".join(map(str, rows["k"]))
        lines.append(
            Line(
                f"{truth}, {kind}, without noise, b in [{last['b_low']:g}, {last['b_high']:g}], rest in "
                f"±{last['theta_high']:g}",
                "not reached",
                f"{levels} % for k = {ks}, with {held} parameters on a bound; the last step takes {fall:.2%} off",
                None,
            )
        )
    return lines


def rank_line(rows: pd.DataFrame, seed: int) -> Line:
    """Return the line of a class that contains the truth: n risk / s^2 against the rank of its tangent there.

    Where the rank is below the number of parameters there is no prediction, and the line is not judged.
    """
    known, kind = prompt_truth(rows["truth"].iloc[0]), PromptKind.parse(rows["kind"].iloc[0])
    parameters = int(rows["n_parameters"].iloc[0])
    rank = tangent_rank(known, kind, bootstrap_rng(seed, "tangent", known.name, str(kind)))
    scaled = (rows["n"] * rows["relative_risk"] * known.signal).to_numpy() / known.noise**2
    found = mean_interval(scaled)
    shown = f"n risk / s^2 = {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]; {_certified(rows)}"
    if rank < parameters:
        shown = f"{shown}; twice the gain over the truth {2 * rows['gain'].mean():.2f} nats"
        return Line(_name(rows), f"none known: rank {rank} of P = {parameters}", shown, None, found)
    right = scaled / scaled.mean()
    odds = mean_odds(right, right * WRONG_RANK, "14 where 18", RANK_BAND, seed, f"{_name(rows)}: rank")
    verdict = found.on(lambda one: one / rank).verdict(RANK_BAND)
    return Line(_name(rows), f"s^2 rank / n, rank = P = {rank}", shown, verdict, found, odds)


def singular_line(rows: pd.DataFrame, seed: int) -> Line:
    """Return the line of a class that is singular at the truth: n risk / s^2 of the best certified fits.

    It is held against the rank of the tangent, and not judged where fits have too few starts for a search.
    """
    known, kind = prompt_truth(rows["truth"].iloc[0]), PromptKind.parse(rows["kind"].iloc[0])
    rank = tangent_rank(known, kind, bootstrap_rng(seed, "tangent", known.name, str(kind)))
    good = rows[(rows["status"] == FitStatus.CERTIFIED.name) & (rows["relative_lmin"] > DEFINITE)]
    scaled = (good["n"] * good["relative_risk"] * known.signal).to_numpy() / known.noise**2
    found = mean_interval(scaled)
    starts, n = int(rows["starts"].max()), short(int(rows["n"].iloc[0]))
    name = f"{_name(rows)}, n = {n}: best of {starts} start{'s' * (starts > 1)}"
    gain, share = 2 * good["gain"].mean(), len(good) / len(rows)
    shown = f"n risk / s^2 = {found.value:.2f} [{found.low:.2f}, {found.high:.2f}], twice the gain {gain:.2f} nats"
    shown = f"{shown}; {share:.0%} certified"
    if starts < SEARCHED:
        return Line(name, "not judged", shown, None, found)
    least = ABOVE * rank
    verdict = Verdict.HOLDS if found.low > least else Verdict.FAILS if found.high <= least else Verdict.UNDECIDED
    if share < MIN_CERTIFIED:
        verdict = Verdict.UNDECIDED
    odds = mean_odds(scaled, scaled * rank / scaled.mean(), f"{rank}", (least, np.inf), seed, name)
    return Line(name, f"above {least:.1f}, rank = {rank}", shown, verdict, found, odds)


def singular(tables: Tables, seed: int) -> list[Line]:
    """Return the lines of P-singular, one for each size and number of starts."""
    return [singular_line(rows, seed) for _, rows in tables[SINGULAR].groupby(["n", "start"], sort=False)]


def _certified(rows: pd.DataFrame) -> str:
    return f"{(rows['status'] == FitStatus.CERTIFIED.name).mean():.0%} certified"


def _misses(tables: Tables, truths: Sequence[str], seed: int, kinds: Sequence[str] | None = None) -> list[Line]:
    every = [rows for rows in _fits(tables, CROSS, truths) if rows["fit_class"].iloc[0] == "misspecified"]
    return [floor_line(rows, seed) for rows in every if kinds is None or rows["kind"].iloc[0] in kinds]


def floor(tables: Tables, seed: int) -> list[Line]:
    """Return the floors of fixed prompts on the gelu truth, box by box, and the risk of adaptive ones."""
    truths = ["attention-gelu"]
    risks = [rank_line(rows, seed) for rows in _fits(tables, RISKS, truths)]
    return [*_misses(tables, truths, seed, ["fixed"]), *box_lines("attention-gelu", "fixed"), *risks]


def cross(tables: Tables, seed: int) -> list[Line]:
    """Return the floor of every class that misses a truth, and the risk of every one that contains it."""
    risks = [rank_line(rows, seed) for rows in _fits(tables, RISKS, TRUTHS_CROSSED)]
    return [*_misses(tables, TRUTHS_CROSSED, seed), *risks]


HEAD = {"frozen": 2, "d": 2}
ONE_CONFIGURATION = "rates in any configuration: this one was chosen for large kappas"
FLOOR = (
    "a floor, the least risk of the class in its box; s^2 rank / n where the tangent of the class has rank P, its "
    "number of parameters, at the truth; where it has a smaller rank none is known"
)
CLAIMS = [
    Claim(
        id="P-density",
        statement="Fixed, decoupled and adaptive (tanh, gelu, relu, identity) prompts, as many as there are or one "
        "more, learn the function at n^-1/2.",
        source=f"{PREFIX}, {VAPT}; relu: asked here",
        prediction=lambda: predicted(("exact", "over"), ["L2"], ALL),
        needs={RATES: ALL},
        rule="each slope of the median on log n by the one-sided rule of slopes, from all fits: those without a "
        "certificate stand in a valley along which the function hardly moves",
        judge=density,
        limits=f"{ONE_CONFIGURATION}, with its own B and with one of rank one.",
    ),
    Claim(
        id="P-exact",
        statement="With as many as there are, fixed, decoupled and adaptive (tanh, gelu, relu, identity) prompts are "
        "learned at n^-1/2.",
        source=f"{PREFIX}, {VAPT}; relu: asked here",
        prediction=lambda: predicted(("exact",), ["D"], ALL),
        needs={RATES: ALL},
        rule=SLOPE_RULE,
        judge=exact,
        limits=f"{ONE_CONFIGURATION}, with its own B and with one of rank one. A larger class may hold a truth and not "
        "be regular there, as adaptive gelu prompts with a bias on a fixed truth (P-cross).",
    ),
    Claim(
        id="P-over",
        statement="With one prompt too many, fixed and adaptive (tanh, gelu, relu) prompts have loss D n^-1/2 and "
        "split prompts n^-1/4.",
        source=f"{PREFIX}, {VAPT}; relu: asked here",
        prediction=lambda: predicted(("over",), ["D", "split"], IDENTIFIED),
        needs={RATES: IDENTIFIED},
        rule=f"{SLOPE_RULE}; and a profile exponent within .12 of 2 with a gap above 5 nats at some n",
        judge=over,
        limits=f"{ONE_CONFIGURATION}. Ten that nobody selected are P-unselected.",
    ),
    Claim(
        id="P-decoupled",
        statement="With one too many, decoupled prompts (prefixes without reparameterisation) have no polynomial rate.",
        source=PREFIX,
        prediction=lambda: rate_of("decoupled", 1, 2, **HEAD),
        needs={RATES: ["attention-decoupled"]},
        rule=NO_RATE_RULE,
        judge=partial(unidentified, "attention-decoupled"),
        limits="a minimax statement: data are drawn from one truth, and the likelihood is held against one split; that "
        "generic truths have no rate is proved. With as many as there are they have n^-1/2 (P-exact).",
    ),
    Claim(
        id="P-identity",
        statement="With one too many, adaptive prompts with the identity as activation have no rate either where W2 W1 "
        "is a free matrix, of two hidden units in d = 2.",
        source=DERIVED,
        prediction=lambda: "; ".join(
            f"{hidden} hidden: {rate_of('adaptive:identity', 1, 2, hidden=hidden, **HEAD)}" for hidden in (2, 1)
        ),
        needs={RATES: ["attention-identity"]},
        rule=NO_RATE_RULE,
        judge=partial(unidentified, "attention-identity"),
        limits="the same of matrices W2 W1 of low rank. With one hidden unit no split hides: see the prediction.",
    ),
    Claim(
        id="P-rank",
        statement="In a single head that projects keys to fewer dimensions (d_h < d), fixed prompts have no rate with "
        "one too many, and adaptive gelu prompts keep n^-1/4.",
        source=DERIVED,
        prediction=lambda: "; ".join(
            [rate_of("fixed", 1, 2, rank=1, **HEAD), rate_of("adaptive:gelu", 1, 2, hidden=2, rank=1, **HEAD)]
        ),
        needs={RATES: RANK_ONE},
        rule=f"fixed: {NO_RATE_RULE}; gelu: the reverse, and {SLOPE_RULE}",
        judge=rank,
        limits="anything of several heads that share their prompts, as those of a network do (P-heads). Of these it "
        "holds where H d_h < d, and where heads have equal key projections or all lose the same direction. Algebra and "
        "data are of d_h = 1 in d = 2, the data of one configuration.",
    ),
    Claim(
        id="P-floor",
        statement="On an adaptive (gelu) truth the risk of 2 to 8 fixed prompts stops at a floor, that of the box "
        "b in [-1, 3], all else in [-5, 5]; adaptive prompts have risk s^2 rank / n.",
        source=f"asked here, after {VAPT}; s^2 rank / n: {DERIVED}",
        prediction=lambda: FLOOR,
        needs={CROSS: ["attention-gelu"], RISKS: ["attention-gelu"]},
        rule=FLOOR_RULE,
        judge=floor,
        limits="that fixed prompts never get there: floors are upper bounds, the best of random starts, for up to 8 of "
        "them. That they gain nothing from k = 4 to 8 is a fact about the narrowest box, where up to three parameters "
        "stand on a bound (docs/floors.md).",
        basis="floors without noise in three boxes (`python experiments/floors.py --write`)",
    ),
    Claim(
        id="P-cross",
        statement="A kind of prompt meets a floor, that of its box, on every truth that its class does not contain, "
        "adaptive ones on a fixed truth included. It has risk s^2 rank / n on every regular truth that it contains.",
        source=DERIVED,
        prediction=lambda: FLOOR,
        needs={CROSS: TRUTHS_CROSSED, RISKS: TRUTHS_CROSSED},
        rule=FLOOR_RULE,
        judge=cross,
        limits="the least risk of a class without bounds: up to five parameters stand on a bound of the box b in "
        "[-1, 3], all else in [-5, 5], and wider boxes have lower floors (docs/floors.md). The three truths are of one "
        "configuration; every other one is covered by derivation alone. Of the 512 fits of the singular class 2 have a "
        "certificate, so that its risk is no estimate of that at the minima. Nats left do not make it higher than 14, "
        "however: twice what these fits have gained is 17.80 nats, and that of certified ones from "
        "as many starts is 18.76 (P-singular).",
        basis="floors without noise in three boxes (`python experiments/floors.py --write`)",
    ),
    Claim(
        id="P-singular",
        statement="At a fixed truth, where the tangent of two adaptive gelu prompts with a bias has rank 14 of P = 18, "
        "the lowest of many certified least-squares fits in the box has a higher risk than s^2 rank / n.",
        source=DERIVED,
        prediction=lambda: (
            "more than s^2 rank / n: all representations of the truth have the same tangent, of rank "
            "14; where sigma' = 0 in some unit, its weights for x show at second order only, and the fit may choose "
            "them besides the 14. By how much the risk exceeds s^2 14 / n is not derived"
        ),
        needs={SINGULAR: ["attention-fixed"]},
        rule="with 16 starts at representations of the truth, half of them where units bend: the 90 % interval of the "
        "mean of n risk / s^2, of certified fits, is above 1.1 rank = 15.4 at each n; fails if it is below; undecided "
        "if it contains 15.4, or if fewer than 90 % of the fits are certified. Fits from 1 and 4 starts are shown",
        judge=singular,
        limits="the risk at the global minimum: more starts find lower minima; of 16 starts one in ten ends on the "
        "best of them. That of a class without bounds: many minima have parameters on a bound of the box b in "
        "[-1, 3], all else in [-5, 5]. Other truths and activations. Certified fits from one start pay less, and are "
        "local minima. When the data were first drawn, a certificate still allowed a smallest relative eigenvalue of 0 "
        "up to rounding. Fits with one below 1e-9 have none since: at n = 1e9 that took it from 27 % of the fits from "
        "one start, at saddles of a valley, and from none of those from 16.",
    ),
]

#: Claims whose rule, seed and design are fixed and whose data are not drawn yet.
PENDING: list[Claim] = []
