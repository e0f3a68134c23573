"""Say how many replicates a verdict on a slope takes, and over which sizes.

The same as ``moe-prompts power``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.power import main

if __name__ == "__main__":
    cli.run(main, "power.py")
