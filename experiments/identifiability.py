"""Which prompts can be told apart, and how fast? Kappas, noise-free profiles and likelihood gaps of any configuration.

The same as ``moe-prompts identifiability``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.identifiability import main

if __name__ == "__main__":
    cli.run(main, "identifiability.py")
