"""Train prompts on images: VTAB-1K and fine-grained tasks (FGVC) from folders of your own, or drawn stand-ins.

The same as ``moe-prompts vtab``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.vtab import main

if __name__ == "__main__":
    cli.run(main, "vtab.py")
