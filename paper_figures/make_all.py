"""Draw every figure from its committed table: python paper_figures/make_all.py [--to FOLDER]"""

from __future__ import annotations

import attention
import attention_1e7
import attention_random
import claims_map
import claims_map_experts
import gains
import input_dependence
import learning_curves
import methods
import noise_free_profiles
import parameter_rates
import planted_block
import planted_head
import planted_head_pretrained
import planted_vit
import predicted_excess
import prediction_risk
import pretrained
import pretrained_heads
import random_truths
import replicate_gmoe
import replicate_sgame
import runs
import sample_efficiency
import search
import starts

from moe_prompts import cli

FIGURES = {
    module.DRAWING.name: module.DRAWING
    for module in (
        attention,
        prediction_risk,
        parameter_rates,
        noise_free_profiles,
        attention_1e7,
        attention_random,
        sample_efficiency,
        random_truths,
        replicate_gmoe,
        replicate_sgame,
        claims_map,
        claims_map_experts,
        planted_head,
        planted_head_pretrained,
        planted_block,
        input_dependence,
        planted_vit,
        pretrained,
        methods,
        gains,
        learning_curves,
        pretrained_heads,
        predicted_excess,
        starts,
        search,
    )
}


def main() -> None:
    """Draw all figures as PDF and PNG in the folder that ``--to`` names."""
    parser = cli.OneLineParser("make_all.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--to", type=cli.folder, default=runs.HERE, help="folder of the figures (default: paper_figures)"
    )
    to = parser.parse_args().to
    to.mkdir(parents=True, exist_ok=True)
    for drawing in FIGURES.values():
        print(*drawing.draw(to=to), sep="\n")


if __name__ == "__main__":
    cli.run(main, "make_all.py")
