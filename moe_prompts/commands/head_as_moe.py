"""What prompts do inside a head: how their experts vary with the image by block, and where on it they take the gate.

A small Vision Transformer with random frozen weights (no published ones are needed) learns to say in which quarter of
a noisy image a bright spot is, once with VPT-deep and once with VAPT. Place favours VAPT, whose position map reads it
off by construction: the figure shows what prompts do, not which method is better. The table, a row for each method,
block, head and prompt, stands in results.parquet.

python experiments/head_as_moe.py --steps 200
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from moe_prompts import cli
from moe_prompts.tables import markdown

SIZE, PATCH, DEPTH, HEADS, WIDTH = 64, 8, 6, 4, 64
QUICK_STEPS = 10
TOKENS = 4


def spots(number: int, rng):
    """Images (number, 3, SIZE, SIZE) of noise with a bright disc, and the quarter it is in (number,)."""
    import torch

    centres = torch.rand(number, 2, generator=rng) * 0.8 + 0.1
    axis = (torch.arange(SIZE) + 0.5) / SIZE
    near = (axis[None, :, None] - centres[:, 0, None, None]) ** 2 + (axis[None, None] - centres[:, 1, None, None]) ** 2
    disc = 3 * torch.exp(-near / 0.01)[:, None]
    noise = 0.3 * torch.randn(number, 3, SIZE, SIZE, generator=rng)
    return noise + disc, 2 * (centres[:, 0] > 0.5).long() + (centres[:, 1] > 0.5).long()


def tuned(config, steps: int, seed: int):
    """The random model with these prompts after ``steps`` steps, and its accuracy on new images."""
    import torch
    from timm.models.vision_transformer import VisionTransformer

    from moe_prompts.vision import parameter_groups, prompt

    torch.manual_seed(seed)
    plain = VisionTransformer(
        img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0
    )
    with torch.no_grad():
        # As timm starts them, blocks hardly change their input and heads hardly tell tokens apart.
        for name, parameter in plain.blocks.named_parameters():
            if parameter.ndim == 2:
                parameter.mul_(4 if "qkv" in name else 2)
    model = prompt(plain, config, 4, rng=torch.Generator().manual_seed(seed + 3), head="published").train()
    rng = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(parameter_groups(model, 1e-4), lr=5e-3)
    for _ in range(steps):
        images, labels = spots(32, rng)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    model.eval()
    images, labels = spots(400, torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        accuracy = (model(images).argmax(dim=1) == labels).double().mean().item()
    return model, accuracy


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(
        "head_as_moe.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--steps", type=cli.positive("steps"), default=200, help="training steps of each method (default 200)")
    add("--seed", type=int, default=0, help="of weights, images and prompts (default 0)")
    add("--out", type=cli.folder, default=None, help="folder (default: a new one under results/)")
    add("--quick", action="store_true", help=f"{QUICK_STEPS} training steps: shows the way in seconds")
    return parser


def write_table(table, out: Path, options: dict[str, int]) -> None:
    """Write the table with what it depends on."""
    from importlib import metadata

    from moe_prompts.engine.files import appearing, write_atomically
    from moe_prompts.engine.store import keep_sums, surroundings, versions

    packages = versions() | {name: metadata.version(name) for name in ("torch", "timm")}
    meta = {
        "identity": {"study": "head-as-moe", "entropy": options["seed"], "versions": packages, "options": options},
        **surroundings(),
        "commands": [[Path(sys.argv[0]).name, *sys.argv[1:]]],
    }
    write_atomically(out / "meta.json", json.dumps(meta, indent=2).encode())
    with appearing(out / "results.parquet") as file:
        table.to_parquet(file, write_page_checksum=True)
    keep_sums(out, "results.parquet")


def main() -> None:
    arguments = parser().parse_args()
    cli.check_seed(arguments.seed)
    import pandas as pd
    import torch

    from moe_prompts.figures.style import save
    from moe_prompts.vision import VAPT, VPT, gate_rank, prompt_table

    torch.set_num_threads(1)
    steps = QUICK_STEPS if arguments.quick else arguments.steps
    out = arguments.out or cli.default_folder("head_as_moe")
    out.mkdir(parents=True, exist_ok=True)
    shown, _ = spots(64, torch.Generator().manual_seed(arguments.seed + 2))
    tables, models, lines = [], {}, []
    for method, config in {"VPT-deep": VPT(TOKENS), "VAPT": VAPT(TOKENS, hidden=8)}.items():
        models[method], accuracy = tuned(config, steps, arguments.seed)
        tables.append(prompt_table(models[method], shown).assign(method=method, accuracy=accuracy))
        rank = gate_rank(models[method], DEPTH - 1, 0)
        lines.append(
            f"{method:<9} accuracy {accuracy:.3f} (chance 0.25), gate of a head sees {rank.rank} of {rank.width} "
            f"directions of a prompt, all heads of the block {rank.rank_of_all_heads}"
        )
    table = pd.concat(tables, ignore_index=True)
    write_table(table, out, {"steps": steps, "seed": arguments.seed})
    means = table.groupby(["block", "method"])[["mass", "variation"]].mean()
    body = [
        [str(block), method, f"{row.mass:.4f}", f"{row.variation:.4f}"] for (block, method), row in means.iterrows()
    ]
    text = "\n".join([*lines, "", markdown(["block", "method", "mass", "variation"], body)])
    cli.finish(out, text, {}, lambda: save(figure_of(table, models["VAPT"], shown), out, "head_as_moe"), len(table))


def figure_of(table, model, shown):
    """Draw how experts vary with the image, and where on three images one head's gate goes to prompts.

    table  of ``prompt_table`` for both methods
    model  with VAPT; the head shown is the one whose gate on prompts differs most between patches
    shown  images (n, 3, SIZE, SIZE)
    """
    import matplotlib.pyplot as plt

    from moe_prompts.figures.style import DOUBLE, STYLE
    from moe_prompts.vision import read_head
    from moe_prompts.vision.figures import draw_input_dependence, draw_mass

    heads = [(block, head) for block in range(DEPTH) for head in range(HEADS)]
    readings = {(block, head): read_head(model, shown[:3], block, head) for block, head in heads}
    block, head = max(readings, key=lambda key: readings[key].mass_map.flatten(1).std(dim=1).mean().item())
    maps = readings[block, head].mass_map.numpy()
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 4, figsize=(DOUBLE, 2.3), layout="constrained", width_ratios=[1.5, 1, 1, 1])
        draw_input_dependence(axes[0], table)
        axes[0].legend()
        for ax, mass, image in zip(axes[1:], maps, shown, strict=False):
            drawn = draw_mass(ax, mass, image.mean(dim=0).numpy(), top=float(maps.max()))
            ax.set_title(f"VAPT, block {block}, head {head}")
        figure.colorbar(drawn, ax=axes[1:], shrink=0.8, label="share of the gate on prompts")
    return figure
