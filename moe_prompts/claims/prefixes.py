"""Judge what key and value gain by being functions of one prompt (P-prefix).

A reparameterised prefix has key = s1(p) and value = s2(p). Let a prompt p with logit s and value v be split
into p + u and p - u, half the mass each. With k_u = Dk u, v_u = Dv u and q = x'B the second-order part is

    (g / 2) [ (q k_u)^2 (v - f) + 2 (q k_u) C v_u + (q D2k[u, u]) (v - f) + C D2v[u, u] ],

g the gate of the prompt. First derivatives span (q Dk w)(v - f) + C Dv w. So a split is seen to second order
where the key moves, B k_u != 0: nothing of first order has the square of a logit, whatever the value does.
Where it does not move, only q D2k[u, u] (v - f) + C D2v[u, u] is left, and it is hidden where (D2k, D2v)[u,
u] is (Dk, Dv) w for some w. That is

    separate key and value   u = (0, w): nothing is left, the split is hidden to all orders;
    a key that stands still  s1 constant around p_i: u = e_i leaves s2''(p_i) C e_i, which w = e_i makes up.
                             To all orders, too: two prompts that differ in p_i alone have one gate, and with
                             the right masses the mean of their values is that of p, so that f is the same;
    a key that moves         s1'(p_i) != 0 for all i and B injective: every split is seen, n^-1/4.

So it is not the sharing of parameters that gives the rate but that the key determines the prompt.
"""

from __future__ import annotations

from dataclasses import replace

from moe_prompts.claims.algebra import rate_of, verified
from moe_prompts.claims.claim import DERIVED, Claim, Line, Tables, exact_line
from moe_prompts.claims.evidence import slope_line
from moe_prompts.claims.prompts import HEAD, NO_RATE_RULE, PREFIX, SLOPE_RULE, split_rates
from moe_prompts.identifiability import ZERO_KAPPA2, kappas
from moe_prompts.models.prompt_attention import PromptKind
from moe_prompts.models.prompt_truths import PREFIXES, prompt_truth
from moe_prompts.seeds import bootstrap_rng
from moe_prompts.study.attention import STUDY_FITS
from moe_prompts.study.attention_report import SPLIT, D

RUN = "prefixes"
#: Two functions with a slope, at the third random configuration; and one each beside the identity, at the
#: reference.
SHARED = ("attention-random-3-prefix_tanh_gelu", "attention-prefix_identity_tanh", "attention-prefix_tanh_identity")
#: The same f with keys and values of their own.
SEPARATE = tuple(f"{name}-separate" for name in SHARED)
#: A function that is constant where its argument is negative, as the entries of both reference prompts are in
#: part.
STANDS_STILL = "relu"


def pair_lines(seed: int) -> list[Line]:
    """Return whether splits are seen to second order exactly where the key moves, for every pair."""
    moving = [kind for kind in PREFIXES if PromptKind.parse(kind).sigma != STANDS_STILL]
    still = [kind for kind in PREFIXES if kind not in moving]
    lines = []
    for name, kinds, apart, visible in (
        ("the key moves with every entry of p", moving, False, True),
        ("the key stands still where an entry of p is negative (relu)", still, False, False),
        ("key and value apart", [*moving, *still], True, False),
    ):
        found = [kappa2(kind, apart, seed) for kind in kinds]
        right = [(size > ZERO_KAPPA2) == visible for size in found]
        claimed = f"kappa2 {'>' if visible else '='} 0 for {len(kinds)} pairs of functions"
        ends = f"from {min(found):.1e} to {max(found):.1e}" if visible else f"at most {max(found):.0e}"
        shown = f"{sum(right)} of {len(kinds)}; kappa2 {ends}"
        lines.append(exact_line(f"reference, {name}", claimed, shown, all(right)))
    return lines


def kappa2(kind: str, apart: bool, seed: int) -> float:
    """Return kappa2 of the reference prompts of one kind, with key and value apart if asked."""
    truth = prompt_truth(f"attention-{kind.replace(':', '_')}")
    if apart:
        truth = replace(truth, params=truth.params.separate)
    return kappas(truth, bootstrap_rng(seed, "kappas", kind, str(apart))).kappa2


def shared(tables: Tables, seed: int) -> list[Line]:
    """Return what algebra proves, what is seen without noise, and what certified fits measure."""
    rows = tables[RUN]
    fits = rows[rows["study"] == STUDY_FITS]
    slopes = []
    for name in SHARED:
        own = fits[fits["truth"] == name]
        exact, over = (own[own["fit_class"] == word] for word in ("exact", "over"))
        measured = ((exact, D, -0.5), (over, D, -0.5), (over, SPLIT, -0.25))
        slopes += [slope_line(some, measure, rate, seed) for some, measure, rate in measured]
    seen = split_rates(rows[rows["truth"].isin(SHARED)], "n^-1/4")
    lost = split_rates(rows[rows["truth"].isin(SEPARATE)], "no rate", seed)
    return [verified("prefix", 1, 2), *pair_lines(seed), *seen, *lost, *slopes]


CLAIMS = [
    Claim(
        id="P-prefix",
        statement="Prefixes whose key and value are two functions of one prompt, key = s1(p), value = s2(p), s1 with a "
        "slope at every entry of p, are learned at n^-1/2; with one too many they have loss D n^-1/2 and split prompts "
        "n^-1/4. The same prefixes with separate keys and values have no polynomial rate, nor have shared ones whose "
        "key stands still as p moves.",
        source=f"{PREFIX}; a key that stands still: {DERIVED}",
        prediction=lambda: (
            f"{rate_of('prefix', 1, 2, **HEAD)}, where the key moves with every entry of p "
            "(moe_prompts/claims/prefixes.py); "
            f"{rate_of('decoupled', 1, 2, **HEAD)}"
        ),
        needs={RUN: (*SHARED, *SEPARATE)},
        rule="certificates of the algebra are verified; without noise, kappa2 > 0 exactly where the key moves, for all "
        "pairs of the activations tanh, gelu, relu, sigmoid and identity at the reference prompts; shared: a profile "
        f"exponent within .12 of 2 with a gap above 5 nats at some n, and {SLOPE_RULE}; separate: {NO_RATE_RULE}",
        judge=shared,
        limits="functions with weights that are learned too, as the MLP of prefix tuning has: they are known here. The "
        "truths were chosen by their profiles without noise, before data, among 24 pairs of functions at the reference "
        "prompts and four random configurations of (tanh, gelu); at the reference (tanh, gelu) has a kappa2 ten times "
        "smaller, and its rate would be seen at larger n only. Rates with a relu key are not measured: its fits would "
        "meet kinks. There kappa2 = 0 shows that nothing is seen to second order; that nothing is to any order is "
        "derived (moe_prompts/claims/prefixes.py).",
        basis="all pairs of functions without noise",
    ),
]
