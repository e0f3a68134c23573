"""Derive by algebra how fast each group of parameters can be learned, with certificates.

The same as ``moe-prompts predicted-rates``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.predicted_rates import main

if __name__ == "__main__":
    cli.run(main, "predicted_rates.py")
