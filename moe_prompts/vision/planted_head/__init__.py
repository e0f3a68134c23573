"""Study the exact theory in one head of a real ViT: planted prompts, certified fits.

head     the head, its inputs and its planted prompts
study    the grid of fits
report   its table, verdicts and figure
"""
