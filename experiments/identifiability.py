"""Ask which prompts can be told apart, and how fast: kappas, noise-free profiles and likelihood gaps.

The same as ``moe-prompts identifiability``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.identifiability import main

if __name__ == "__main__":
    cli.run(main, "identifiability.py")
