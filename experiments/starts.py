"""Compare where prompts begin, and which optimiser finds them, on planted truths in a Vision Transformer.

The same as ``moe-prompts starts``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.starts import main

if __name__ == "__main__":
    cli.run(main, "starts.py")
