"""Put the parts of a study that ran with --shard together into one folder.

python experiments/gather.py --out results/whole results/part1 results/part2
"""

from __future__ import annotations

import shlex
from pathlib import Path

from moe_prompts import cli


def main() -> None:
    parser = cli.OneLineParser("gather.py", description=__doc__)
    parser.add_argument("parts", type=Path, nargs="+", metavar="PART", help="folders of the parts")
    parser.add_argument("--out", type=cli.folder, required=True, help="a new folder for the whole")
    parser.add_argument(
        "--accept-code-change", action="store_true", help="parts that were made by different code, noted in meta.json"
    )
    parser.add_argument("--clear", action="store_true", help="remove blocks that a killed gather left in --out")
    arguments = parser.parse_args()

    from moe_prompts.engine.store import CLEAR, CODE_CHANGE, gather

    allow = [CODE_CHANGE] * arguments.accept_code_change + [CLEAR] * arguments.clear
    count = gather(arguments.out, arguments.parts, allow)
    out = shlex.quote(str(arguments.out))
    print(f"{count} finished blocks in {out}; repeat the study's command with")
    print(f"  --out {out} --resume")
