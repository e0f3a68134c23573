"""Check a conversion: compare the fetched weights with onnxruntime's own numbers, on photographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from timm.layers import resample_abs_pos_embed

from moe_prompts.vision.backbones.fetched import FORMAT, PRECISIONS, cache_folder, depth_of, read_fetched
from moe_prompts.vision.backbones.from_onnx import final_tokens
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.prompting.checkpoint import read_tensors


def check(name: str, content: bytes, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Compare the cached weights, all blocks of them, with onnxruntime on scikit-learn's two photographs.

    name     one of ``fetched.SOURCES``
    content  the ONNX file
    sizes    sides of the images in pixels

    Returns for each size the largest difference at the final norm in both precisions, that of a position
    table resampled as timm does (with antialiasing), and the root mean square of the tokens.
    """
    rows, depth, folder = [], depth_of(name), cache_folder(name)
    table = read_tensors(folder / "fp32.safetensors", FORMAT, "fetched weights")[1]["pos_embed"]
    for size in sizes:
        photographs = [Image.fromarray(image).resize((size, size)) for image in load_sample_images().images]
        images = normalised(np.stack([np.asarray(image) for image in photographs]), "imagenet")
        wanted = final_tokens(content, images.numpy())
        row: dict[str, Any] = {"size": size}
        with torch.no_grad():
            for precision in PRECISIONS:
                model = read_fetched(name, folder / f"{precision}.safetensors", size, depth)
                row[precision] = float(np.abs(model.forward_features(images).numpy() - wanted).max())
            model = read_fetched(name, size=size, blocks=depth)
            model.get_parameter("pos_embed").copy_(resample_abs_pos_embed(table, list(model.patch_embed.grid_size)))
            row["antialiased"] = float(np.abs(model.forward_features(images).numpy() - wanted).max())
        rows.append(row | {"rms": float(np.sqrt((wanted**2).mean()))})
    return rows
