"""Compare the logits of prompted models in bfloat16 with those in float32: the same trained model, the same images.

A linear head, VPT-deep and VAPT train in float32 for some steps on drawn images ("count"), with standardised features
and a head that begins at zero. Then each computes the logits of new images twice: in float32, and under autocast to
bfloat16. What must agree is the answer, that is the class with the largest logit; how far single logits move is printed
beside it.

python experiments/benchmark_bfloat16.py --device cuda
python experiments/benchmark_bfloat16.py --backbone small --size 32 --steps 5 --images 200
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before torch loads, as in the other benchmarks

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.tables import markdown

if TYPE_CHECKING:
    from torch import Tensor

#: Images that train, images in a step, and images that pass at once.
TRAINING, BATCH, AT_ONCE = 400, 32, 100
#: The base rate of all methods, of the grid that the study on the pretrained backbone tries.
RATE = 0.25
METHODS = ("linear", "vpt_deep", "vapt")
HEADER = (
    "method",
    "rms of logits",
    "rms of differences",
    "largest difference",
    "same answer, %",
    "accuracy in float32, %",
    "in bfloat16, %",
)


def compared(plain: Tensor, short: Tensor, labels: Tensor) -> list[str]:
    """Return what a row says of logits (n, C) in float32 and in bfloat16, given the labels (n,)."""
    apart = short.double() - plain.double()
    answers = plain.argmax(dim=1), short.argmax(dim=1)
    shares = [(answers[0] == answers[1]), *(answer == labels for answer in answers)]
    return [
        f"{plain.double().square().mean().sqrt():.3f}",
        f"{apart.square().mean().sqrt():.4f}",
        f"{apart.abs().max():.4f}",
        *(f"{100 * share.double().mean():.1f}" for share in shares),
    ]


def parts(count: int) -> list[np.ndarray]:
    """Return the numbers of so many images in parts that pass at once."""
    return np.split(np.arange(count), range(AT_ONCE, count, AT_ONCE))


def rows(arguments: argparse.Namespace) -> list[list[str]]:
    """Return a row for each method."""
    from copy import deepcopy

    import torch

    from moe_prompts.vision import create_backbone, prompt
    from moe_prompts.vision.backbones.normalisation import normalisation_of, normalised
    from moe_prompts.vision.backbones.standardised import standardised
    from moe_prompts.vision.prompting.prompted import new_head
    from moe_prompts.vision.tasks import procedural_task
    from moe_prompts.vision.training.methods import Sizes, config
    from moe_prompts.vision.training.sgd import Recipe, Setting, Trial, init_generator, train_alone

    normalisation = normalisation_of(arguments.backbone)
    task = procedural_task("count", size=arguments.size, n_train=TRAINING, n_test=arguments.images)
    train, test = task.split("train800val200"), task.split("test")
    recipe = Recipe(steps=arguments.steps, batch=BATCH, normalisation=normalisation)
    trial, found = Trial(Setting(RATE, 1e-4), 0), []
    whole = create_backbone(arguments.backbone, file=arguments.weights, size=arguments.size).to(arguments.device)
    like = next(whole.parameters())
    features = [normalised(train.batch(part), normalisation, like) for part in parts(TRAINING)]
    whole = standardised(whole, features).requires_grad_(False)
    for method in METHODS:
        backbone = deepcopy(whole)
        prompts = config(method, Sizes(), backbone)
        rng = init_generator(trial.seed)
        if prompts is None:
            model = backbone
            model.head = new_head(backbone, task.classes, rng, init="zero").requires_grad_(True)
        else:
            model = prompt(backbone, prompts, task.classes, rng=rng, head="zero")
        train_alone(model, train, trial, recipe)
        model.eval()
        both: dict[bool, Tensor] = {}
        for short in (False, True):
            with torch.no_grad(), torch.autocast(arguments.device, torch.bfloat16, enabled=short):
                passed = [model(normalised(test.batch(part), normalisation, like)) for part in parts(arguments.images)]
            both[short] = torch.cat(passed).float().cpu()
        found.append([method, *compared(both[False], both[True], torch.tensor(test.labels))])
    return found


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(
        "benchmark_bfloat16.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--backbone", default="dinov2-small-focus", help="(default dinov2-small-focus)")
    add("--weights", type=Path, metavar="FILE", help="of the backbone (default: from the cache, or from the hub)")
    add("--size", type=cli.positive("pixels"), default=112, help="of the images (default 112)")
    add("--steps", type=cli.positive("steps"), default=50, help="of each training (default 50)")
    add("--images", type=cli.positive("images"), default=1000, help="whose logits are compared (default 1000)")
    add("--device", default="cpu", choices=("cpu", "cuda"), help="(default cpu)")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda; torch sees no GPU here: use --device cpu")
    torch.set_num_threads(1)
    print(markdown(HEADER, rows(arguments)))


if __name__ == "__main__":
    cli.run(main, "benchmark_bfloat16.py")
