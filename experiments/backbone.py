"""Fetch a pretrained backbone into the user's cache without a hub, and ask what it knows, block by block.

The same as ``moe-prompts backbone``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.backbone import main

if __name__ == "__main__":
    cli.run(main, "backbone.py")
