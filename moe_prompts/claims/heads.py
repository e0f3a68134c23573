"""Judge what the heads of a block together see of a split prompt (P-heads).

Heads share their prompts. A split of a prompt p into p + u and p - u is hidden to all orders where B_h u = 0
in every head, B_h the key projection of head h: in the kernel of the stacked matrix (B_1; ..; B_H), whose
dimension is d less its rank. So a rate is lost where H d_h < d, where key projections repeat each other, or
where they lose the same directions, and nowhere else in general position: where B_h u != 0 for some head, the
second-order part keeps (x'B_h u)^2 (v_h - f_h), which deficient values C_h u = 0 do not remove. A decoupled
prompt has values of its own: v + u and v - u average to v in every head, so that more heads give it no rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from moe_prompts.claims.claim import DERIVED, Claim, Line, Tables, exact_line
from moe_prompts.claims.evidence import earlier, slope_line
from moe_prompts.claims.prompts import NO_RATE_RULE, SLOPE_RULE, split_rates
from moe_prompts.identifiability import ZERO_KAPPA2, kappas, order_of_outputs
from moe_prompts.models.multi_head import MultiHead, divided
from moe_prompts.models.prompt_attention import Head, PromptAttention, single
from moe_prompts.models.prompt_truths import NOISE, PromptTruth, midpoint_grid, prompt_truth
from moe_prompts.seeds import address, bootstrap_rng
from moe_prompts.study.attention import STUDY_FITS
from moe_prompts.study.attention_report import SPLIT, D

#: The run of all truths, and the later one of fits of fixed prompts, which the slopes of these are judged on.
RUN, AGAIN = "attention-heads", "attention-heads-again"
#: What is measured of fits with one prompt too many, and its predicted exponent.
MEASURED = ((D, -0.5), (SPLIT, -0.25))
FIXED, GELU, DECOUPLED = (f"attention-{kind}-heads2" for kind in ("fixed", "gelu", "decoupled"))
#: Inputs, prompt and number of heads of the configuration without noise, and cells of its design on each
#: axis.
WIDTH, CELLS = 4, 5


def block_of_four() -> PromptTruth:
    """Return two fixed prompts in a block of four heads of d_h = 1 in d = 4, drawn once from its name.

    The laws are those of random configurations (``prompt_truths``): B and C are 3 and 2 times an orthogonal
    matrix, prompts standard normal. Head h sees the h-th singular direction of B and gives the h-th output.
    """
    rng = np.random.default_rng([address("claims: four heads"), 0])
    symmetric = 0.5 * rng.standard_normal((2, WIDTH, WIDTH))
    orthogonal = lambda: np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    head = Head(
        A=(symmetric + symmetric.swapaxes(1, 2)) / 2,
        a=0.5 * rng.standard_normal(2),
        eta=rng.standard_normal((2, WIDTH, WIDTH + 1)),
        B=3 * orthogonal(),
        C=2 * orthogonal(),
    )
    heads = divided(head, [[h] for h in range(WIDTH)])
    params = PromptAttention.fixed(heads, rng.uniform(0, 1, 2), rng.standard_normal((2, WIDTH)))
    return PromptTruth("four heads", params, NOISE, midpoint_grid(CELLS, WIDTH), "drawn at random")


def with_heads(truth: PromptTruth, heads: Sequence[Head]) -> PromptTruth:
    """Return the truth with the same prompts in a block of other heads, whose outputs stand side by side."""
    return replace(truth, params=replace(truth.params, head=MultiHead(tuple(heads))))


def heads_of(truth: PromptTruth) -> tuple[Head, ...]:
    """Return the heads of a truth: one or several."""
    head = truth.params.head
    return head.heads if isinstance(head, MultiHead) else (single(head),)


def hidden_directions(truth: PromptTruth) -> int:
    """Return the dimension of what the keys of no head see."""
    keys = np.concatenate([head.B for head in heads_of(truth)])
    return truth.params.head.p - int(np.linalg.matrix_rank(keys))


def kernel_lines(seed: int) -> list[Line]:
    """Return whether splits are visible to second order exactly where the stacked keys lose no direction."""
    whole = block_of_four()
    heads = heads_of(whole)
    blocks: dict[str, Sequence[Head]] = {
        f"the first {count} of four heads of d_h = 1 in d = 4": heads[:count] for count in range(1, WIDTH + 1)
    }
    for different in range(1, WIDTH):
        # Frozen gates and values stay those of each head; keys repeat.
        repeated = [replace(head, B=heads[h % different].B) for h, head in enumerate(heads)]
        blocks[f"four such heads, {different} different key projections"] = repeated
    two = prompt_truth(FIXED)
    flat = [replace(head, C=head.C * np.array([1.0, 0.0])) for head in heads_of(two)]
    truths = {name: with_heads(whole, own) for name, own in blocks.items()}
    truths["two heads in d = 2, values of rank 1 that lose the same direction"] = with_heads(two, flat)
    return [kernel_line(name, truth, seed) for name, truth in truths.items()]


def kernel_line(name: str, truth: PromptTruth, seed: int) -> Line:
    """Return the line of one block: kappa2 is 0 where directions are hidden, and positive elsewhere."""
    hidden = hidden_directions(truth)
    found = kappas(truth, bootstrap_rng(seed, "kappas", name)).kappa2
    visible = found > ZERO_KAPPA2 * order_of_outputs(truth.signal)
    claimed = f"{hidden} hidden: kappa2 = 0" if hidden else "none hidden: kappa2 > 0"
    shown = f"kappa2 = {found:.1e}" if visible else "kappa2 = 0"
    return exact_line(name, claimed, shown, visible == (not hidden))


def shared(tables: Tables, seed: int) -> list[Line]:
    """Return what is seen without noise, and what certified fits of shared prompts measure."""
    rows = tables[RUN]
    fits = rows[(rows["study"] == STUDY_FITS) & (rows["fit_class"] == "over")]
    slopes = [
        slope_line(own, measure, predicted, seed)
        for own in (tables[AGAIN], fits[fits["truth"] == GELU])
        for measure, predicted in MEASURED
    ]
    before = [earlier(slope_line(fits[fits["truth"] == FIXED], *measured, seed)) for measured in MEASURED]
    seen = split_rates(rows[rows["truth"].isin([FIXED, GELU])], "n^-1/4")
    lost = split_rates(rows[rows["truth"] == DECOUPLED], "no rate", seed)
    return [*kernel_lines(seed), *seen, *lost, *slopes, *before]


CLAIMS = [
    Claim(
        id="P-heads",
        statement="Heads that share their prompts hide a split only along directions that the keys of none of them "
        "see. H heads with H d_h = d and keys in general position hide none: with one too many, fixed and adaptive "
        "(gelu) prompts have loss D n^-1/2 and split prompts n^-1/4. Decoupled prompts have no rate in any number of "
        "heads.",
        source=DERIVED,
        prediction=lambda: (
            "a split of p along u hides where B_h u = 0 for every head h, the kernel of the stacked key "
            "projections: of dimension d - H d_h in general position (0 for H d_h = d), more where projections repeat "
            "(moe_prompts/claims/heads.py)"
        ),
        needs={RUN: (FIXED, GELU, DECOUPLED), AGAIN: (FIXED,)},
        rule="without noise: kappa2 = 0 exactly where the stacked keys lose a direction, for 1 to 4 heads of d_h = 1 "
        "in d = 4, for 1 to 3 different key projections in four heads, and not where values alone lose one. Two heads "
        "of d_h = 1 in d = 2: a profile exponent within .12 of 2 with a gap above 5 nats at some n, and "
        f"{SLOPE_RULE}; decoupled: {NO_RATE_RULE}",
        judge=shared,
        limits="rates in a real block, whose d is hundreds: slopes are those of the reference configuration, chosen "
        "for large kappas, with its head divided in two; nor rates of fixed prompts beyond n = 3.2e6, where more and "
        "more fits lose their certificate to rounding.",
        basis="blocks of four heads, without noise",
    ),
]
