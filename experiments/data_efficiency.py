"""Measure fixed and adaptive prompts against sample size in a Vision Transformer: planted truths, then tasks.

The same as ``moe-prompts data-efficiency``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.data_efficiency import main

if __name__ == "__main__":
    cli.run(main, "data_efficiency.py")
