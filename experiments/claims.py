"""Judge every claim of the field: what theory predicts, what certified simulation measures, and a verdict.

The same as ``moe-prompts claims``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.claims import main

if __name__ == "__main__":
    cli.run(main, "claims.py")
