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
# # VAPT on a Vision Transformer
#
# The prompts of the theory as they are used: rows among the tokens of every block of a frozen timm model, of which
# only prompts and head are trained. (Needs the extra `vision`: `pip install -e ".[vision]"`.)

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

import moe_prompts.vision as mpv
from moe_prompts.vision import VAPT, VPT, create_backbone, prompt
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.figures import draw_input_dependence, draw_mass
from moe_prompts.vision.tasks.procedural import procedural_task

torch.set_num_threads(1)

# %% [markdown]
# ## Three lines
#
# `create_backbone("small")` is a ViT of 214 thousand parameters that comes with the package, pretrained on drawings;
# any `timm.create_model("vit_...", pretrained=True)` goes the same way where the hub can be reached.

# %%
model = create_backbone("small")
model = prompt(model, VAPT(num_tokens=4, hidden=8), num_classes=16)
print(mpv.trainable_summary(model))

# %% [markdown]
# ## Train it as any model
#
# The task is drawn as well: in which of 16 places is the white shape? `VPT` has free prompts, the same for every
# image; `VAPT` computes them from the image.

# %% nbmake={"mock": {"steps": 3, "n": 64}}
steps, n = 200, 1000

# %%
task = procedural_task("dsprites_loc", n_train=n, n_test=64)
train, test = task.split("train800val200"), task.split("test")
images, labels = normalised(train.batch(range(n)), "half"), torch.tensor(train.labels)
unseen = normalised(test.batch(range(64)), "half")


def tuned(config):
    losses = []
    torch.manual_seed(0)  # dropout of the generator of VAPT
    model = prompt(create_backbone("small"), config, num_classes=16, rng=torch.Generator().manual_seed(0)).train()
    optimiser = torch.optim.AdamW(mpv.parameter_groups(model, weight_decay=1e-4), lr=1e-2)
    rng = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = torch.randint(n, (64,), generator=rng)
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images[batch]), labels[batch])
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return model.eval(), losses


trained = {"VPT-deep": tuned(VPT(num_tokens=4)), "VAPT": tuned(VAPT(num_tokens=4, hidden=8))}
models = {name: model for name, (model, _) in trained.items()}
for name, (_, losses) in trained.items():
    print(f"{name:<9} loss {losses[0]:.2f} nats at the first step, {sum(losses[-10:]) / 10:.2f} over the last ten")

# %% [markdown]
# One start, one data set, one rate, and a backbone that is too small to say anything of accuracy: that says how to do
# it, not which is better. [Notebook 07](07_theory_meets_accuracy.ipynb) compares them on a pretrained ViT-S.
#
# ## What do the prompts do?
#
# As in [notebook 01](01_attention_is_a_mixture_of_experts.ipynb), each prompt is an expert in each head. How much
# does it *vary* with the image, as a share of its size, and who asks it?

# %%
table = [mpv.prompt_table(model, unseen).assign(method=name) for name, model in models.items()]
reading = mpv.read_head(models["VAPT"], unseen[:3], block=1, head=0)

figure, axes = plt.subplots(1, 4, figsize=(10, 2.6), layout="constrained", width_ratios=[1.5, 1, 1, 1])
draw_input_dependence(axes[0], pd.concat(table))
axes[0].legend(frameon=False)
for ax, mass, image in zip(axes[1:], reading.mass_map, unseen, strict=False):
    shown = draw_mass(ax, mass.numpy(), image.mean(dim=0).numpy(), top=float(reading.mass_map.max()))
figure.colorbar(shown, ax=axes[1:], shrink=0.8, label="gate on prompts, by patch")
axes[2].set_title("VAPT, block 1, head 0; the line is the shape")
plt.show()

# %% [markdown]
# The experts of fixed prompts never vary, those of VAPT do from block 1 on (in block 0 its prompts are free vectors,
# too). Whether that *pays* is a question about data: [notebook 07](07_theory_meets_accuracy.ipynb).
#
# ## Keep only what was learned

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "prompts.safetensors"
    mpv.save_prompts(models["VAPT"], path)
    again = mpv.load_prompts(create_backbone("small"), path).eval()
    same = torch.equal(again(unseen[:8]), models["VAPT"](unseen[:8]))
    print(f"{path.stat().st_size / 1000:.0f} kB; the same output: {same}")

# %% [markdown]
# **Change one line:** in the line `trained = ..`, `VAPT(num_tokens=4, hidden=8, source="another")` computes its
# prompts from another image of the batch. What does it lose?
