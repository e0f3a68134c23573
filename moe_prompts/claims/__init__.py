"""Judge every claim of the field: its prediction, our measurement and a verdict.

claim             Claim, Line, Judgement, and how lines make a verdict
runs              the studies that claims are judged on
evidence          lines from slopes and means, with what their designs could decide
prompts           P: prompts in attention
prefixes          P: keys and values that are functions of one prompt
heads             P: prompts that several heads share
zero_initialised  P: zero-initialised attention and its gating factor
unselected        P: rates in configurations that nobody selected
gated             G, S: Gaussian-gated and softmax-gated experts
merging           G, S: how many experts there are, read off one fit with too many
experts           E: regression by softmax-gated experts
sigmoid           E: regression by sigmoid-gated experts
planted           T: whether a search finds prompts that were planted in a Vision Transformer
pretrained        V: accuracies on a pretrained Vision Transformer, and theory beside them
published         the simulations of the papers, audited
algebra           A, and what formulas alone decide
history           what the page said before
papers            which published results the claims look at
book              the page: all claims, and how to judge them
"""
