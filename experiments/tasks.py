"""Look at the tasks that need no download, ask what a linear probe finds in them, and fetch emoji.

The same as ``moe-prompts tasks``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.tasks import main

if __name__ == "__main__":
    cli.run(main, "tasks.py")
