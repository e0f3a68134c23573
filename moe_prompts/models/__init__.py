"""Generate data: Gaussian gates, softmax gates and prompts in an attention head, with named truths of each.

Parameters are frozen dataclasses that check themselves.
"""
