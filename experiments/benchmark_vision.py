"""Measure what prompts cost in a Vision Transformer: a training step of full fine-tuning, VPT-deep and VAPT.

Steps of all methods are interleaved and ratios are medians of ratios within a round, so that a busy machine disturbs
all alike; VPT-deep stands in twice, and how far its twin is from 1 is the noise of the ratios.

python experiments/benchmark_vision.py --device cpu --models vit_small_patch16_224 --batch 16
python experiments/benchmark_vision.py --official --device cpu --models vit_small_patch16_224 --batch 4
python experiments/benchmark_vision.py --official --device cuda --models vit_small_patch16_224,vit_base_patch16_224
python experiments/benchmark_vision.py --device cuda --models vit_base_patch16_224,vit_large_patch16_224 --batch 64
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # before torch loads: every figure is of one thread

import argparse
import platform
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from moe_prompts import cli
from moe_prompts.errors import InputError
from moe_prompts.tables import body_of, markdown

#: After the name of a CPU.
ON_CPU = ", 1 thread"
PAGE = Path(__file__).parents[1] / "docs" / "vision_benchmark.md"
#: What --official writes.
BESIDE = Path(__file__).parents[1] / "docs" / "official_benchmark.md"
TOKENS, CLASSES = 10, 100
#: At most this is a step of VAPT to take, as a share of one of VPT-deep.
TARGET = 1.02
METHODS = ("plain", "VPT-deep", "VPT-deep again", "VAPT fused", "VAPT literal")
COLUMNS = (
    "run on",
    "model",
    "batch",
    "numbers",
    "mode",
    "rounds",
    "method",
    "step, s",
    "over VPT-deep",
    "peak memory, MB",
)
#: Of --official: ours beside the papers' way through the same model (``vision.prompting.reference``).
OFFICIAL = ("VPT-deep", "VPT-deep as published", "VAPT", "VAPT as published")
OFFICIAL_COLUMNS = (*COLUMNS[:8], "trained numbers", "over as published", "peak memory, MB")
#: Columns that make a setting; rows of a new run replace those of earlier runs on the same one.
SETTING = 5


def training_step(method: str, name: str, batch: int, numbers: str, mode: str, device: str) -> Callable[[], object]:
    """Return a function that makes one step of SGD on fixed random images."""
    import timm
    import torch

    from moe_prompts.vision import VAPT, VPT, prompt
    from moe_prompts.vision.prompting.reference import reference_logits

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=CLASSES)
    if method == "plain":
        model.train()
    else:
        config = VPT(TOKENS) if "VPT-deep" in method else VAPT(TOKENS, fused=method != "VAPT literal")
        model = prompt(model, config, CLASSES).train()
    model.to(device)
    images = torch.randn(batch, 3, *model.patch_embed.img_size, device=device)
    labels = torch.arange(batch, device=device) % CLASSES
    optimiser = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=1e-3, momentum=0.9)
    called = (lambda batch: reference_logits(model, batch)) if method.endswith("as published") else model
    called = torch.compile(called) if mode == "compiled" else called

    def step() -> None:
        optimiser.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=numbers == "bfloat16"):
            loss = torch.nn.functional.cross_entropy(called(images), labels)
        loss.backward()
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


def seconds(steps: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]) -> dict[str, np.ndarray]:
    """Return seconds of each method in each round, in an order that turns; a first step of each is not timed."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for number in range(rounds):
        for name in list(steps)[:: 1 if number % 2 else -1]:
            began = clock()
            steps[name]()
            found[name].append(clock() - began)
    return {name: np.array(times) for name, times in found.items()}


def peak_memory(arguments: list[str], device: str) -> float:
    """Return the MB of a process that does this alone: resident on a CPU, allocated on a GPU."""
    command = [sys.executable, __file__, "--peak-of", *arguments, "--device", device]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def print_peak(arguments: list[str], device: str) -> None:
    """Print the peak of two steps; what the libraries themselves take is in it on a CPU."""
    import torch

    torch.set_num_threads(1)
    method, name, batch, numbers, mode = arguments
    step = training_step(method, name, int(batch), numbers, mode, device)
    step()
    step()
    # Not getrusage, whose peak a child inherits from the process that started it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    on_cpu = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024
    print(torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else on_cpu)


def measure(name: str, batch: int, numbers: str, mode: str, device: str, rounds: int) -> list[list[str]]:
    """Return the rows of the table for one setting."""
    steps = {method: training_step(method, name, batch, numbers, mode, device) for method in METHODS}
    # CPU time on a CPU, whose cores others may be using; wall time on a GPU.
    times = seconds(steps, rounds, time.perf_counter if device == "cuda" else time.process_time)
    rows = []
    for method in METHODS:
        ratio = np.median(times[method] / times["VPT-deep"])
        peak = ""
        if "again" not in method and mode == "eager":
            peak = f"{peak_memory([method, name, str(batch), numbers, mode], device):.0f}"
        setting = [where(device), name, str(batch), numbers, mode, str(rounds)]
        rows.append([*setting, method, f"{np.median(times[method]):.3f}", f"{ratio:.3f}", peak])
        print("  ".join(rows[-1]), flush=True)
    return rows


def measure_official(name: str, batch: int, numbers: str, mode: str, device: str, rounds: int) -> list[list[str]]:
    """Return the rows of ``OFFICIAL`` for one setting."""
    import timm

    from moe_prompts.vision import VAPT, VPT

    steps = {method: training_step(method, name, batch, numbers, mode, device) for method in OFFICIAL}
    times = seconds(steps, rounds, time.perf_counter if device == "cuda" else time.process_time)
    model = timm.create_model(name)
    sizes = (model.embed_dim, len(model.blocks), model.patch_embed.grid_size)
    rows = []
    for method in OFFICIAL:
        kind = method.removesuffix(" as published")
        trained = (VPT(TOKENS) if kind == "VPT-deep" else VAPT(TOKENS)).n_parameters(*sizes)
        ratio = np.median(times[method] / times[f"{kind} as published"])
        setting = [where(device), name, str(batch), numbers, mode, str(rounds)]
        peak = f"{peak_memory([method, name, str(batch), numbers, mode], device):.0f}" if mode == "eager" else ""
        rows.append([*setting, method, f"{np.median(times[method]):.3f}", str(trained), f"{ratio:.3f}", peak])
        print("  ".join(rows[-1]), flush=True)
    return rows


def official_page(rows: list[list[str]], kept: list[list[str]]) -> str:
    """Return the page of --official: rows of this run after ``kept`` ones of other settings."""
    settings = {tuple(row[:SETTING]) for row in rows}
    rows = [row for row in kept if tuple(row[:SETTING]) not in settings] + rows
    on_gpu = any(not row[0].endswith(ON_CPU) for row in rows)
    head = [
        "# A training step beside the papers' own",
        "",
        textwrap.fill(
            f"Forward, backward and SGD step on random data, {TOKENS} prompts. *as published* goes through the same "
            "model the way the papers write it (`moe_prompts.vision.prompting.reference`): prompts stay in the "
            "sequence, three products for queries, keys and values, the attention matrix written out, adaptive "
            "prompts channel by channel. It is a re-implementation from the papers, and its numbers and gradients "
            "are the model's (tests); their own code, which has another licence, was not timed.",
            110,
        ),
        "",
        textwrap.fill(
            "Seconds are medians (CPU time on a CPU, wall time on a GPU). *over as published* is the median of ratios "
            "within a round: below 1 ours is faster. Memory is the peak of a process that does this alone; trained "
            "numbers are those beside the head. Without a twin of each method, ratios this near to 1 decide nothing."
            + ("" if on_gpu else " No GPU was measured."),
            110,
        ),
        "",
        "Written by",
        "",
        *dict.fromkeys(f"    {command(row, ' --official')}" for row in rows),
        "",
        markdown(OFFICIAL_COLUMNS, rows),
    ]
    return "\n".join(head) + "\n"


def where(device: str) -> str:
    """Return the device, in words."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return f"{found[1] if found else platform.machine()}{ON_CPU}"


def page(rows: list[list[str]], kept: list[list[str]]) -> str:
    """Return the page: rows of this run, after ``kept`` ones of other settings, and the commands that made them."""
    settings = {tuple(row[:SETTING]) for row in rows}
    rows = [row for row in kept if tuple(row[:SETTING]) not in settings] + rows
    head = [
        "# What prompts cost in a training step",
        "",
        f"Forward, backward and SGD step on random data, {TOKENS} prompts.",
        "Seconds are medians (CPU time on a CPU, wall time on a GPU). *over VPT-deep* is the median of ratios within",
        "a round; *VPT-deep again* is its twin, so its distance from 1 is the noise. Memory is the peak of a process",
        "that does this alone. *plain* is full fine-tuning. Devices and models without a row were not measured.",
        "",
        textwrap.fill(verdict(rows), 110),
        "",
        "Written by",
        "",
        *dict.fromkeys(f"    {command(row)}" for row in rows),
        "",
        markdown(COLUMNS, rows),
    ]
    return "\n".join(head) + "\n"


def verdict(rows: list[list[str]]) -> str:
    """Return in words how VAPT stands against the target in each setting."""
    ratios = {(*row[:SETTING], row[6]): row[8] for row in rows}
    fused = {key[:SETTING]: ratio for key, ratio in ratios.items() if key[SETTING] == "VAPT fused"}
    met = sum(float(ratio) <= TARGET for ratio in fused.values())
    shown = [f"{key[3]} {key[4]} {ratio} (twin {ratios[*key, 'VPT-deep again']})" for key, ratio in fused.items()]
    return (
        f"Target: a step of VAPT (fused) takes at most {TARGET - 1:.0%} more than one of VPT-deep. "
        f"{f'Met in {met}' if met else 'Not met in any'} of {len(fused)} settings: {', '.join(shown)}."
        + ("" if any(not key[0].endswith(ON_CPU) for key in fused) else " No GPU was measured.")
    )


def command(row: list[str], more: str = "") -> str:
    """Return the command that makes a row of the table anew."""
    device, model, batch, numbers, mode, rounds, *_ = row
    return (
        f"python experiments/benchmark_vision.py{more} --device {'cpu' if device.endswith(ON_CPU) else 'cuda'} "
        f"--models {model} --batch {batch} --numbers {numbers} --modes {mode} --rounds {rounds}"
    )


def earlier_rows(page: Path | None = None, columns: tuple[str, ...] = COLUMNS) -> list[list[str]]:
    """Return the rows of a page as it is; None: of ``PAGE``."""
    page = PAGE if page is None else page
    return body_of(page.read_text(encoding="utf-8"), columns) if page.exists() else []


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser(
        "benchmark_vision.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cpu", choices=("cpu", "cuda"), help="default cpu")
    add("--official", action="store_true", help="ours beside a step that goes the papers' way (another page)")
    add("--models", type=cli.names, default=["vit_small_patch16_224"], help="of timm (default vit_small_patch16_224)")
    add("--batch", type=cli.positive("images"), default=16, help="images in a step (default 16)")
    add("--numbers", type=cli.names, default=["float32", "bfloat16"], help="default float32,bfloat16 (autocast)")
    add("--modes", type=cli.names, default=["eager", "compiled"], help="default eager,compiled")
    add("--rounds", type=cli.positive("rounds"), default=9, help="timed steps of each method (default 9)")
    add("--peak-of", nargs=5, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    arguments = parser().parse_args()
    if arguments.peak_of:
        print_peak(arguments.peak_of, arguments.device)
        return
    for name, allowed in (("numbers", ("float32", "bfloat16")), ("modes", ("eager", "compiled"))):
        unknown = [one for one in getattr(arguments, name) if one not in allowed]
        if unknown:
            raise InputError(f"--{name} {unknown[0]}; expected some of {', '.join(allowed)}")
    import torch

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda; torch sees no GPU here: use --device cpu")
    torch.set_num_threads(1)
    rows, measured = [], measure_official if arguments.official else measure
    for name in arguments.models:
        for numbers in arguments.numbers:
            for mode in arguments.modes:
                rows += measured(name, arguments.batch, numbers, mode, arguments.device, arguments.rounds)
    if arguments.official:
        BESIDE.write_text(official_page(rows, earlier_rows(BESIDE, OFFICIAL_COLUMNS)), encoding="utf-8")
        print(f"table     {BESIDE}")
        return
    PAGE.write_text(page(rows, earlier_rows()), encoding="utf-8")
    print(f"table     {PAGE}")


if __name__ == "__main__":
    cli.run(main, "benchmark_vision.py")
