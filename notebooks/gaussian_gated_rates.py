# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A slope of -1/2 is not a converged fit
#
# Three atoms are the truth, four are fitted. Theory: the Voronoi loss D falls like n^-1/2. We measure it twice on the
# same data: after a single EM step from beside the truth (what the published simulation did), and at the certified
# maximum of the likelihood from the same start.

# %%
import matplotlib.pyplot as plt
import numpy as np

import moe_prompts as mp

truth = mp.truth("gmoe-1")
family = mp.GaussianGatedFamily(d=1, l=1, k=4)
sizes, replicates = (1_000, 3_000, 10_000, 30_000), 8

# %%
methods = {
    "one EM step": lambda data, start: mp.em(family, data, start, mp.EMOptions(max_iterations=1, certify=False)),
    "certified maximum": lambda data, start: mp.newton(family, data, start),
}
losses = {name: {n: [] for n in sizes} for name in methods}
for n in sizes:
    for replicate in range(replicates):
        data = mp.sample("gmoe-1", n, seed=0, replicate=replicate)
        start = mp.starts.near_truth(truth.params).draw(family, data, np.random.default_rng([n, replicate]))
        for name, fit in methods.items():
            losses[name][n].append(mp.voronoi_loss(fit(data, start).value, truth.params))

# %% [markdown]
# Both have slope about -1/2. Only the level tells them apart: the maximum of the likelihood is *farther* from the truth
# than one step from a start that knew it.

# %%
figure, ax = plt.subplots(figsize=(4, 3), layout="constrained")
for name, by_size in losses.items():
    found = mp.slope(by_size, np.random.default_rng(0))
    text = f"{name}: slope {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
    ax.errorbar(found.n, found.level, yerr=np.abs(found.band.T - found.level), marker="o", capsize=2, label=text)
    print(text, "| verdict on -1/2:", found.verdict(-0.5).value)
ax.set(xscale="log", yscale="log", xlabel="number of pairs n", ylabel="Voronoi loss D (median)")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# **Change one line:** what happens with `k=5`, or with starts from the data (`mp.starts.data(1)`)?
