"""Put the parts of a study that ran with --shard together into one folder.

The same as ``moe-prompts gather``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.gather import main

if __name__ == "__main__":
    cli.run(main, "gather.py")
