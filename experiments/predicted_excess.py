"""Put what theory predicts of a run of data_efficiency.py on tasks beside what the run observed.

The same as ``moe-prompts predicted-excess``; ``--help`` says what it takes.
"""

from moe_prompts import cli
from moe_prompts.commands.predicted_excess import main

if __name__ == "__main__":
    cli.run(main, "predicted_excess.py")
