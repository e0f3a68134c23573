"""Give each replicate of a study its own images: a stretch of a stand-in's endless row.

    image i of replicate r = image r APART + i of the row

Images to test on, to validate on and to tune with have stretches of their own behind those of the replicates.
"""

from __future__ import annotations

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.procedural import fresh
from moe_prompts.vision.tasks.task import Pixels

APART = 2**24
#: Replicates of studies are fewer; what comes after them is: images to test on, to validate on, to tune with,
#: and a row so long that no step of a training sees an image twice.
REPLICATES = 10_000
TEST, VALIDATION, TUNING, ENDLESS = range(REPLICATES, REPLICATES + 4)


def replicate_images(task_name: str, size: int, replicate: int, n: int, entropy: int) -> Pixels:
    """Return n images of a replicate; the first of them are those of a smaller n.

    No two replicates share an image. Raises ``InputError`` for more than ``APART`` images or a replicate
    beyond ``ENDLESS``.
    """
    if not (0 < n <= APART and 0 <= replicate <= ENDLESS):
        raise InputError(
            f"{task_name}: {n} images of replicate {replicate}; expected 1 to {APART}, replicates 0 to {ENDLESS}"
        )
    return fresh(task_name, size, replicate * APART, n, entropy)
