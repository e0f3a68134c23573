"""The papers' way through a prompted model gives the model's own numbers and gradients, in float64."""

import pytest
import torch
from vision_models import images, plain, prompted

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT
from moe_prompts.vision.prompting.prompted import prompt_parameters
from moe_prompts.vision.prompting.reference import reference_logits

CONFIGS = {
    "shallow": VPT(3, deep=False),
    "deep": VPT(3),
    "vapt": VAPT(3, hidden=4),
    "per channel": VAPT(3, hidden=4, per_channel=True, activation="gelu", shared_projector=False, learnable_scale=True),
    "no convolution": VAPT(2, hidden=4, kernel=None, static_depth=2, offset=True),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("kind", [{}, {"reg_tokens": 2}], ids=["cls", "registers"])
def test_the_papers_way_is_the_models(config, kind):
    model = prompted(config, (4, 6), **kind)
    batch, labels = images((4, 6)), torch.tensor([0, 3])
    gradients = []
    for forward in (model, lambda x: reference_logits(model, x)):
        logits = forward(batch)
        torch.nn.functional.cross_entropy(logits, labels).backward()
        gradients.append([logits, *(value.grad for value in prompt_parameters(model).values())])
        model.zero_grad()
    for own, theirs in zip(*gradients, strict=True):
        assert (own - theirs).abs().max() <= 1e-10 * own.abs().max()


def test_other_models_are_refused():
    for model, words in (
        (plain(), "expected a model that prompt"),
        (prompted(VPT(2), class_token=False, global_pool="avg"), "pools its class token"),
        (prompted(VPT(2, blocks=2)), "prompts in all blocks"),
    ):
        with pytest.raises(InputError, match=words):
            reference_logits(model, images())
