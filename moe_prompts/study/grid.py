"""Give the grid of a study the name that scripts of earlier versions import.

The code is in ``moe_prompts.engine.grid``.
"""

from moe_prompts.engine.grid import Block, Cell, Part, Study, joined

__all__ = ["Block", "Cell", "Part", "Study", "joined"]
