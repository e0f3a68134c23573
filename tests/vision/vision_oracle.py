"""The published computation once more, in float64 NumPy, an image and a channel at a time; nothing is shared."""

from __future__ import annotations

import numpy as np
from scipy.signal import correlate2d
from scipy.special import erf, expit, softmax

ACTIVATIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "gelu": lambda z: z * (1 + erf(z / np.sqrt(2))) / 2,
    "sigmoid": expit,
    "softmax": lambda z: softmax(z, axis=-1),
    "identity": lambda z: z,
}


def norm(x, weight, bias, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * weight + bias


class Oracle:
    """``weights``: the plain model's state_dict as arrays; ``prompts``: the trained ones by their short names."""

    def __init__(self, weights, prompts, config, heads, prefix, grid):
        self.w, self.p, self.config, self.heads, self.prefix, self.grid = weights, prompts, config, heads, prefix, grid
        self.blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        self.n = config.num_tokens
        self.first = 0 if config.blocks is None else self.blocks - config.blocks
        self.means = None  # for each block, where prompts are computed from mean states

    def linear(self, x, name):
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0)

    def layer_norm(self, x, name):
        return norm(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-6) if f"{name}.weight" in self.w else x

    def embedded(self, image):
        """[prefix; patches] with positions."""
        kernel = self.w["patch_embed.proj.weight"]
        k = kernel.shape[-1]
        patches = [
            (kernel * image[:, y : y + k, x : x + k]).sum(axis=(1, 2, 3)) + self.w.get("patch_embed.proj.bias", 0)
            for y in range(0, image.shape[1], k)
            for x in range(0, image.shape[2], k)
        ]
        prefix = [self.w[name][0] for name in ("cls_token", "reg_token") if name in self.w]
        positions = self.w["pos_embed"][0]
        if len(positions) == len(patches):
            sequence = np.concatenate([*prefix, np.array(patches) + positions])
        else:
            sequence = np.concatenate([*prefix, np.array(patches)]) + positions
        return self.layer_norm(sequence, "norm_pre")

    def block(self, x, index):
        name = f"blocks.{index}"
        normed = self.layer_norm(x, f"{name}.norm1")
        q, k, v = self.linear(normed, f"{name}.attn.qkv").reshape(len(x), 3, self.heads, -1).transpose(1, 2, 0, 3)
        rows = [softmax(qh @ kh.T / np.sqrt(q.shape[-1]), axis=1) @ vh for qh, kh, vh in zip(q, k, v, strict=True)]
        x = x + self.linear(np.concatenate(rows, axis=1), f"{name}.attn.proj")
        hidden = ACTIVATIONS["gelu"](self.linear(self.layer_norm(x, f"{name}.norm2"), f"{name}.mlp.fc1"))
        return x + self.linear(hidden, f"{name}.mlp.fc2")

    def adaptive(self, patches, index):
        """Steps 1 to 6, in evaluation mode."""
        c, p = self.config, self.p
        U = norm(patches, p[f"{index}.norm.weight"], p[f"{index}.norm.bias"], 1e-5)
        maps = [U[:, channel].reshape(self.grid) for channel in range(U.shape[1])]
        if c.kernel is not None:
            kernel = p[f"{index}.kernel"]
            padded = [np.pad(one, c.padding) for one in maps]
            maps = [
                correlate2d(one, kernel[channel] if c.per_channel else kernel, mode="valid")
                for channel, one in enumerate(padded)
            ]
        weight = np.broadcast_to(p[f"{index}.weight"], (self.n, *maps[0].shape)).reshape(self.n, -1)
        Z = weight @ np.array([one.ravel() for one in maps]).T + p[f"{index}.bias"][:, None]
        projector = f"{self.first + c.static_depth if c.shared_projector else index}.projector"
        hidden = ACTIVATIONS[c.activation](Z @ p[f"{projector}.down"].T)
        return Z + p.get(f"{projector}.scale", 1.0) * hidden @ p[f"{projector}.up"].T

    def prompts(self, patches, index):
        """Return the prompts of this block; None where those of the block before go on."""
        if f"{index}.tokens" in self.p:
            return self.p[f"{index}.tokens"]
        states = patches if self.means is None else self.means[index]
        return self.adaptive(states, index) if f"{index}.norm.weight" in self.p else None

    def states(self, image):
        """[prefix; patches] after each block."""
        x, found = self.embedded(image), []
        sequence = x
        for index in range(self.first):
            sequence = x = self.block(x, index)
            found.append(x)
        for index in range(self.first, self.blocks):
            prompts = self.prompts(x[self.prefix :], index)
            if prompts is not None:
                sequence = np.concatenate([x[: self.prefix], prompts, x[self.prefix :]])
            sequence = self.block(sequence, index)
            x = np.concatenate([sequence[: self.prefix], sequence[self.prefix + self.n :]])
            found.append(x)
        return np.array(found)

    def logits(self, image, pooling):
        x = self.layer_norm(self.states(image)[-1], "norm")
        pooled = x[0] if pooling == "token" else x[self.prefix :].mean(axis=0)
        return self.layer_norm(pooled, "fc_norm") @ self.p["head.weight"].T + self.p["head.bias"]
