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
# # How fast are experts learned? Gaussian gates, and one expert too many
#
# A mixture of experts with Gaussian gates has a joint density of input and output, $p(x, y) = \sum_k \pi_k\, N(x;\,
# c_k, \Gamma_k)\, N(y;\, A_k x + b_k, \nu_k)$: expert $k$ answers near its centre $c_k$. Three experts are the truth.
# We fit three, then four, and ask for the *exponent* of each group of parameters: with error $\sim n^{-\alpha}$, a
# line of slope $-\alpha$ in a log-log plot.

# %%
import matplotlib.pyplot as plt
import numpy as np

import moe_prompts as mp

name = "gmoe-1"  # the first model of arXiv 2305.07572
truth = mp.truth(name)
for fitted in (1, 2):
    table = mp.rate_table("gaussian-gated", cells=[fitted])
    print(f"a true expert fitted by {fitted}:", ", ".join(f"{rate.group} {rate.rate}" for rate in table.rates))

# %% [markdown]
# These rates are derived by computer algebra, before any data: an expert that is fitted by one atom has $n^{-1/2}$ in
# all groups, one that is fitted by two only $n^{-1/8}$ for $c$ and $b$, and $n^{-1/4}$ for $\Gamma$, $A$ and $\nu$:
# two atoms whose $c$ and $b$ move apart by $\pm\delta$ change the density only at the order $\delta^4$ where
# $\Gamma$, $A$ and $\nu$ make up for it. (The slope $A$ of an expert is `a` in the printed table.)
#
# Now measure. Every fit ends at a local maximum of the likelihood with a *certificate*: less than $10^{-6}$ nats are
# left to gain. A fit without one does not count. Fits start beside the truth, so these are rates of the nearest
# maximum. Each fitted expert belongs to the true one that is nearest, its *cell*.

# %% nbmake={"mock": {"sizes": [1000, 4000], "replicates": 3}}
sizes, replicates = [1_000, 3_000, 10_000, 30_000], 40

# %%
evaluation = mp.Evaluation(truth.params)
found = {3: {}, 4: {}}  # k -> n -> errors of the certified fits
for k, by_size in found.items():
    family = mp.GaussianGatedFamily(d=1, l=1, k=k)
    for n in sizes:
        by_size[n] = []
        for replicate in range(replicates):
            data = mp.sample(name, n, seed=0, replicate=replicate)
            start = mp.starts.near_truth(truth.params).draw(family, data, np.random.default_rng([k, n, replicate]))
            fit = mp.newton(family, data, start)
            errors = mp.voronoi_errors(fit.value, truth.params)
            if fit.certified and errors.cell_sizes.min() > 0:
                lengths = errors.singleton_lengths() if k == 3 else errors.split_lengths()
                by_size[n].append(lengths | {"H": evaluation.hellinger(fit.value), "D": errors.loss("intrinsic")})
        counted = sum(len(fits) for fits in by_size.values())
    print(f"k = {k}: {counted} of {len(sizes) * replicates} fits certified and without an empty cell")

# %% [markdown]
# `c` and `A` are two of the groups, `H` is the Hellinger distance of the two densities (what matters for prediction),
# and `D` is the Voronoi loss: the sum over cells of all distances, each to the power that algebra says, so that
# theory predicts $-1/2$ for it.

# %%
predicted = {3: {"c": -1 / 2, "A": -1 / 2, "H": -1 / 2, "D": -1 / 2}}
predicted[4] = predicted[3] | {"c": -1 / 8, "A": -1 / 4}
figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.2), sharey=True, layout="constrained")
for ax, (k, by_size) in zip(axes, found.items(), strict=True):
    for group, marker in zip(predicted[k], "os^D", strict=True):
        line = mp.slope({n: [one[group] for one in fits] for n, fits in by_size.items()}, np.random.default_rng(0))
        text = f"{group}: {line.value:.2f} [{line.low:.2f}, {line.high:.2f}], predicted {predicted[k][group]:.3g}"
        ax.errorbar(line.n, line.level, yerr=np.abs(line.band.T - line.level), marker=marker, capsize=2, label=text)
        print(f"k = {k}, {text}: {line.verdict(predicted[k][group]).value}")
    ax.set(xscale="log", yscale="log", xlabel="pairs n", title=f"{k} experts fitted, 3 are true")
    ax.set_ylim(bottom=3e-4)
    ax.legend(frameon=False, fontsize=7, title="slope [90 % interval]", title_fontsize=7)
axes[0].set_ylabel("median error with 90 % interval")
plt.show()

# %% [markdown]
# The verdict rule was fixed before the data: a slope *holds* if its 90 % interval lies within .08 of the prediction,
# *fails* if it is disjoint from that band, else it is *not decidable here*. With four experts the density is learned
# as fast as with three, and the two that share a cell are not: that one predicts well does not say that one knows the
# parameters. The slopes of `c` and `A` are undecided in both fits: they scatter too much, and more data would hardly
# help, for over three decades $n^{-1/8}$ and $n^{-1/4}$ differ by a factor of 2.4. That `A` is slower is known from
# algebra, not from this picture. `D`, where every group has its power, can be decided. All Gaussian-gated claims,
# with more data: [docs/claims.md](../docs/claims.md).
#
# **Change one line:** three experts are the truth in `gmoe-2` as well, but one has $c^* = 0$. With `name = "gmoe-2"`,
# do the verdicts on `H` and `D` change?
