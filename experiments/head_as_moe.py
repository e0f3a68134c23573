"""Show what prompts do inside a head: how experts vary with the image by block, where they take the gate.

The same as ``moe-prompts head-as-moe``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.head_as_moe import main

if __name__ == "__main__":
    cli.run(main, "head_as_moe.py")
