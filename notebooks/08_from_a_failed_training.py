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
# # From a failed training to a working one
#
# Adaptive prompts that do not learn look all alike: the loss jumps, or stays where it is. Three numbers help to find
# the cause; [training.md](../docs/training.md) has the rules. (Needs the extra `vision`: `pip install -e ".[vision]"`.)

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch

import moe_prompts.vision as mpv
from moe_prompts.vision import VAPT, create_backbone, prompt
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.figures import draw_input_dependence
from moe_prompts.vision.tasks.procedural import procedural_task

torch.set_num_threads(1)

# %% nbmake={"mock": {"steps": 3, "n": 64}}
steps, n = 100, 640

# %%
task = procedural_task("dsprites_loc", n_train=n, n_test=64)
train, test = task.split("train800val200"), task.split("test")
images, labels = normalised(train.batch(range(n)), "half"), torch.tensor(train.labels)
unseen = normalised(test.batch(range(64)), "half")
batches = list(zip(images.split(64), labels.split(64), strict=True))


def made(start, head="zero"):
    torch.manual_seed(0)
    config = VAPT(num_tokens=4, hidden=8, start=start, offset=start == "vpt")
    return prompt(create_backbone("small"), config, 16, rng=torch.Generator().manual_seed(0), head=head)


# %% [markdown]
# ## A training as one writes it
#
# The published start and head, SGD with momentum at 1, no warm-up, no clipping. Guessing among 16 places costs
# log 16 = 2.77 nats.

# %%
failed, losses = made("official", head="published").train(), {}
optimiser = torch.optim.SGD(mpv.parameter_groups(failed, weight_decay=1e-4), lr=1.0, momentum=0.9)
losses["as one writes it"] = []
for step in range(steps):
    x, y = batches[step % len(batches)]
    optimiser.zero_grad()
    loss = torch.nn.functional.cross_entropy(failed(x), y)
    loss.backward()
    optimiser.step()
    losses["as one writes it"].append(loss.item())

# %% [markdown]
# ## The first number: gradients on prompts against those on prompts of rms 1
#
# A block's LayerNorm divides by the size of what it sees. Adaptive prompts begin at exactly zero as published, so their
# first gradients are multiplied by hundreds, and one rate cannot serve them and the head.

# %%
ratios = {
    start: mpv.gradient_ratio(made(start), images[:32], torch.Generator().manual_seed(0))
    for start in ("official", "gain", "vpt", "tokens")
}
print(pd.DataFrame(ratios).round(1).rename_axis("block"))

# %% [markdown]
# ## The recipe
#
# `train_prompts` warms up, clips and lets the rate fall along half a cosine; heads begin at zero. With it, every start
# goes down from the loss of chance. It trains by SGD here, as the failed training does; on a pretrained ViT
# `optimiser="lamb"` is recommended ([training.md](../docs/training.md#which-optimiser)).

# %%
models = {start: made(start) for start in ("official", "vpt", "tokens")}
for start, model in models.items():
    losses[f"recipe, {start}"] = mpv.train_prompts(model, batches, steps, lr=0.1)

# %% [markdown]
# ## The other two: mass of the gate, and dependence on the image
#
# Prompts that no patch attends to change nothing, and adaptive prompts that are the same for every image are fixed
# ones. A large mass is no sign of learning, though: in the table below the failed training has the largest.

# %%
models = {"as one writes it": failed} | models
rows, tables = [], []
figure, axes = plt.subplots(1, 2, figsize=(10, 3), layout="constrained")
for name, values in losses.items():
    axes[0].plot(pd.Series(values).rolling(5, min_periods=1).mean(), label=name)
axes[0].set(xlabel="step", ylabel="loss, nats (mean of 5)", yscale="log")
axes[0].legend(frameon=False)
with torch.no_grad():
    for (name, model), values in zip(models.items(), losses.values(), strict=True):
        table = mpv.prompt_table(model.eval(), unseen).assign(method=name)
        rows.append({"training": name, "last loss, nats": sum(values[-5:]) / 5, "mass": table["mass"].mean()})
        if name in ("official", "tokens"):
            tables.append(table.assign(method="VAPT-" + name))
draw_input_dependence(axes[1], pd.concat(tables))
for line, colour in zip(axes[1].get_lines(), ("C1", "C1", "C3", "C3"), strict=True):
    line.set_color(colour)
axes[1].legend(frameon=False)
print(pd.DataFrame(rows).round(3).to_string(index=False))
plt.show()

# %% [markdown]
# One start, one data set and one rate show how to look, not which start is better: for that there is `python
# experiments/starts.py`, with three teachers of each kind and rates chosen on validation labels.
#
# **Change one line:** give the first training `lr=0.1`, so that it learns. What is still missing against the recipe?
