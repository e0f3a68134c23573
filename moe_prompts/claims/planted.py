"""Judge whether a search finds prompts that were planted in a whole Vision Transformer.

The rule, its design and its limits stand on docs/search_for_prompts.md and were fixed before the rows were
drawn. The line of evidence is in the file of ``pretrained``, as this floor of the package knows nothing of
networks.
"""

from __future__ import annotations

from moe_prompts.claims.claim import Claim
from moe_prompts.claims.pretrained import lines_of

CLAIMS = [
    Claim(
        "T-search",
        "With 1000 images, adaptive prompts planted in a small ViT are missed because of the landscape: certified "
        "second-order fits from starts that know nothing of the teacher stay above the floor on new images.",
        "asked here",
        lambda: "a fit reaches the floor, 0 nats above the teacher, from less than a quarter of such starts",
        {},
        "a fit reaches the floor if its excess risk on 2000 new images is at most .05 nats; of certified fits, the "
        "one-sided 90 % ends of the share that does: upper end below 1/4 holds (landscape), lower end above 1/4 fails "
        "(algorithm, or start if SGD reaches it, too); else, with fewer than 9 certified fits or less than 80 % of the "
        "fits certified, not decidable here. Odds are those of shares .05 (true) and 1/4 (wrong)",
        lines_of("T-search"),
        "why SGD misses them on fresh images, on which no certified fit was made; other teachers than three, other n "
        "than 1000 (on their own images these minima are nearly as good as the teacher, so with more images they may "
        "go), other networks than a small drawn one, targets other than the teacher's own probabilities, minima that "
        "no fit met; the outcome start could not come out, as SGD's two fits on fresh images were known before",
        "[certified searches for planted prompts](search_for_prompts.md), three teachers, eight fits each",
    ),
]
