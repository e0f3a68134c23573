# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which prompts can be told apart? Algebra answers before any data
#
# We fit one prompt more than the truth has: two of them share the place of one. Can they be told apart? It depends on
# whether *some* split of a prompt in two leaves the output as it is. That is a question about derivatives, and a
# computer can answer it.

# %%
import matplotlib.pyplot as plt
import numpy as np

import moe_prompts as mp

names = {"fixed": "fixed", "decoupled": "decoupled", "adaptive:gelu": "gelu", "adaptive:identity": "identity"}
truths = {kind: mp.prompt_truth(f"attention-{name}") for kind, name in names.items()}

# %% [markdown]
# ## 1. Algebra
#
# What one prompt adds to the head is $u(\theta) = e^{\mathrm{logit}(\theta)}\, \mathrm{value}(\theta)$. A split in
# two moves the output by second derivatives of $u$, unless these are combinations of the first ones and of $u$
# itself: then moving apart can be made up for. `rate_table` finds all such identities and derives the rate of each
# group of parameters, with certificates for both sides.

# %%
for kind in truths:
    hidden = {"hidden": 2} if kind.startswith("adaptive") else {}  # units, as the truths below have
    table = mp.rate_table(kind, cells=[2], **hidden)
    print(f"{kind:<18}", ", ".join(f"{rate.group}: {rate.rate} ({rate.exponent.status})" for rate in table.rates))

# %% [markdown]
# The values of *decoupled* prompts (prefixes whose key and value are learned apart) have no rate: where the key
# stays, the value enters linearly, so two values that move apart cancel exactly, at every order. *Adaptive* prompts
# whose activation is the identity have directions $W_1 \pm \Delta$ that leave the logit as it is, and then the same
# happens. Fixed prompts and those with gelu bend, and $n^{-1/4}$ is their price.
#
# ## 2. How visible is the first bend?
#
# $\kappa_1$ says how visible the parameters are at all, $\kappa_2$ how visible the least visible split: zero (in
# numbers: below $10^{-5}$, for these are computed) means not at all. Both depend on the head, so they are numbers,
# not formulas.

# %%
for kind, truth in truths.items():
    seen = mp.kappas(truth, np.random.default_rng(0))
    print(f"{kind:<18} kappa1 {seen.kappa1:.3f}   kappa2 {seen.kappa2:.1e}")

# %% [markdown]
# ## 3. The noise-free profile
#
# Hold the two prompts a distance $\varepsilon$ apart and let everything else adjust, without noise. What remains of
# the error is the *profile*. A slope of 2 means that $n$ pairs show splits of size $n^{-1/4}$; a profile of zero
# means that no number of pairs shows anything.

# %% nbmake={"mock": {"spreads": [0.1, 0.2]}}
spreads = [0.025, 0.05, 0.1, 0.2, 0.4]

# %%
figure, ax = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
profiles = {}
for (kind, truth), style in zip(truths.items(), ("o--", "<-.", "s-", "P:"), strict=True):
    found = profiles[kind] = mp.profile(truth, np.random.default_rng(0), eps=spreads)
    text = "none" if found.vanishes else f"slope {found.exponents[0]:.2f}"
    ax.plot(found.eps, np.maximum(found.value, 1e-17), style, label=f"{kind}: {text}")
ax.set(xscale="log", yscale="log", xlabel="distance of the two prompts", ylabel="least error without noise (L2)")
ax.set_xticks(spreads, [f"{spread:g}" for spread in spreads])
ax.minorticks_off()
ax.legend(frameon=False, fontsize=7)
plt.show()

# %% [markdown]
# ## 4. And with data?
#
# Hold the two prompts .4 apart once more, now with $n$ noisy pairs, and see how many nats of likelihood that costs.
# Where splits are visible the cost grows with $n$, so that large ones are ruled out; where they are not it stays at a
# few nats for ever.

# %% nbmake={"mock": {"sizes": [100000], "replicates": 2}}
sizes, replicates = [10_000, 100_000, 1_000_000], 8

# %%
for kind, truth in truths.items():
    lost = []
    for n in sizes:
        data = [mp.prompt_data(truth.name, n, seed=0, replicate=replicate) for replicate in range(replicates)]
        lost.append(np.nanmean(mp.likelihood_gaps(truth, data, 0.4, np.random.default_rng(n))))
    split = profiles[kind].predicted_split(np.array(sizes), truth.noise)
    print(f"{kind:<18} nats lost:", *(f"{value:>8.1f}" for value in lost), "  expected split:", split.round(3))

# %% [markdown]
# The expected split is where the profile meets the noise, $s / \sqrt{n}$; infinite where no $n$ shows anything. No
# slope was needed, and none would do: fits that begin beside the truth may stay there, and then prompts without any
# rate have a fine slope. Prediction does not suffer, all four learn the *function* at $n^{-1/2}$ (claim P-density);
# what is lost, where there is no rate, is any right to interpret the prompts. What is proved by computer and what by
# pen: [docs/algebra.md](../docs/algebra.md).
#
# **Change one line:** take `f"attention-{name}-rank1"`, the same head with keys of one dimension, as in a head with
# $d_h < d$. In sections 2 to 4 (the algebra of section 1 would take `rank=1`), which kind loses its rate now?
