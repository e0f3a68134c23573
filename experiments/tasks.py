"""The tasks that need no download beside those that do: look at them, ask what a linear probe finds, fetch emoji.

The same as ``moe-prompts tasks``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.tasks import main

if __name__ == "__main__":
    cli.run(main, "tasks.py")
