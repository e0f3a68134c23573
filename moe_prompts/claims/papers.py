"""List the published theorems that the claims test: a row per result, with verdicts from claims.json.

Titles, versions and what is said of a result were looked up in abstracts, public summaries and the first
part of stored texts. Where the number of a theorem or its list of hypotheses was not seen there, the page
says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_prompts.tables import markdown

#: Where a number stands: nowhere that was seen, or in what somebody else wrote of the paper.
NOT_SEEN, QUOTED = "number not seen", "as quoted in a public"


@dataclass(frozen=True)
class Paper:
    """Hold one published result and what became of it here.

    title     of the paper, with where it appeared
    where     arXiv number, or the place
    result    what it states, as far as it was looked up, with its conditions
    claims    ids of the claims that look at it; none if it was not tested
    untested  what of it no claim looks at
    """

    title: str
    where: str
    result: str
    claims: tuple[str, ...]
    untested: str


PAPERS = (
    Paper(
        "Revisiting Prefix-tuning: Statistical Benefits of Reparameterization among Prompts (ICLR 2025)",
        "2410.02200",
        f"Theorems 2 and 3 ({QUOTED} review): least squares; with a structure that key and value share, linear or of "
        "one layer, the Voronoi loss has (log n / n)^(1/2): cells of one prompt (log n / n)^(1/2), of several (log n / "
        "n)^(1/4)",
        ("P-density", "P-exact", "P-over", "P-unselected", "P-prefix"),
        "weights of the functions that are learned too (P-prefix has known functions of one prompt, entry by entry); "
        "log factors; uniformity over truths",
    ),
    Paper(
        "the same",
        "2410.02200",
        f"Theorem 1 ({QUOTED} review): without a shared structure a minimax lower bound of n^(-1/2) for Voronoi losses "
        "of every power r, so that estimation is less efficient than any polynomial rate",
        ("P-decoupled", "P-prefix"),
        "a minimax statement: single truths are looked at, and their likelihood along one split",
    ),
    Paper(
        "Revisit Visual Prompt Tuning: The Expressiveness of Prompt Experts (ICLR 2026; earlier versions: Adaptive "
        "Prompt: Unlocking the Power of Visual Prompt Tuning; On the Expressiveness of Visual Prompt Experts)",
        "2501.18936",
        f"Theorem 1 ({QUOTED} reading note): in one head and one row of attention, prompts as functions of the input "
        "have (log n / n)^(1/2), optimal sample efficiency; the conditions on activations were not seen",
        ("P-density", "P-exact", "P-over"),
        "relu, whose kink the conditions may exclude, is asked here and not a test of the theorem",
    ),
    Paper(
        "the same",
        "2501.18936",
        "no theorem: that fixed prompts are too poor a class is an argument of the paper; floors are asked here",
        ("P-floor", "P-cross", "P-heads"),
        "accuracy of real networks (the next row)",
    ),
    Paper(
        "the same, its experiments",
        "2501.18936",
        "no theorem: adaptive prompts are more accurate than fixed ones and than full tuning on VTAB-1K and FGVC",
        (
            "V-gain",
            "V-thousand",
            "V-thousand-lamb",
            "V-hundred-lamb",
            "V-fewer-lamb",
            "V-steps-lamb",
            "V-steps-six",
            "V-most",
            "V-fewer-again",
            "V-four-hundred",
            "V-ten-blocks",
            "V-real-gain",
            "V-small",
            "V-dependence",
            "V-blind",
            "V-another",
            "V-full",
            "V-full-all",
            "V-full-lamb",
            "V-ten-full",
            "V-start",
        ),
        "VTAB-1K and FGVC themselves, 224 pixels, its backbone and its 100 epochs; prompts in all blocks but in "
        "V-full-all, V-ten-blocks and V-ten-full",
    ),
    Paper(
        "Visual Prompt Tuning (ECCV 2022)",
        "2203.12119",
        "no theorem: VPT-deep is more accurate than a linear head, and than full tuning, on VTAB-1K and FGVC",
        ("V-prompts", "V-real-prompts", "V-full-fixed", "V-ten-full-fixed"),
        "VTAB-1K and FGVC themselves, 224 pixels, its backbone and its 100 epochs; prompts in all blocks but in "
        "V-ten-full-fixed",
    ),
    Paper(
        "Towards Convergence Rates for Parameter Estimation in Gaussian-gated Mixture of Experts (AISTATS 2024)",
        "2305.07572",
        f"{NOT_SEEN}: maximum likelihood; Voronoi losses of n^(-1/2) up to logarithms, in two settings: all locations "
        "of the gates other than zero (type I), or one at zero (type II)",
        ("G-exact", "G-over", "G-global", "G-type1"),
        "the highest maximum on other truths than gmoe-1 and gmoe-2; log factors; more than two experts too many",
    ),
    Paper(
        "the same, its simulations",
        "2305.07572",
        "losses of the maximum likelihood estimator fall as n^(-1/2)",
        ("G-published", "G-rerun", "G-published-local"),
        "the global maximum of the published data, which are not public",
    ),
    Paper(
        "Demystifying Softmax Gating Function in Gaussian Mixture of Experts (NeurIPS 2023)",
        "2305.03288",
        "Proposition 1 (exact fits: the density says all up to labels and a translation of the gate) and Theorem 1 "
        "(exact fits in a compact set: Hellinger distance at least linear in a Voronoi distance, smallest over "
        "translations), "
        f"{QUOTED} list of prior work. Over-fits, number not seen: rates "
        "follow from a system of polynomial equations",
        ("S-exact", "S-over", "S-global", "S-cosh"),
        "log factors; two experts too many; the highest maximum on the published truth",
    ),
    Paper(
        "the same, its simulations",
        "2305.03288",
        "losses fall as n^(-1/2)",
        ("S-published", "S-rerun", "S-published-local"),
        "as above",
    ),
    Paper(
        "Convergence rates of parameter estimation for some weakly identifiable finite mixtures (Annals of Statistics "
        "2016)",
        "Ho and Nguyen",
        f"{NOT_SEEN}: location-scale Gaussian mixtures; the order of a solvable system of polynomial equations decides",
        ("A-rbar",),
        "rates of Wasserstein distances",
    ),
    Paper(
        "Efficiently Learning Mixtures of Two Gaussians (STOC 2010)",
        "Kalai, Moitra and Valiant",
        "a bound on the zeros of a combination of Gaussians (Proposition 7, from memory), of which the upper bound of "
        "rbar is a corollary",
        ("A-rbar",),
        "everything else in it",
    ),
    Paper(
        "On Least Squares Estimation in Softmax Gating Mixture of Experts (ICML 2024)",
        "2402.02952",
        f"{NOT_SEEN}: least squares; strongly identifiable experts (sigmoid, tanh networks) are faster than polynomial "
        "ones, which are slow",
        ("E-softmax", "E-linear"),
        "experts of more than one unit; polynomials of higher degree; log factors; a minimax statement: one truth of "
        "each kind is looked at",
    ),
    Paper(
        "Sigmoid Gating is More Sample Efficient than Softmax Gating in Mixture of Experts (NeurIPS 2024)",
        "2405.13997",
        f"{NOT_SEEN}: least squares; two regimes of sigmoid gates, in which feed-forward experts are faster than with "
        "softmax gates (from its abstract)",
        ("E-sigmoid",),
        "its own rates, which were not seen; relu and gelu; experts that can be zero, for which E-sigmoid says that "
        "nothing of a surplus gate is known; a minimax statement: one truth of each regime is looked at",
    ),
    Paper(
        "On Zero-Initialized Attention: Optimal Prompt and Gating Factor Estimation (ICML 2025)",
        "2502.03029",
        f"Proposition 4.1 ({QUOTED} reading note): least squares learns the function at (log n / n)^(1/2); numbers not "
        "seen: linear and non-linear prompts, of an injective and Lipschitz function, and the gating factor have "
        "n^(-1/2) or n^(-1/4)",
        ("P-zeroinit", "P-squared"),
        "its conditions on prompts and their number, beside which P-squared stands; its non-linear prompts; "
        "log factors",
    ),
    Paper(
        "Is Temperature Sample Efficient for Softmax Gaussian Mixture of Experts? (ICML 2024)",
        "2401.13875",
        f"{NOT_SEEN}: with a temperature, rates slower than any polynomial, and as slow as 1 / log n; better ones with "
        "an activation between the linear layer of the gate and the temperature",
        ("S-temperature",),
        "rates with an activation; whether the paper fixes the common scale of gate and temperature, without which its "
        "first result holds since nothing is identified",
    ),
    Paper(
        "Dendrogram of mixing measures: Hierarchical clustering and model selection for finite mixture models",
        "2403.01684",
        "Theorem 4 (its number is that in the authors' package dendroMixR, where the criterion and the merge of "
        "location-scale Gaussians were read; the text of the theorem was not): merged to the true number, an over-fit "
        "has W1 of n^(-1/2), while itself it is as slow as n^(-1/12) with two atoms too many; the criterion with "
        "omega_n = log n selects their number consistently",
        (),
        "its own models, which have no covariates; misspecified models (its Section 5.2)",
    ),
    Paper(
        "Model Selection for Gaussian-gated Gaussian Mixture of Experts Using Dendrograms of Mixing Measures",
        "2505.13052",
        f"{NOT_SEEN}: the same for Gaussian-gated experts: the number of experts is selected consistently without a "
        "sweep, and parameters of the merged model have the pointwise optimal rate",
        ("G-merge",),
        "its own criterion and its own models (mp.choose_k measures heights in units of the fitted law); rates of the "
        "regression function",
    ),
    Paper(
        "Dendrograms of Mixing Measures for Softmax-Gated Gaussian Mixture of Experts: Consistency without Model "
        "Sweeps",
        "2510.12744",
        f"{NOT_SEEN}: the same for softmax gates, with rates where experts are too many: in a cell of m gate slope and "
        "b have the power rbar(m), a and the noise rbar(m) / 2, smallest over translations (from a summary of it)",
        ("S-merge",),
        "its own dissimilarity and criterion; misspecified models; its rates where experts are too many. S-over says "
        "more for beta and a: they have n^(-1/4) in a cell of any m if some cell holds one atom; whether the paper's "
        "losses imply it was not looked up",
    ),
)


def papers_page(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the page: a row per result of ``PAPERS``, verdicts from ``records`` as in claims.json."""
    verdicts = {record["id"]: record["verdict"] for record in records}
    body = [
        [
            paper.title,
            paper.where,
            paper.result,
            "; ".join(f"[{name}](claims.md): {verdicts[name]}" for name in paper.claims) or "not tested",
            paper.untested,
        ]
        for paper in PAPERS
    ]
    tested = sum(bool(paper.claims) for paper in PAPERS)
    return f"""# Papers tested

Written by `python experiments/claims.py --rejudge`. {tested} of {len(PAPERS)} results below are looked at by some
claim. Titles and statements were looked up in abstracts, public summaries, the first part of stored texts, in which no
theorem stands, and public repositories: "number not seen" is a theorem whose number stands in none of them, "as quoted"
one whose number and statement are those of somebody who read the paper. No theorem was seen in its own words. A claim
is a sentence of this project about the configurations that its section of [claims.md](claims.md) names: its verdict is
not a verdict on the theorem.

{markdown(["paper", "arXiv", "result", "claims and verdicts", "not tested"], body)}
"""
