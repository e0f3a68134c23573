"""What prompts do inside a head: how their experts vary with the image by block, and where on it they take the gate.

The same as ``moe-prompts head-as-moe``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.head_as_moe import main

if __name__ == "__main__":
    cli.run(main, "head_as_moe.py")
