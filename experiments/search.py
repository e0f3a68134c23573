"""Fit prompts planted in a Vision Transformer, certified: is it the landscape, the algorithm or the start?

The same as ``moe-prompts search``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.search import main

if __name__ == "__main__":
    cli.run(main, "search.py")
