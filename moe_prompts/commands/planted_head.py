"""Test the exact theory on real features: plant prompts in one head of a frozen block, and fit them certified.

Prints what of a prompt the head can see, kappas and profiles, risk against n for either kind of prompts on either
truth beside s^2 P / n and floors, and a verdict; draws risk and splits.

With --all-heads the prompts are planted in a whole block, whose heads share them: what the first h heads see of a
split prompt, and the risk of the right class.

python experiments/planted_head.py --block 3 --head 0 --n 1e3..1e6
python experiments/planted_head.py --backbone dinov2-small-focus --size 56 --block 9 --head 0
python experiments/planted_head.py --backbone dinov2-small-focus --size 56 --block 9 --all-heads
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path

from moe_prompts import cli
from moe_prompts.errors import InputError

#: Defaults of one head and of all heads of a block, where a prompt has hundreds of parameters. Some of them
#: are seen so faintly that s^2 P / n can be asked for at large n alone: an n costs the same as any other.
EITHER = {"coordinates": 6, "images": 128}
ONE_HEAD = EITHER | {"outputs": 4, "prompts": 2, "hidden": 2, "n": "1e3..1e6", "reps": 16}
ALL_HEADS = EITHER | {"outputs": 8, "prompts": 1, "hidden": 1, "n": "1e8", "reps": 8}
#: What --quick changes, where an option is not given. Queries of a head of 64 dimensions vary in all of them
#: on more than 64 images.
QUICK = {"images": 80, "outputs": 2, "coordinates": 3, "n": "1e5,1e6", "reps": 2}
QUICK_BLOCK = {"coordinates": 3, "reps": 2}
QUICK_STARTS = 1


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser("planted_head.py", description=__doc__)
    add = parser.add_argument_group("the head and its planted prompts").add_argument
    add("--backbone", default="small", help="small, small-random, dinov2-small-focus or a name of timm (default small)")
    add("--size", type=cli.positive("pixels"), help="of the images (default: the backbone's own; 56 is cheap)")
    add("--weights", metavar="FILE", help="of the backbone (default: those of its name)")
    add("--block", type=int, default=3, help="from 0 (default 3, the last one)")
    add("--head", type=int, help="from 0 (default 0)")
    add("--all-heads", action="store_true", help="all heads of the block, which share the prompts")
    add("--query", type=int, default=0, help="token whose row is the output (default 0, the class token)")
    add("--coordinates", type=int, help="of the tokens that adaptive prompts read (default 6)")
    add("--outputs", type=int, help="leading components of the output (default 4, of all heads 8; slower with more)")
    add("--images", type=int, help="inputs (default 128)")
    add("--prompts", type=int, help="of the truth (default 2, in all heads 1)")
    add("--mass", type=float, default=0.35, help="of the gate on the truth's prompts (default 0.35)")
    add("--noise", type=float, default=0.1, help="of an output, as a share of its root mean square (default 0.1)")
    add("--noise-free", action="store_true", help="only what needs no data (with --all-heads)")
    add = parser.add_argument_group("sizes and replicates").add_argument
    add("--n", metavar="SIZES", help="a range 1e3..1e6 or a list (default 1e3..1e6, of all heads 1e8)")
    add("--points", type=cli.positive("sizes"), default=4, help="sizes in a range (default 4)")
    add("--reps", type=cli.positive("replicates"), help="data sets per size (default 16, of all heads 8)")
    add = parser.add_argument_group("who computes").add_argument
    add("--workers", type=cli.positive("workers"), default=None, help="processes (default: all cores)")
    cli.add_run(parser, "entropy of images, truths, data and starts")
    add("--quick", action="store_true", help="a smoke run: a small grid and model, in seconds")
    return parser


def main() -> None:
    cli.one_thread()
    arguments = parser().parse_args()
    cli.check_run(arguments)
    block = arguments.all_heads
    if block and arguments.head is not None:
        raise InputError(f"--head {arguments.head} beside --all-heads; expected one of the two")
    if arguments.noise_free and not block:
        raise InputError("--noise-free without --all-heads; expected both: one head has its profiles beside its fits")
    quick = arguments.quick
    defaults = ALL_HEADS if block else ONE_HEAD
    for name, default in (defaults | ((QUICK_BLOCK if block else QUICK) if quick else {})).items():
        if getattr(arguments, name, None) is None:
            setattr(arguments, name, default)
    arguments.head = None if block else arguments.head or 0
    sizes = cli.sizes(arguments.n, arguments.points)

    from moe_prompts.engine.executors import available_cores, executor_for
    from moe_prompts.engine.runner import run_study
    from moe_prompts.vision.planted_head.head import HeadChoice, planted_head
    from moe_prompts.vision.planted_head.study import (
        POPULATION_STARTS,
        block_classes,
        expected_seconds,
        fit_study,
        noise_free_study,
        prompt_classes,
    )

    asked = {name: getattr(arguments, name) for name in asdict(HeadChoice()) if hasattr(arguments, name)}
    choice = HeadChoice(**asked)
    design = planted_head(choice, arguments.seed)
    lines = block_classes(choice.prompts) if block else prompt_classes(choice.prompts, choice.hidden, quick)
    starts = QUICK_STARTS if quick else POPULATION_STARTS
    first = noise_free_study(design, lines, arguments.seed, not quick, starts)
    workers = arguments.workers or available_cores()
    priced = not arguments.noise_free
    fits = expected_seconds(fit_study(design, lines, None, sizes, arguments.reps, arguments.seed)) if priced else 0.0
    print(f"about {(expected_seconds(first) + fits) / workers / 60:.1f} minutes with {workers} free cores", flush=True)

    out = arguments.out or cli.default_folder("planted-head")
    began = time.perf_counter()
    with cli.resumable("planted_head.py", out):
        executor, allow = executor_for(workers, insist=arguments.insist), cli.allowed(arguments)
        if arguments.noise_free:
            rows = run_study(first, out, executor=executor, resume=arguments.resume, allow=allow)
            print(f"{(time.perf_counter() - began) / 60:.1f} minutes\n")
            return tell_noise_free(rows, choice.facts(), out)
        noise_free = run_study(first, out / "noise_free", executor=executor, resume=arguments.resume, allow=allow)
        study = fit_study(design, lines, noise_free, sizes, arguments.reps, arguments.seed)
        resume = arguments.resume and (out / "meta.json").exists()
        results = run_study(study, out, executor=executor, resume=resume, allow=allow)
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes\n")
    tell(results, noise_free, choice.facts(), arguments.seed, out)


def tell(results, noise_free, head: dict, entropy: int, out: Path) -> None:
    """Write tables and verdict with the figure, then print them."""
    from moe_prompts.engine.files import appearing
    from moe_prompts.engine.store import keep_sums
    from moe_prompts.figures.style import save
    from moe_prompts.vision.planted_head.block_report import block_ending, block_report, planted_block_figure
    from moe_prompts.vision.planted_head.report import ending_of, planted_head_figure, report, risk_curves

    block = "head" not in head
    kept = noise_free.drop(columns="vectors", errors="ignore")
    with appearing(out / "noise_free.parquet") as file:
        kept.to_parquet(file, index=False, write_page_checksum=True)
    keep_sums(out, "noise_free.parquet")
    text = (block_report if block else report)(results, noise_free, head, entropy)
    tables = {"summary.json": risk_curves(results).to_json(orient="records", indent=2)}
    if block:
        draw = lambda: save(planted_block_figure(noise_free), out, "planted_block")
    else:
        draw = lambda: save(planted_head_figure(results), out, "planted_head")
    ending = (block_ending if block else ending_of)(results, noise_free, entropy)
    cli.finish(out, text, ending, tables, draw, len(results))


def tell_noise_free(noise_free, head: dict, out: Path) -> None:
    """Write what needs no data of all heads of a block, with its verdict and figure, then print it."""
    from moe_prompts.figures.style import save
    from moe_prompts.vision.planted_head.block_report import block_ending, block_report, planted_block_figure

    text = block_report(None, noise_free, head, 0)
    draw = lambda: save(planted_block_figure(noise_free), out, "planted_block")
    cli.finish(out, text, block_ending(None, noise_free, 0), {}, draw, len(noise_free))
