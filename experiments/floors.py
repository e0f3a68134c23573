"""Find the least risk of a kind of prompt on a truth that its class does not contain, box by box.

The same as ``moe-prompts floors``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.floors import main

if __name__ == "__main__":
    cli.run(main, "floors.py")
