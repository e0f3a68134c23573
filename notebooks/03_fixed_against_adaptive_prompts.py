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
# # Fixed against adaptive prompts: which learns faster?
#
# One attention head with two frozen experts, as in [notebook 01](01_attention_is_a_mixture_of_experts.ipynb), and two
# prompts that made the data: $y = f^*(x) + $ noise of standard deviation $s$. A student knows the head and fits two
# prompts by least squares. We cross two truths with two kinds of student and ask for the *risk* $\mathbb{E}\,|\hat
# f(x) - f^*(x)|^2$ against the number $n$ of pairs.
#
# Theory says two things before any data. A class of prompts that *contains* the truth has risk $s^2 P / n$, $P$ its
# number of parameters. One that does not contain it stops at a *floor*: its best function is not the true one.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

import moe_prompts as mp

noise = 2.0  # standard deviation of each output
kinds = {"fixed": mp.PromptKind.parse("fixed"), "adaptive": mp.PromptKind.parse("adaptive:gelu")}
truths = {"a fixed truth": mp.prompt_truth("attention-fixed"), "an adaptive truth": mp.prompt_truth("attention-gelu")}
truths = {which: replace(truth, noise=noise) for which, truth in truths.items()}
signal = {which: truth.signal for which, truth in truths.items()}
print("E |f*|^2:", {which: round(value, 1) for which, value in signal.items()})

# %% nbmake={"mock": {"sizes": [300, 3000], "replicates": 2, "starts": 4}}
sizes, replicates, starts = [30, 100, 300, 1_000, 10_000, 100_000], 12, 8


# %% [markdown]
# Least squares in attention has many local minima, so every fit begins at several random places and at the minimum of
# the problem without noise, whose risk is the floor. Where the class holds the truth, that start is the truth: what
# is measured is the estimator, not a search. Each end carries a certificate or says that it has none; all of them
# count here, and a floor is the best of several starts, so an upper bound.


# %%
def minima(truth, family, data, seed, more=()):
    """The best minimum of each data set, from random starts and from ``more``."""
    rng = np.random.default_rng(seed)
    points = np.array([*(mp.random_start(family, rng, mp.Box()) for _ in range(starts)), *more])
    return [found.best for found in mp.least_squares(family, data, [points] * len(data), truth.noise)]


def risk(which, params):
    """In units of E |f*|^2."""
    truth = truths[which]
    return ((params.regression(truth.x) - truth.params.regression(truth.x)) ** 2).sum(axis=1).mean() / signal[which]


table = {}
for which, truth in truths.items():
    for kind, parsed in kinds.items():
        family = truth.family(parsed, k=2)
        best = minima(truth, family, [truth.population()], seed=0)[0]
        risks, certified = {}, 0
        for n in sizes:
            data = [truth.data(n, np.random.default_rng([n, replicate])) for replicate in range(replicates)]
            fits = minima(truth, family, data, seed=n, more=[best.value.vector])
            risks[n] = [risk(which, fit.value) for fit in fits]
            certified += sum(fit.certified for fit in fits)
        floor = 0.0 if parsed == truth.params.kind else risk(which, best.value)
        table[which, kind] = risks, floor, truth.noise**2 * family.n_parameters / signal[which]
        print(f"{which}, {kind} students: floor {floor:.3f}, {certified} of {len(sizes) * replicates} fits certified")

# %%
figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.4), sharey=True, layout="constrained")
for ax, which in zip(axes, truths, strict=True):
    for kind, style in {"fixed": "o--", "adaptive": "s-"}.items():
        risks, floor, price = table[which, kind]
        line = mp.slope(risks, np.random.default_rng(0), statistic="mean")
        drawn = ax.errorbar(line.n, line.level, yerr=np.abs(line.band.T - line.level), fmt=style, capsize=2, label=kind)
        ax.plot(line.n, floor + price / line.n, ":", color=drawn[0].get_color())
    ax.set(xscale="log", yscale="log", xlabel="pairs n", title=which)
    ax.legend(frameon=False, title="students")
axes[0].set_ylabel("risk / E|f*|², mean and 90 % interval\n(dotted: floor + s²P/n)")
plt.show()

# %% [markdown]
# - **Fixed truth:** fixed students win at every $n$, and adaptive ones stop at a floor: "adaptive" is not "fixed and
#   more", since $W_2\,\mathrm{gelu}(W_1 x)$ is no constant. Adaptive prompts are a bet on the truth, not a free gain.
# - **Adaptive truth:** fixed students stop at a floor. With few data they are the better ones all the same, for they
#   have 6 parameters to pay for and adaptive ones 14.
#
# The lines cross where the price of more parameters is the floor: $n^* = s^2 (P_a - P_f) / \mathrm{floor}$.

# %%
(fixed, floor, fewer), (adaptive, _, more) = (table["an adaptive truth", kind] for kind in kinds)
ahead = [n for n in sizes if np.mean(adaptive[n]) < np.mean(fixed[n])]
print(f"predicted n* = {(more - fewer) / floor:.0f}; adaptive students are ahead at n =", *ahead)

# %% [markdown]
# Below some hundred pairs risks lie above $s^2 P / n$, which is a law for large $n$; so the crossing comes a little
# late. The same with less noise, more prompts and many more data: `python experiments/sample_efficiency.py` and
# claims P-floor and P-cross in [docs/claims.md](../docs/claims.md). The same question in a whole Vision Transformer:
# [notebook 07](07_theory_meets_accuracy.ipynb).
#
# **Change one line:** give adaptive prompts a bias, `mp.PromptKind.parse("adaptive:gelu:bias")`. Is there a truth
# left on which they meet a floor, what do they pay, and how many fits are certified?
