"""A command to be killed: a study of 40 short blocks in a folder, which it begins or resumes.

python chaos_command.py FOLDER in-process|joblib|dask
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

from moe_prompts import cli, run_study
from moe_prompts.engine import runner
from moe_prompts.engine.executors import executor_for
from moe_prompts.engine.grid import Study


def rows_of(cell, replicates, entropy):
    time.sleep(0.02)
    return [{"cell": cell.label, "replicate": r, "value": (r + entropy) / 7} for r in replicates]


def main():
    folder, name = Path(sys.argv[1]), sys.argv[2]
    cells = [SimpleNamespace(label=f"cell{number}", cost=1.0, data_size=1) for number in range(20)]
    runner.SEGMENT = 8
    executor = executor_for(1 if name == "in-process" else 2, name)
    resume = (folder / "meta.json").exists()
    run_study(Study("chaos", cells, 10, 5, rows_of), folder, executor=executor, resume=resume, progress=False)


if __name__ == "__main__":
    import chaos_command  # workers import this module by its name

    cli.run(chaos_command.main, "chaos_command.py")
