"""What a frozen backbone's class token says about a task: multinomial logistic regression on it, and on raw pixels.

C is chosen on val200 after fitting train800; the accuracy reported is of train800val200 on test, which is read once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timm.models.vision_transformer import VisionTransformer

from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.tasks.task import SPLITS, Task

#: Inverse strengths of the penalty, on features of variance 1.
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
Table = dict[str, tuple[np.ndarray, np.ndarray]]


def pixels(task: Task) -> Table:
    """Split -> images (n, H, W, 3) of bytes and labels (n,)."""
    sets = {name: task.split(name) for name in SPLITS}
    return {name: (images.batch(np.arange(len(images.labels))), images.labels) for name, images in sets.items()}


def flat(images: Table) -> Table:
    return {name: (values.reshape(len(values), -1) / 255.0, labels) for name, (values, labels) in images.items()}


def features(model: VisionTransformer, images: Table, pool: str = "token") -> Table:
    """Split -> outputs of the final norm: the class token, or with ``pool="mean"`` the mean over patches."""
    return {name: (_features(model, values, pool), labels) for name, (values, labels) in images.items()}


def _features(model: VisionTransformer, images: np.ndarray, pool: str) -> np.ndarray:
    model.eval()
    rows = []
    with torch.no_grad():
        for chunk in normalised(images, "half").split(256):
            out = model.forward_features(chunk)
            rows.append(out[:, 0] if pool == "token" else out[:, model.num_prefix_tokens :].mean(dim=1))
    return torch.cat(rows).double().numpy()


def probe(table: Table) -> tuple[float, float]:
    """Test accuracy, and the C that val200 chose; of equal ones the smallest."""
    on_validation = [_fitted(table["train800"], C).score(*table["val200"]) for C in GRID]
    best = GRID[int(np.argmax(on_validation))]
    return float(_fitted(table["train800val200"], best).score(*table["test"])), best


def _fitted(rows: tuple[np.ndarray, np.ndarray], C: float):
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-3, max_iter=5000)).fit(*rows)


def judge(trained: VisionTransformer, untrained: VisionTransformer, tasks: list[Task]) -> pd.DataFrame:
    """One row for each task: test accuracies on 1000 images of the trained token, the untrained one, and pixels."""
    rows = []
    for task in tasks:
        images = pixels(task)
        kinds = {
            "trained": features(trained, images),
            "random": features(untrained, images),
            "pixels": flat(images),
            "mean of patches": features(trained, images, "mean"),
        }
        row: dict[str, Any] = {"task": task.name, "chance": 1 / task.classes}
        for kind, table in kinds.items():
            row[kind], row[f"C, {kind}"] = probe(table)
        rows.append(row)
    return pd.DataFrame(rows)


def counts_as_pretrained(table: pd.DataFrame) -> bool:
    """Whether the trained token beats the untrained one and pixels on every task."""
    return bool((table["trained"] > table[["random", "pixels"]].max(axis=1)).all())
