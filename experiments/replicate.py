"""Run two published simulations again, beside certified fits of the same data: table, findings and one figure.

The same as ``moe-prompts replicate``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.replicate import main

if __name__ == "__main__":
    cli.run(main, "replicate.py")
