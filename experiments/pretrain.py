"""Pretrain a small Vision Transformer on images drawn by formula, and say whether it learned anything of use.

The same as ``moe-prompts pretrain``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.pretrain import main

if __name__ == "__main__":
    cli.run(main, "pretrain.py")
