"""Show what prompts do inside a head: how experts vary with the image by block, where they take the gate.

A frozen Vision Transformer learns to say in which quarter of an image a bright spot is, once with VPT-deep and once
with VAPT. Without --backbone it is a small one with random weights on images of noise, for which no weights are
needed; with it, a pretrained one, and the spot lies on pieces of two photographs. Place favours VAPT, whose position
map reads it off by construction: the figure shows what prompts do, not which method is better. The table, a row for
each method, block, head and prompt, stands in results.parquet.

python experiments/head_as_moe.py
python experiments/head_as_moe.py --backbone dinov2-small-focus --size 98 --last-blocks 6
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.shown import Ending
from moe_prompts.tables import markdown

SIZE, PATCH, DEPTH, HEADS, WIDTH = 64, 8, 6, 4, 64
PRETRAINED_SIZE = 98
STEPS, PRETRAINED_STEPS, QUICK_STEPS = 200, 100, 10
TOKENS = 4
LEGEND = (
    "mass: share of the gate that goes to prompts; variation: how much a prompt's expert differs between images, as a "
    "share of its size; means over heads, prompts and images."
)


@dataclass(frozen=True)
class Case:
    """Hold the frozen model, its images, and how long prompts in its last ``blocks`` blocks are trained."""

    backbone: str | None
    weights: str | None
    size: int
    blocks: int | None
    steps: int
    seed: int

    def config(self, method: str):
        from moe_prompts.vision import VAPT, VPT

        options = {"blocks": self.blocks}
        return VPT(TOKENS, **options) if method == "VPT-deep" else VAPT(TOKENS, hidden=8, **options)

    def model(self):
        """Return the frozen model, pretrained or small with random weights; seed what training drops of channels."""
        import torch
        from timm.models.vision_transformer import VisionTransformer

        from moe_prompts.vision.backbones.create import create_backbone

        torch.manual_seed(self.seed)
        if self.backbone is not None:
            return create_backbone(self.backbone, file=self.weights, size=self.size)
        plain = VisionTransformer(
            img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0
        )
        with torch.no_grad():
            # As timm starts them, blocks hardly change their input and heads hardly tell tokens apart.
            for name, parameter in plain.blocks.named_parameters():
                if parameter.ndim == 2:
                    parameter.mul_(4 if "qkv" in name else 2)
        return plain

    def images(self, number: int, rng):
        """Draw images (number, 3, size, size) with a bright disc, and the quarter it is in (number,)."""
        import torch

        centres = torch.rand(number, 2, generator=rng) * 0.8 + 0.1
        axis = (torch.arange(self.size) + 0.5) / self.size
        across, down = axis[None, None] - centres[:, 1, None, None], axis[None, :, None] - centres[:, 0, None, None]
        disc = 3 * torch.exp(-(down**2 + across**2) / 0.01)[:, None]
        if self.backbone is None:
            ground = 0.3 * torch.randn(number, 3, self.size, self.size, generator=rng)
        else:
            ground = self.photographs(number, rng)
        return ground + disc, 2 * (centres[:, 0] > 0.5).long() + (centres[:, 1] > 0.5).long()

    def photographs(self, number: int, rng):
        """Draw square pieces of scikit-learn's two photographs, as the backbone takes images."""
        import numpy as np
        import torch
        from PIL import Image
        from sklearn.datasets import load_sample_images

        from moe_prompts.vision.backbones.normalisation import normalisation_of, normalised

        pieces = []
        for _ in range(number):
            which, side, top, left = torch.rand(4, generator=rng).tolist()
            photograph = load_photographs(load_sample_images)[int(2 * which)]
            height, width = photograph.shape[:2]
            side = int(height * (0.4 + 0.6 * side))
            top, left = int(top * (height - side)), int(left * (width - side))
            piece = Image.fromarray(photograph[top : top + side, left : left + side])
            pieces.append(np.asarray(piece.resize((self.size, self.size), Image.Resampling.BILINEAR)))
        return normalised(np.stack(pieces), normalisation_of(str(self.backbone)))


@cache
def load_photographs(load):
    return load().images


def tuned(case: Case, method: str):
    """Return the model with prompts after the steps of the case, and its accuracy on new images."""
    import torch

    from moe_prompts.vision import parameter_groups, prompt

    plain = case.model()
    rng = torch.Generator().manual_seed(case.seed + 3)
    model = prompt(plain, case.config(method), 4, rng=rng, head="published").train()
    rng = torch.Generator().manual_seed(case.seed)
    optimiser = torch.optim.AdamW(parameter_groups(model, 1e-4), lr=5e-3)
    for _ in range(case.steps):
        images, labels = case.images(32, rng)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    model.eval()
    rng, right = torch.Generator().manual_seed(case.seed + 1), 0
    with torch.no_grad():
        for _ in range(4):
            images, labels = case.images(100, rng)
            right += int((model(images).argmax(dim=1) == labels).sum())
    return model, right / 400


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser("head_as_moe.py", description=__doc__)
    add = parser.add_argument_group("what is trained and drawn").add_argument
    add("--backbone", help="dinov2-small-focus or a name of timm (default: a small one with random weights)")
    add("--weights", metavar="FILE", help="of the backbone (default: those of its name)")
    add(
        "--size",
        type=cli.positive("pixels"),
        help="of the images of a given backbone (default 98; small 32, a name of timm its own)",
    )
    add("--last-blocks", type=cli.positive("blocks"), help="prompts in the last so many blocks (default: in all)")
    add(
        "--steps",
        type=cli.positive("steps"),
        help=f"training steps of each method (default {STEPS}, of a pretrained backbone {PRETRAINED_STEPS})",
    )
    add("--seed", type=int, default=0, help="of weights, images and prompts (default 0)")
    add("--out", type=cli.folder, default=None, help="folder (default: a new one under results/)")
    add("--quick", action="store_true", help=f"a smoke run: {QUICK_STEPS} training steps")
    return parser


def write_table(table, out: Path, options: dict[str, Any], weights: dict[str, str]) -> None:
    """Write the table with what it depends on; ``weights`` are hashes of those that were loaded."""
    from importlib import metadata

    from moe_prompts.engine.files import appearing, write_atomically
    from moe_prompts.engine.store import WEIGHTS, keep_sums, surroundings, versions

    packages = versions() | {name: metadata.version(name) for name in ("torch", "timm")}
    identity = {"study": "head-as-moe", "entropy": options["seed"], "versions": packages, "options": options}
    meta = {
        "identity": identity | {WEIGHTS: weights},
        **surroundings(),
        "commands": [[Path(sys.argv[0]).name, *sys.argv[1:]]],
    }
    write_atomically(out / "meta.json", json.dumps(meta, indent=2).encode())
    with appearing(out / "results.parquet") as file:
        table.to_parquet(file, write_page_checksum=True)
    keep_sums(out, "results.parquet")


def size_of(backbone: str) -> int:
    """Return the side of the images in pixels where none is asked for; raise ``InputError`` for an unknown name."""
    import timm

    from moe_prompts.vision.backbones.create import OWN, SMALL_SIZE, check_name
    from moe_prompts.vision.backbones.fetched import SOURCES

    check_name(backbone)
    if backbone in OWN:
        return SMALL_SIZE
    known: Any = timm.get_pretrained_cfg(backbone)
    return PRETRAINED_SIZE if backbone in SOURCES else known.input_size[-1]


def case_of(arguments: argparse.Namespace) -> Case:
    """Return what is asked for; raise ``InputError`` for options that would change nothing."""
    if arguments.backbone is None and (arguments.weights or arguments.size):
        raise InputError("--size and --weights are of a pretrained backbone; expected --backbone beside them")
    size = SIZE if arguments.backbone is None else arguments.size or size_of(arguments.backbone)
    full = STEPS if arguments.backbone is None else PRETRAINED_STEPS
    steps = arguments.steps or (QUICK_STEPS if arguments.quick else full)
    return Case(arguments.backbone, arguments.weights, size, arguments.last_blocks, steps, arguments.seed)


def options_of(case: Case) -> dict[str, Any]:
    """Return what the table depends on; a file of weights is named by its sha256."""
    from moe_prompts.vision.training.runs import weights_hash

    found: dict[str, Any] = {"steps": case.steps, "seed": case.seed}
    if case.blocks is not None:
        found["last_blocks"] = case.blocks
    if case.backbone is not None:
        found |= {"backbone": case.backbone, "size": case.size}
    if case.weights is not None:
        found["weights"] = weights_hash(case.weights)
    return found


def main() -> None:
    arguments = parser().parse_args()
    cli.check_seed(arguments.seed)
    import pandas as pd
    import torch

    from moe_prompts.figures.style import save
    from moe_prompts.vision import backbone_hash, gate_rank, prompt_table

    torch.set_num_threads(1)
    case = case_of(arguments)
    cli.check_writable(arguments.out, "--out")
    out = arguments.out or cli.default_folder("head_as_moe")
    out.mkdir(parents=True, exist_ok=True)
    shown, _ = case.images(64, torch.Generator().manual_seed(arguments.seed + 2))
    tables, models, lines = [], {}, []
    for method in ("VPT-deep", "VAPT"):
        models[method], accuracy = tuned(case, method)
        tables.append(prompt_table(models[method], shown).assign(method=method, accuracy=accuracy))
        rank = gate_rank(models[method], len(models[method].blocks) - 1, 0)
        lines.append(
            f"{method:<9} accuracy {accuracy:.3f} (chance 0.25), gate of a head sees {rank.rank} of {rank.width} "
            f"directions of a prompt, all heads of the block {rank.rank_of_all_heads}"
        )
    table = pd.concat(tables, ignore_index=True)
    weights = {case.backbone or "drawn from the seed": backbone_hash(models["VAPT"])}
    write_table(table, out, options_of(case), weights)
    means = table.groupby(["block", "method"])[["mass", "variation"]].mean()
    body = [
        [str(block), method, f"{row.mass:.4f}", f"{row.variation:.4f}"] for (block, method), row in means.iterrows()
    ]
    header = ["block", "method", "mass", "variation"]
    text = "\n".join([*lines, "", markdown(header, body)])
    ending = Ending(lines, header, body, LEGEND, keys=2)
    draw = lambda: save(figure_of(table, models["VAPT"], shown), out, "head_as_moe")
    cli.finish(out, text, ending, {}, draw, len(table))


def figure_of(table, model, shown):
    """Draw how experts vary with the image, and where on three images one head's gate goes to prompts.

    table  of ``prompt_table`` for both methods
    model  with VAPT; the head shown is the one whose gate on prompts differs most between patches
    shown  images (n, 3, size, size)
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import PercentFormatter

    from moe_prompts.figures.style import SINGLE, STYLE, finding
    from moe_prompts.vision import read_head
    from moe_prompts.vision.figures import draw_input_dependence, draw_mass

    heads = sorted(set(zip(table["block"].tolist(), table["head"].tolist(), strict=True)))
    readings = {(block, head): read_head(model, shown[:3], block, head) for block, head in heads}
    block, head = max(readings, key=lambda key: readings[key].mass_map.flatten(1).std(dim=1).mean().item())
    maps = readings[block, head].mass_map.numpy()
    means = table.groupby(["method", "block"])["variation"].mean()
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(SINGLE, 3.7), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[1.6, 1])
        above, below = parts
        ax, axes = above.subplots(), below.subplots(1, 3)
        draw_input_dependence(ax, table)
        ax.set_ylim(-0.03, 1.2)
        ax.legend(loc="upper left", ncols=2)
        ax.set_ylabel("variation of experts")
        low, high = means["VAPT"].min(), means["VAPT"].max()
        finding(
            ax,
            "after one training, experts of VAPT change with the image by "
            f"{100 * low:.0f} to {100 * high:.0f}\u00a0% of their "
            f"size (mean of a block), those of VPT by {100 * means['VPT-deep'].max():.0f}\u00a0%",
        )
        for one, mass, image in zip(axes, maps, shown, strict=False):
            drawn = draw_mass(one, mass, image.mean(dim=0).numpy(), top=float(maps.max()))
        below.suptitle(
            f"block {block}, head {head} of VAPT on three images:\n"
            f"prompts have {100 * maps.min():.0f} to {100 * maps.max():.0f}\u00a0% of a patch's gate",
            x=0.02,
            ha="left",
            fontsize=plt.rcParams["axes.titlesize"],
        )
        figure.colorbar(drawn, ax=axes, shrink=0.9, label="share of the gate", format=PercentFormatter(1, decimals=0))
    return figure
