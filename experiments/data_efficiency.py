"""Fixed and adaptive prompts against sample size: a teacher's prompts planted in a frozen ViT, learned by students.

The truth is known, so the excess risk of a student is exact given images. Predicted: fixed students meet a floor on an
adaptive truth; on a fixed truth adaptive ones pay for their parameters; the crossing follows from floor and counts.

python experiments/data_efficiency.py --task planted-fixed,planted-adaptive --n 200,1000,5000 --reps 5
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from moe_prompts import cli
from moe_prompts.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

ADAPTIVE_TRUTH = "planted-adaptive"
#: Pairs whose crossing is reported.
PAIRS = (("vpt", "vapt"), ("vpt_matched", "vapt"), ("vpt_large", "vapt"))


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(
        "data_efficiency.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--task", type=cli.names, default=["planted-fixed", ADAPTIVE_TRUTH], help="(default both planted truths)")
    add("--students", type=cli.names, default=["vpt", "vpt_large", "vapt"], help="(default vpt,vpt_large,vapt)")
    add("--n", default="200,1000,5000", help="a list 200,1000 or a range 1e2..1e4 (default 200,1000,5000)")
    add("--points", type=int, default=5, help="sizes in a range (default 5)")
    add("--reps", type=cli.positive("replicates"), default=4, help="data sets and starts (default 4)")
    add("--steps", type=cli.positive("steps"), default=300, help="of SGD on n images (default 300)")
    add("--fresh-steps", type=int, default=1000, help="on fresh images, for floors; 0: no floors (default 1000)")
    add("--tokens", type=cli.positive("tokens"), default=4, help="of the teacher (default 4)")
    add("--backbone", default="small", help="small or small-random (default small)")
    add("--seed", type=int, default=0, help="entropy of everything (default 0)")
    cli.add_execution(parser)
    cli.add_shard(parser)
    add("--out", type=Path, default=None, help="folder of the run (default: a new one under results/)")
    add("--resume", action="store_true", help="complete the run in --out")
    return parser


def main() -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # before torch loads, here and in workers
    arguments = parser().parse_args()
    if arguments.resume and arguments.out is None:
        raise InputError("--resume needs --out: the folder of the run to complete")
    if arguments.seed < 0 or arguments.fresh_steps < 0:
        raise InputError(f"--seed {arguments.seed} --fresh-steps {arguments.fresh_steps}; expected at least 0")
    sizes = cli.sizes(arguments.n, arguments.points)

    from moe_prompts.vision.efficiency import Planting, planted_study

    planting = Planting(arguments.backbone, arguments.tokens, arguments.steps, max(1, arguments.fresh_steps))
    study = planted_study(
        arguments.task, arguments.students, sizes, arguments.reps, planting, arguments.seed, arguments.fresh_steps > 0
    )
    out = arguments.out or cli.default_folder("data-efficiency")
    results = cli.results(study, out, arguments, "data_efficiency.py")
    tell(results, arguments.seed, out)


def tell(results: pd.DataFrame, entropy: int, out: Path) -> None:
    """Print curves and crossings and write them with the figure."""
    import matplotlib.pyplot as plt

    from moe_prompts import plots
    from moe_prompts.study.store import write_atomically
    from moe_prompts.vision import figures
    from moe_prompts.vision.efficiency import curves

    found = curves(results)
    text = "\n".join([table_of(found), "", *crossings(results, entropy)])
    print(text)
    write_atomically(out / "summary.md", (text + "\n").encode())
    truths = list(dict.fromkeys(found["truth"]))
    figure, axes = plt.subplots(1, len(truths), figsize=(3.2 * len(truths) + 3.4, 3.2), squeeze=False, sharey=True)
    for ax, truth in zip(axes[0], truths, strict=True):
        figures.draw_excess(ax, found[found["truth"] == truth])
        ax.set_title(truth)
    axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, title="student (parameters)")
    figure.set_layout_engine("constrained")
    paths = plots.save(figure, out, "planted")
    print(f"\nresults   {out}: results.parquet, summary.md, {paths[0].name} and {paths[1].name}")


def table_of(found: pd.DataFrame) -> str:
    """Mean excess risk by truth and student, a column for each n."""
    wide = found.pivot(index=["truth", "student", "parameters"], columns="n", values="excess")
    sizes = [n for n in sorted(wide.columns) if n] + [n for n in wide.columns if not n]
    heads = [f"n = {n}" if n else "fresh images" for n in sizes]
    lines = ["| truth | student | parameters | " + " | ".join(heads) + " |", "|" + " --- |" * (3 + len(heads))]
    for (truth, student, parameters), row in wide.iterrows():
        lines.append(f"| {truth} | {student} | {parameters} | " + " | ".join(f"{row[n]:.3f}" for n in sizes) + " |")
    return "\n".join([*lines, "", "Mean excess risk in nats over replicates; given images it is exact."])


def crossings(results: pd.DataFrame, entropy: int) -> list[str]:
    """A line for each pair of students on the adaptive truth."""
    from moe_prompts.vision.efficiency import crossing

    own = results[results["truth"] == ADAPTIVE_TRUTH]
    there = set(own["student"])
    lines = []
    for fixed, adaptive in PAIRS:
        if {fixed, adaptive} <= there:
            at = crossing(results, ADAPTIVE_TRUTH, fixed, adaptive, entropy)
            lines.append(
                f"{ADAPTIVE_TRUTH}: {adaptive} is better than {fixed} from n = {said(at['observed'])} on "
                f"[{said(at['low'])}, {said(at['high'])}]; predicted from floor and parameters: {said(at['predicted'])}"
            )
    return lines


def said(n: float) -> str:
    if n != n:
        return "none"
    return "the smallest" if n == 0 else "beyond the largest" if n == float("inf") else f"{n:.0f}"


if __name__ == "__main__":
    cli.run(main, "data_efficiency.py")
