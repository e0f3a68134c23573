"""Probe a frozen backbone: measure how well a linear classifier on its class token solves a task.

Raw pixels are asked as well, for comparison. The classifier is a multinomial logistic regression. Its C is
chosen on val200 after fitting train800; the accuracy reported is that of train800val200 on test, which is
read once.

``by_block`` asks every block of a deep backbone. Its token is what the final norm makes of the states after
the block, so block b stands for the backbone that ends there. There a ridge classifier answers, whose penalty
the training images choose by leaving one out, since it costs a hundredth.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from timm.models.vision_transformer import VisionTransformer

from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.prompting.layouts import embedded
from moe_prompts.vision.tasks.task import SPLITS, Task

#: Penalties of the ridge classifier.
RIDGE = np.logspace(-1, 5, 13)
#: Tasks whose label is a place: pixels tell it as they are, and no backbone is asked to beat them there.
OF_PLACE = ("dsprites_loc",)
#: Inverse strengths of the penalty, on features of variance 1.
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
Table = dict[str, tuple[np.ndarray, np.ndarray]]


def pixels(task: Task) -> Table:
    """Return, for each split, the images (n, H, W, 3) as bytes and the labels (n,)."""
    sets = {name: task.split(name) for name in SPLITS}
    return {name: (images.batch(np.arange(len(images.labels))), images.labels) for name, images in sets.items()}


def flat(images: Table) -> Table:
    """Return, for each split, the images as rows of numbers in [0, 1], and the labels."""
    return {name: (values.reshape(len(values), -1) / 255.0, labels) for name, (values, labels) in images.items()}


def features(model: VisionTransformer, images: Table, pool: str = "token") -> Table:
    """Return, for each split, the outputs of the final norm (n, d) and the labels.

    pool  "token": the class token; "mean": the mean over patches
    """
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
    """Return the test accuracy, and the C that val200 chose; of equal ones the smallest."""
    on_validation = [_fitted(table["train800"], C).score(*table["val200"]) for C in GRID]
    best = GRID[int(np.argmax(on_validation))]
    return float(_fitted(table["train800val200"], best).score(*table["test"])), best


def _fitted(rows: tuple[np.ndarray, np.ndarray], C: float):
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-3, max_iter=5000)).fit(*rows)


def judge(trained: VisionTransformer, untrained: VisionTransformer, tasks: list[Task]) -> pd.DataFrame:
    """Return one row for each task: test accuracies on the trained token, the untrained one, and pixels.

    The classifiers are trained on the task's 1000 images.
    """
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
    """Return whether the trained token beats the untrained one and pixels on every task."""
    return bool((table["trained"] > table[["random", "pixels"]].max(axis=1)).all())


def tokens_by_block(model: VisionTransformer, pixels: np.ndarray, normalisation: str) -> np.ndarray:
    """Return the class token after each block, through the final norm, as (blocks, n, d).

    pixels         (n, H, W, 3) bytes
    normalisation  one of ``NORMALISATIONS``
    """
    model.eval()
    like, found = next(model.parameters()), []
    with torch.no_grad():
        for chunk in np.array_split(pixels, max(1, len(pixels) // 32)):
            x = embedded(model, normalised(chunk, normalisation, like))
            rows = []
            for block in model.blocks:
                x = block(x)
                rows.append(model.norm(x[:, :1])[:, 0])
            found.append(torch.stack(rows))
    return torch.cat(found, dim=1).double().numpy()


def by_block(
    trained: VisionTransformer, untrained: VisionTransformer, tasks: list[Task], normalisation: str
) -> pd.DataFrame:
    """Return one row for each task and block: accuracies on the test images, and the share found again.

    trained, random  accuracy of a ridge classifier on the token after this block, of the backbone and of the
                     same architecture with drawn weights
    pixels           the same on the pixels of an image, for comparison in every row
    found            share of test images whose nearest training image, by the cosine of standardised tokens,
                     has their class; ``found random`` with drawn weights
    """
    rows = []
    for task in tasks:
        images = pixels(task)
        (train, labels), (test, truth) = images["train800val200"], images["test"]
        plain = ridge(train.reshape(len(train), -1) / 255.0, labels, test.reshape(len(test), -1) / 255.0, truth)
        tokens = {
            kind: (tokens_by_block(model, train, normalisation), tokens_by_block(model, test, normalisation))
            for kind, model in (("trained", trained), ("random", untrained))
        }
        for block in range(len(trained.blocks)):
            row: dict[str, Any] = {"task": task.name, "block": block + 1, "chance": 1 / task.classes, "pixels": plain}
            for kind, (of_train, of_test) in tokens.items():
                row[kind] = ridge(of_train[block], labels, of_test[block], truth)
                row["found" if kind == "trained" else "found random"] = nearest(
                    of_train[block], labels, of_test[block], truth
                )
            rows.append(row)
    return pd.DataFrame(rows)


def best_block(table: pd.DataFrame) -> int:
    """Return the block, from 1, whose probe is best in the mean over tasks; of equal ones the first."""
    return int(table.groupby("block")["trained"].mean().idxmax())


def deep_counts_as_pretrained(table: pd.DataFrame) -> bool:
    """Return whether the best block of a deep backbone counts as pretrained.

    It has to beat the best block of drawn weights on every task, and pixels wherever the label is no place.
    """
    best = table[table["block"] == best_block(table)].set_index("task")["trained"]
    rival = table.groupby("task")["random"].max()
    of_pixels = table.groupby("task")["pixels"].max()
    free = [task for task in best.index if task not in OF_PLACE]
    return bool((best > rival[best.index]).all() and (best[free] > of_pixels[free]).all())


def nearest(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """Return the share of test rows whose nearest training row has the same label.

    train, test    (n, d) and (m, d); nearness is the cosine of standardised rows
    labels, truth  their labels
    """
    scale = StandardScaler().fit(train)
    a, b = scale.transform(test), scale.transform(train)
    a, b = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (a, b))
    return float((labels[(a @ b.T).argmax(axis=1)] == truth).mean())


def ridge(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    """Return the test accuracy of a ridge classifier on standardised rows.

    Leaving one out chooses its penalty.

    train, test    rows (n, d)
    labels, truth  their classes (n,)
    """
    return float(make_pipeline(StandardScaler(), RidgeClassifierCV(RIDGE)).fit(train, labels).score(test, truth))
