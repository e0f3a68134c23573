"""Study the exact theory in one head of a real ViT, or all heads of a block: planted prompts, certified fits.

head          the head or heads, the inputs and the planted prompts
block         what the first h heads of a block see of a split prompt
study         the grid of fits
report        its table, verdicts and figure
block_report  the same of all heads of a block
"""
