"""Test the exact theory on real features: plant prompts in one head of a frozen block, and fit them certified.

The same as ``moe-prompts planted-head``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.planted_head import main

if __name__ == "__main__":
    cli.run(main, "planted_head.py")
