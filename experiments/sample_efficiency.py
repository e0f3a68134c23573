"""Measure whether fixed or adaptive prompts learn faster: certified fits, slopes with intervals, verdicts, a figure.

The same as ``moe-prompts sample-efficiency``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.sample_efficiency import main

if __name__ == "__main__":
    cli.run(main, "sample_efficiency.py")
