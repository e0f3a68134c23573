"""Features of mean 0 and variance 1 on given images: what changes, what does not, and what runs make of it."""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from moe_prompts.errors import InputError
from moe_prompts.vision.backbones.standardised import standardised
from moe_prompts.vision.tasks.task import Pixels
from moe_prompts.vision.training.runs import Setup, train_and_score
from moe_prompts.vision.training.sgd import Recipe, Setting, Trial


def vit(**options) -> VisionTransformer:
    torch.manual_seed(0)
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=12, depth=2, num_heads=2, num_classes=3, **options)
    with torch.no_grad():
        if isinstance(model.norm, torch.nn.LayerNorm):
            model.norm.weight.uniform_(5, 50)
            model.norm.bias.normal_(0, 20)
    return model.eval()


def batches(seed: int = 1) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, 16, 16, generator=rng) for n in (8, 5)]


def features(model, images):
    with torch.no_grad():
        return model.forward_head(model.forward_features(images), pre_logits=True)


def test_every_channel_has_mean_zero_and_variance_one():
    model = vit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = features(standardised(model, batches()), torch.cat(batches()))
    # Rounding of float32, in units of the features' size before.
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(12), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.std(dim=0, correction=0), torch.ones(12), rtol=1e-4, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_head_on_the_new_features_is_a_head_on_the_old_ones():
    """On other images than those that gave mean and variance."""
    model, new = vit(), standardised(vit(), batches())
    scale = model.norm.weight / new.norm.weight
    mean = model.norm.bias - scale * new.norm.bias
    images = torch.cat(batches(2))
    with torch.no_grad():
        torch.testing.assert_close(features(new, images) * scale + mean, features(model, images), rtol=1e-4, atol=1e-3)


def test_a_dead_channel_stays_small():
    model = vit()
    with torch.no_grad():
        model.norm.weight[3] = 0
    found = features(standardised(model, batches()), torch.cat(batches()))
    assert found[:, 3].abs().max() < 1e-6
    assert torch.isfinite(found).all()


def test_what_cannot_be_standardised_is_one_line():
    cases = [
        (vit(global_pool="avg"), batches(), "class token"),
        (vit(), batches()[:0], "0 images; expected at least 2"),
        (vit(), [torch.zeros(4, 3, 16, 16)], "the same for all images"),
    ]
    for model, images, message in cases:
        with pytest.raises(InputError) as raised:
            standardised(model, images)
        assert message in str(raised.value)


@pytest.mark.parametrize("method", ["linear", "vpt_deep", "adapter"])
def test_runs_use_it_and_heads_that_begin_at_zero(method):
    """With no label used, and the unlabelled images as the ones that count."""
    rng = np.random.default_rng(0)
    some, other = (
        Pixels(rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), rng.integers(0, 3, 40)) for _ in range(2)
    )

    def score(**changes):
        options = {"standardised": True, "head": "zero"} | changes
        setup = Setup("small-random", sizes=Setup().sizes, recipe=Recipe(steps=2, batch=16), **options)
        [(_, found)] = train_and_score(method, setup, 3, [Trial(Setting(1e-6, 0.0), 0)], some, some, other)
        return found.cross_entropy

    assert score() == pytest.approx(np.log(3), abs=1e-3)  # a rate of 1e-6 leaves the head at zero
    assert abs(score(head="published") - np.log(3)) > 0.1
    assert score(head="published") != pytest.approx(score(head="published", standardised=False), abs=1e-3)


def test_an_unknown_head_is_refused():
    with pytest.raises(InputError, match="head 'random'; expected one of zero, published"):
        Setup(head="random")
