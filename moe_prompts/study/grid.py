"""The grid of a study, under the name that scripts of earlier versions import: see ``moe_prompts.engine.grid``."""

from moe_prompts.engine.grid import Block, Cell, Part, Study, joined

__all__ = ["Block", "Cell", "Part", "Study", "joined"]
