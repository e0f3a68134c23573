"""Draw the map of claims on gated experts and algebra: each with its verdict, measured slopes beside predicted ones.

python paper_figures/claims_map_experts.py
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import claims_map

DRAWING = replace(
    claims_map.DRAWING,
    name="claims_map_experts",
    figure=partial(claims_map.figure, families=("G", "S", "E", "A")),
)

if __name__ == "__main__":
    DRAWING.main(__doc__)
