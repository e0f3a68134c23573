"""Every claim of the field with its prediction, our measurement and a verdict.

claim         Claim, Line, Judgement, and the rules that all share
runs          the studies that claims are judged on
prompts       P: prompts in attention
gated         G, S: Gaussian-gated and softmax-gated experts
published     the simulations of the papers, audited
algebra       A, and what formulas alone decide
book          the page: all claims, and how to judge them
"""
