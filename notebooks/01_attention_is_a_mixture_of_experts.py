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
# # Attention is a mixture of experts, and a prompt is a new expert
#
# A *mixture of experts* answers $f(x) = \sum_j g_j(x)\, h_j(x)$: the gate $g(x)$, positive and of sum one, says which
# expert $h_j$ is asked. An *attention head* takes tokens $x_1, \dots, x_N$ and gives each a row of
# $\mathrm{softmax}(QK^\top / \sqrt{d_h})\, V$. We write such a head down, read it as a mixture, and add a prompt.

# %%
import matplotlib.pyplot as plt
import numpy as np
from scipy.special import softmax

import moe_prompts as mp

rng = np.random.default_rng(1)
W_Q, W_K, W_V = rng.standard_normal((3, 2, 2))  # two features per token, two dimensions of the head
tokens = rng.standard_normal((3, 2))  # x_1, x_2, x_3


def attention(rows):
    """The head's output at token 1; prompts are further rows, for keys and values alone."""
    logits = (rows[0] @ W_Q) @ (rows @ W_K).T / np.sqrt(2)
    return softmax(logits) @ (rows @ W_V)


# %% [markdown]
# ## Without prompts: three experts, all frozen
#
# Token $j$ makes one expert: its value $h_j(x) = W_V^\top x_j$ is linear in the input $x = (x_1, x_2, x_3)$, and its
# logit $x^\top A_j x$ is quadratic. `from_head` computes them from the weights; nothing is fitted.

# %%
head = mp.from_head(W_Q, W_K, W_V, tokens=3)
x = tokens.reshape(1, -1)  # one input: the tokens in a row
logits, experts = head.gates_and_experts(x)
gates = softmax(logits[0])
print("gates", gates.round(3), "and attention minus mixture", abs(gates @ experts[0] - attention(tokens)).max())

# %% [markdown]
# ## With a prompt: one more expert
#
# **Prompt tuning** (VPT) puts a learned vector $p$ among the tokens. It has the same value whatever the input: a
# *constant* expert $h = W_V^\top p$ with a logit that is linear in $x$. **Adaptive** prompts (VAPT) compute the
# vector from the input, here $p(x) = W_2\, \mathrm{gelu}(W_1 x_2)$: the expert has become a *function*.

# %%
fixed = mp.PromptAttention.fixed(head, b=[0.0], prompts=[[1.5, -1.0]])
W1 = mp.token_wise(rng.standard_normal((2, 2)), projectors=np.array([[0.0, 1.0, 0.0]]))  # reads token 2
adaptive = mp.PromptAttention.adaptive(head, [0.0], W1, rng.standard_normal((2, 2)), sigma="gelu")
for name, model in {"fixed": fixed, "adaptive": adaptive}.items():
    prompt, _ = model.prompts(x)  # keys and values are the same vectors
    gap = abs(model.regression(x)[0] - attention(np.concatenate([tokens, prompt[0]]))).max()
    share = model.gates(x)[0, -1]
    print(f"{name:<9} prompt {prompt[0, 0].round(2)} takes {share:.0%} of the gate; attention minus mixture {gap:.0e}")

# %% [markdown]
# ## What the difference looks like
#
# We move one feature of token 2 and look at the prompt's share of the gate and at its expert. Both shares change,
# since token 2 takes more or less of the gate itself and the key of the adaptive prompt moves with it. The expert of
# the fixed prompt stays: it cannot do otherwise.

# %%
values = np.linspace(-3, 3, 121)
path = np.repeat(x, len(values), axis=0)
path[:, 2] = values
figure, (left, right) = plt.subplots(1, 2, figsize=(7, 2.8), layout="constrained")
for (name, model), dash in zip({"fixed (VPT)": fixed, "adaptive (VAPT)": adaptive}.items(), ("--", "-"), strict=True):
    _, made = model.prompts(path)
    left.plot(values, model.gates(path)[:, -1], dash, label=name)
    right.plot(values, made[:, 0] @ head.C[0], dash, label=name)
left.set(xlabel="first feature of token 2", ylabel="prompt's share of the gate", ylim=(0, 1))
right.set(xlabel="first feature of token 2", ylabel="prompt's expert, first output")
left.legend(frameon=False)
plt.show()

# %% [markdown]
# So the questions of the theory of mixtures are questions about prompts. How many data does a constant expert take,
# how many one that is a function? Is an expert too many harmful? [Notebook 02](02_gaussian_gated_rates.ipynb) asks it
# of mixtures with Gaussian gates, [notebook 03](03_fixed_against_adaptive_prompts.ipynb) of this head.
#
# **Change one line:** with `sigma="identity"` the prompt is linear in token 2. Its expert is then linear in token 2,
# as the frozen one of that token is: what still differs? [Notebook 04](04_identifiability_by_algebra.ipynb) says what
# that costs.
