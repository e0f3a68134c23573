"""Studies whose blocks misbehave as their cells say; workers import this module."""

import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

from moe_prompts.engine.grid import Study


def small():
    """Six blocks of real fits."""
    from moe_prompts.study.gaussian import gaussian_study  # slow to load, and of no use to toys

    return gaussian_study(
        sizes=[300, 400, 500], replicates=9, entropy=3, truths=["prompts-fixed"], kinds=["fixed"], ks=[2], data_starts=1
    )


@dataclass(frozen=True)
class Toy:
    """``fault``: "", or what the first replicate does: raise, kill, or kill-once, which leaves a mark in ``folder``."""

    label: str
    fault: str = ""
    folder: str = ""
    cost: float = 1.0
    data_size: int = 1


def toy_rows(cell, replicates, entropy):
    mark = Path(cell.folder) / "mark"
    if cell.fault == "raise" and not mark.exists():
        raise ZeroDivisionError("by a mistake")
    if cell.fault == "kill" or (cell.fault == "kill-once" and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return [{"cell": cell.label, "replicate": r, "value": (r + entropy) / 3} for r in replicates]


def toys(*faults, folder="", replicates=10):
    """A cell for each of ``faults``, two blocks each."""
    cells = [Toy(f"cell{number}", fault, str(folder)) for number, fault in enumerate(faults)]
    return Study("toys", cells, replicates, 1, toy_rows)


@dataclass(frozen=True)
class Reversed:
    """Blocks in the opposite order."""

    def map(self, run_block, blocks):
        return map(run_block, blocks[::-1])


@dataclass(frozen=True)
class KilledAfter:
    """This process dies by SIGKILL when ``blocks`` of them are written."""

    blocks: int

    def map(self, run_block, blocks):
        for number, block in enumerate(blocks):
            if number == self.blocks:
                os.kill(os.getpid(), signal.SIGKILL)
            yield run_block(block)


@dataclass(frozen=True)
class FullAfter:
    """When ``blocks`` of them are written, no file of this process may have more than 300 bytes."""

    blocks: int

    def map(self, run_block, blocks):
        for number, block in enumerate(blocks):
            if number == self.blocks:
                resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
            yield run_block(block)
