"""Every block of a backbone is asked as a backbone that ends there, and the rule for what counts as pretrained."""

from copy import deepcopy

import numpy as np
import pandas as pd
import pytest
import torch
from vision_models import plain

from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.backbones.probe import (
    best_block,
    by_block,
    deep_counts_as_pretrained,
    nearest,
    ridge,
    tokens_by_block,
)
from moe_prompts.vision.tasks.procedural import procedural_task


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2, "no_embed_class": True}], ids=["cls", "registers"])
def test_a_block_stands_for_the_backbone_that_ends_there(options):
    """Token by token what timm computes with the blocks after it taken away: rounding of float64 in other chunks."""
    model = plain(seed=4, **options).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 3), dtype=np.uint8)
    found = tokens_by_block(model, pixels, "half")
    assert found.shape == (3, 70, 16)
    batch = normalised(pixels, "half", next(model.parameters()))
    for blocks in (1, 2, 3):
        short = deepcopy(model)
        short.blocks = short.blocks[:blocks]
        with torch.no_grad():
            wanted = short.forward_features(batch)[:, 0].numpy()
        np.testing.assert_allclose(found[blocks - 1], wanted, rtol=0, atol=1e-12)


def test_the_nearest_image_is_that_of_the_largest_cosine():
    """Against a loop over all pairs; a channel that is 1e6 times as large as the others decides nothing alone."""
    rng = np.random.default_rng(1)
    train, test = (rng.standard_normal((count, 3)) * (1.0, 1e6, 1.0) + 5 for count in (30, 20))
    labels, truth = rng.integers(3, size=30), rng.integers(3, size=20)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    right = 0
    for row, label in zip((test - mean) / deviation, truth, strict=True):
        cosines = [row @ other / np.linalg.norm(row) / np.linalg.norm(other) for other in (train - mean) / deviation]
        right += labels[int(np.argmax(cosines))] == label
    assert nearest(train, labels, test, truth) == right / 20
    assert nearest(train, labels, train, labels) == 1


def test_a_ridge_classifier_finds_a_line_and_nothing_else():
    """At least .9 where a coordinate tells the class; else a coin's share, within four standard errors of .025."""
    rng = np.random.default_rng(2)
    train, test = rng.standard_normal((200, 8)), rng.standard_normal((400, 8))
    assert ridge(train, (train[:, 0] > 0).astype(int), test, (test[:, 0] > 0).astype(int)) > 0.9
    drawn = [rng.integers(2, size=len(rows)) for rows in (train, test)]
    assert abs(ridge(train, drawn[0], test, drawn[1]) - 0.5) < 0.1


def table(**tasks):
    """Rows of two blocks: for each task trained accuracies of both, random ones of both, and that of pixels."""
    return pd.DataFrame(
        {"task": task, "block": block + 1, "trained": trained[block], "random": drawn[block], "pixels": of_pixels}
        for task, (trained, drawn, of_pixels) in tasks.items()
        for block in (0, 1)
    )


@pytest.mark.parametrize(
    ("tasks", "best", "counts"),
    [
        ({"count": ((0.4, 0.5), (0.3, 0.2), 0.1)}, 2, True),
        # The best in the mean is asked, although the other is better on one task.
        ({"count": ((0.4, 0.5), (0.3, 0.2), 0.1), "letters": ((0.9, 0.2), (0.1, 0.1), 0.1)}, 1, True),
        # Drawn weights may be at their best in another block; a tie does not count.
        ({"count": ((0.4, 0.5), (0.5, 0.2), 0.1)}, 2, False),
        ({"count": ((0.4, 0.5), (0.3, 0.2), 0.5)}, 2, False),
        # Pixels may tell a place better, drawn weights may not.
        ({"dsprites_loc": ((0.4, 0.5), (0.3, 0.2), 0.9)}, 2, True),
        ({"dsprites_loc": ((0.4, 0.5), (0.3, 0.6), 0.1)}, 2, False),
        ({"count": ((0.5, 0.5), (0.3, 0.2), 0.1)}, 1, True),
    ],
)
def test_the_best_block_has_to_beat_drawn_weights_and_pixels(tasks, best, counts):
    assert best_block(table(**tasks)) == best
    assert deep_counts_as_pretrained(table(**tasks)) is counts


def test_a_row_for_each_task_and_block(small_backbone):
    trained, drawn, task = small_backbone
    rows = by_block(trained, drawn, [task], "half")
    assert list(rows["block"]) == [1, 2, 3]
    (train, labels), (test, truth) = ((s.batch(np.arange(len(s.labels))), s.labels) for s in splits(task))
    of_train, of_test = (tokens_by_block(trained, images, "half") for images in (train, test))
    for row in rows.itertuples():
        assert row.chance == 1 / task.classes
        assert row.trained == ridge(of_train[row.block - 1], labels, of_test[row.block - 1], truth)
        assert row.found == nearest(of_train[row.block - 1], labels, of_test[row.block - 1], truth)
    assert not rows["trained"].equals(rows["random"])
    assert rows["pixels"].nunique() == 1


def splits(task):
    return task.split("train800val200"), task.split("test")


@pytest.fixture(scope="module")
def small_backbone():
    """Two sets of weights, and a task of 40 images of 16 x 16 pixels to train on and 30 to test on."""
    return plain(seed=0), plain(seed=1), procedural_task("count", 16, 40, 30, 0)
