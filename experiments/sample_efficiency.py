"""Do fixed or adaptive prompts learn faster? Certified fits, slopes with intervals, one verdict table and one figure.

The same as ``moe-prompts sample-efficiency``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.sample_efficiency import main

if __name__ == "__main__":
    cli.run(main, "sample_efficiency.py")
