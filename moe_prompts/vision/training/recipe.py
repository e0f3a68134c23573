"""Train a prompted model in one call: warm-up, half a cosine, clipped gradients, and what a start asks for.

The gradients on prompts depend on where they begin: at exactly zero, as published, a block's LayerNorm
multiplies them by up to 1 / sqrt(eps) = 1000, so SGD at a rate that suits the head throws them far away in
one step. Clipping the gradient bounds the length of every step, and a warm-up keeps the first ones short. SGD
is the default: steps of AdamW have full size in every parameter however small its gradient is, so on a
backbone whose features hardly differ from image to image they only shake the head.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moe_prompts.checks import expect, one_of, real, shown, whole
from moe_prompts.errors import InputError
from moe_prompts.vision.prompting.layouts import check_images, layout_of
from moe_prompts.vision.prompting.prompted import check_prompted, prompt_parameters
from moe_prompts.vision.prompting.prompted_model import Prompted
from moe_prompts.vision.training.sgd import Recipe, Setting, Steps, factors

#: Rates that are tried first, by optimiser.
FIRST_RATES = {"adamw": 3e-3, "sgd": 1e-2, "lamb": 1e-2}
#: Largest norm of the gradient of all prompts and head together.
CLIP = 1.0


def train_prompts(
    model: Prompted,
    batches: Iterable[tuple[Tensor, Tensor]],
    steps: int = 200,
    *,
    lr: float | None = None,
    weight_decay: float = 1e-4,
    optimiser: str = "sgd",
    warmup: float = 0.1,
    fixed_first: float = 0.5,
) -> list[float]:
    """Train prompts and head of a prompted model; return the loss in nats of every step before its update.

        lr(t) = lr * factor(t),    factor: linear warm-up, then half a cosine that ends above 0

    batches       (images, labels): a DataLoader or a list; it is gone through again and again until ``steps``
                  are done. Images (B, C, H, W) have the model's number type, labels (B,) are whole numbers
                  from 0
    steps         updates, at least 1
    lr            at the end of the warm-up; None: .01 for SGD and LAMB, .003 for AdamW. Try a third and three
                  times as much (docs/training.md)
    weight_decay  of arrays with more than one axis, at least 0
    optimiser     "sgd" (momentum .9, as in the papers), "adamw" or "lamb", which docs/training.md recommends
    warmup        share of the steps in which the rate grows, in [0, 1)
    fixed_first   share of the steps in which ``VAPT(start="vpt")`` trains its fixed prompts alone, in [0, 1);
                  0 after ``start_from``, whose fixed prompts are trained already

    Gradients are clipped to a norm of 1. The model ends in the mode in which it was. Raises ``InputError``
    for a model without prompts or without a head, batches that are empty or of another form, and a loss that
    is not finite: then the rate was too large, and the prompts are lost.

    >>> import timm, torch
    >>> from moe_prompts.vision import VAPT, prompt, train_prompts
    >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=64)
    >>> model = prompt(vit, VAPT(num_tokens=2), num_classes=3)
    >>> losses = train_prompts(model, [(torch.rand(6, 3, 64, 64), torch.arange(6) % 3)], steps=5)
    >>> len(losses), losses[-1] < losses[0]
    (5, True)
    """
    check_prompted(model, "train_prompts")
    if isinstance(layout_of(model).head, nn.Identity):
        raise InputError(
            "train_prompts: a model without a head (num_classes = 0), whose features are no logits; expected one of "
            "prompt(model, config, num_classes=C) for C classes"
        )
    steps = whole(steps, 1, "train_prompts: steps")
    expect(batches, Iterable, "train_prompts: batches")
    optimiser = one_of(optimiser, FIRST_RATES, "train_prompts: optimiser")
    recipe = Recipe(
        steps=steps,
        warmup=real(warmup, "[0, 1)", "train_prompts: warmup"),
        optimiser=optimiser,
        fixed_first=real(fixed_first, "[0, 1)", "train_prompts: fixed_first"),
    )
    setting = Setting(
        FIRST_RATES[optimiser] if lr is None else real(lr, "(0, inf)", "train_prompts: lr"),
        real(weight_decay, "[0, inf)", "train_prompts: weight_decay"),
    )
    taken = Steps(model, prompt_parameters(model).items(), setting.lr, setting.weight_decay, recipe, 0)
    rates = factors(recipe, 0)
    training, losses = model.training, []
    model.train()
    try:
        for number, (images, labels) in enumerate(islice(_again(batches), steps)):
            check_images(model, images, "train_prompts")
            answer = model(images)
            # Models of transformers answer with a record that holds the logits.
            logits = getattr(answer, "logits", answer)
            if logits.ndim != 2:
                raise InputError(
                    f"train_prompts: logits of shape {tuple(logits.shape)}; expected one row for each image: a model "
                    "that pools its tokens (global_pool)"
                )
            loss = F.cross_entropy(logits, _known(labels, *logits.shape))
            losses.append(float(loss.detach()))
            if not torch.isfinite(loss):
                if number == 0 and images.isfinite().all():
                    largest = max(float(value.detach().abs().max()) for value in prompt_parameters(model).values())
                    raise InputError(
                        f"train_prompts: a loss of {losses[-1]} at step 1 on finite images, with prompts and head up "
                        f"to {largest:.3g}; expected those that prompt(...) makes: training at too large a rate spoils "
                        "them"
                    )
                raise InputError(
                    f"train_prompts: a loss of {losses[-1]} at step {number + 1} with lr = {setting.lr:g}; expected "
                    "finite images, or a smaller lr"
                )
            taken.take(loss, rates[number], longest=CLIP)
    finally:
        model.train(training)
    return losses


#: Number types of labels.
WHOLE = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.uint16, torch.uint32, torch.uint64)


def _known(labels: Tensor, images: int, classes: int) -> Tensor:
    """Return the labels (B,) as int64.

    Raises ``InputError`` for other shapes and types, and for classes that are not there, which end the
    process on a GPU.
    """
    if not isinstance(labels, Tensor):
        raise InputError(
            f"train_prompts: labels {shown(labels)}; expected a tensor of whole numbers, one for each image"
        )
    if labels.ndim != 1 or labels.dtype not in WHOLE:
        raise InputError(
            f"train_prompts: labels of shape {tuple(labels.shape)} and {labels.dtype}; expected a tensor of whole "
            f"numbers, one for each image: shape ({images},), as labels.reshape(-1).long() gives"
        )
    if len(labels) != images:
        raise InputError(f"train_prompts: {images} images and {len(labels)} labels in a batch; expected one label each")
    labels = labels.long()
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"train_prompts: labels from {int(labels.min())} to {int(labels.max())}; this model has num_classes = "
            f"{classes}: expected 0 to {classes - 1}"
        )
    return labels


def _again(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterable[tuple[Tensor, Tensor]]:
    """Yield the batches without end; raise ``InputError`` where a pass gives none, or something else."""
    while True:
        count = 0
        for batch in batches:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not isinstance(batch[0], Tensor):
                raise InputError(
                    f"train_prompts: a batch of type {type(batch).__name__}; expected pairs (images, labels) of "
                    "tensors, as [(images, labels)] or a DataLoader"
                )
            count += 1
            yield batch[0], batch[1]
        if not count:
            raise InputError(
                "train_prompts: no batches (left); expected a list or a DataLoader, which can be gone through again"
            )
