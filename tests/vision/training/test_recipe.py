"""Optimisers of stacked trials against torch's and timm's, and training in one call."""

import re
from copy import deepcopy

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from timm.optim import Lamb

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT, create_backbone, prompt, start_from, train_prompts
from moe_prompts.vision.prompting.prompted import prompt_parameters
from moe_prompts.vision.prompting.supported import vision_transformers
from moe_prompts.vision.tasks.task import Pixels
from moe_prompts.vision.training.optimisers import rate_factor, stacked
from moe_prompts.vision.training.packed import PackedTrials
from moe_prompts.vision.training.sgd import Recipe, Setting, Trial, init_generator, train_alone, train_packed


class Parts:
    """Two trials of three parameters, in the form that optimisers read."""

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(0)
        shapes = {"0.tokens": (3, 4), "1.bias": (3,), "1.projector.down": (2, 4), "head.weight": (5, 4)}
        self.parts = {
            name: torch.nn.Parameter(torch.randn(2, *shape, generator=draws, dtype=torch.float64))
            for name, shape in shapes.items()
        }
        self.targets = {
            name: torch.randn(value.shape, generator=draws, dtype=torch.float64) for name, value in self.parts.items()
        }

    def named_parts(self):
        return self.parts.items()


def steps_of(parts: Parts, recipe: Recipe) -> dict[str, torch.Tensor]:
    taking = stacked(
        parts, torch.tensor([0.05, 0.2], dtype=torch.float64), torch.tensor([0.1, 0.0], dtype=torch.float64), recipe
    )
    for factor in (0.5, 1.0, 0.7, 0.1):
        for name, value in parts.named_parts():
            value.grad = (value - parts.targets[name]).detach() ** 3
        taking.step(factor)
    return {name: value.detach().clone() for name, value in parts.named_parts()}


def oracle_of(parts: Parts, recipe: Recipe, trial: int) -> dict[str, torch.Tensor]:
    lr, decay = ((0.05, 0.1), (0.2, 0.0))[trial]
    own = {name: torch.nn.Parameter(value.detach()[trial].clone()) for name, value in parts.named_parts()}
    groups = [
        {"params": [value], "lr": lr * rate_factor(name, tuple(value.shape), recipe.rates)}
        | {"weight_decay": decay if value.ndim > 1 else 0.0}
        for name, value in own.items()
    ]
    if recipe.optimiser == "sgd":
        taking = torch.optim.SGD(groups, lr=lr, momentum=0.9)
    elif recipe.optimiser == "adamw":
        taking = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999), eps=1e-8)
    else:
        taking = Lamb(groups, lr=lr, betas=(0.9, 0.999), eps=1e-8, max_grad_norm=None, always_adapt=True)
    usual = [group["lr"] for group in taking.param_groups]
    for factor in (0.5, 1.0, 0.7, 0.1):
        for name, value in own.items():
            value.grad = (value - parts.targets[name][trial]).detach() ** 3
        for group, rate in zip(taking.param_groups, usual, strict=True):
            group["lr"] = rate * factor
        taking.step()
    return {name: value.detach() for name, value in own.items()}


@pytest.mark.parametrize("rates", ["uniform", "mu"])
@pytest.mark.parametrize("optimiser", ["sgd", "adamw", "lamb"])
def test_stacked_optimisers_step_as_torch_and_timm_do(optimiser, rates):
    """All in float64; the order of products differs, hence 1e-6."""
    recipe = Recipe(optimiser=optimiser, rates=rates)
    for trial in range(2):
        expected = oracle_of(Parts(), recipe, trial)
        for name, value in steps_of(Parts(), recipe).items():
            assert torch.allclose(value[trial], expected[name], rtol=1e-6, atol=1e-7), (name, trial)


def test_rates_by_sizes_divide_by_the_terms_of_a_sum():
    found = {
        name: 1 / rate_factor(name, shape, "mu")
        for name, shape in {
            "0.tokens": (3, 16),
            "1.offset": (3, 16),
            "1.weight": (3, 5, 6),
            "1.kernel": (2, 2),
            "1.bias": (3,),
            "1.norm.weight": (16,),
            "1.projector.down": (4, 16),
            "1.projector.up": (16, 4),
            "1.projector.scale": (),
            "head.weight": (7, 16),
        }.items()
    }
    assert list(found.values()) == pytest.approx([1, 1, 30, 4, 1, 1, 16, 4, 1, 16])
    assert rate_factor("head.weight", (7, 16), "uniform") == 1


def pixels(n: int = 48, classes: int = 5) -> Pixels:
    rng = np.random.default_rng(0)
    return Pixels(rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, classes, n))


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_fixed_prompts_first_is_vpt_for_the_first_half(optimiser):
    """Trained to the switch, offset, tokens and head are VPT's; packed in float32, so to rounding."""
    model = create_backbone("small").requires_grad_(False).eval()
    trials = [Trial(Setting(0.2, 1e-4), 3)]
    recipe = Recipe(steps=12, batch=16, optimiser=optimiser, fixed_first=0.0, normalisation="half")
    fresh = PackedTrials(model, VPT(3), 5, [init_generator(3)], None, "zero")
    begun = {part: value.detach().clone() for part, value in fresh.named_parts()}
    states = {}
    for name, config, first in (
        ("vpt", VPT(3), 0.0),
        ("waiting", VAPT(3, offset=True, start="vpt"), 0.99),
        ("free", VAPT(3, offset=True, start="vpt"), 0.0),
    ):
        packed = PackedTrials(model, config, 5, [init_generator(3)], None, "zero")
        with torch.no_grad():  # draws of the generators stand between the vectors of blocks: give all the same
            for part, value in packed.named_parts():
                if part.endswith(("tokens", "offset")):
                    value.copy_(begun[part.replace("offset", "tokens")])
        at_first = {part: value.detach().clone() for part, value in packed.named_parts()}
        setup = Recipe(**{**vars(recipe), "fixed_first": first})
        train_packed(packed, pixels(), trials, setup)
        states[name] = (at_first, dict(packed.named_parts()))
    at_first, waited = states["waiting"]
    for name, value in states["vpt"][1].items():
        twin = waited[name] if name in waited else waited[name.replace("tokens", "offset")]
        assert torch.allclose(twin, value, rtol=1e-3, atol=1e-5), name
    still = {name for name, value in waited.items() if torch.equal(value, at_first[name])}
    assert {name.rpartition(".")[2] for name in still} == {"kernel", "weight", "bias", "down", "up"}
    at_first, free = states["free"]
    assert not torch.equal(free["1.weight"], at_first["1.weight"])


def test_packed_and_alone_wait_alike():
    trial, recipe = Trial(Setting(0.2, 1e-4), 3), Recipe(steps=6, batch=16, normalisation="half")
    config = VAPT(3, offset=True, start="vpt", channel_dropout=0, hidden_dropout=0)
    packed = PackedTrials(create_backbone("small").requires_grad_(False).eval(), config, 5, [init_generator(3)])
    train_packed(packed, pixels(), [trial], recipe)
    one = prompt(create_backbone("small"), config, 5, rng=init_generator(3), head="published")
    train_alone(one, pixels(), trial, recipe)
    expected = prompt_parameters(one)
    for name, value in packed.trial(0).items():
        assert torch.allclose(value, expected[name], rtol=1e-2, atol=1e-3), name


#: One model of each form that timm's small ones have: class token, map pooling, registers, LayerScale, mean pooling.
FEW = (
    "vit_tiny_patch16_224",
    "test_vit3",
    "vit_small_patch14_reg4_dinov2",
    "vit_little_patch16_reg4_gap_256",
)
#: What the table of supported models calls small.
WIDEST = 400


def small_models() -> list[str]:
    found = []
    for name in vision_transformers():
        with torch.device("meta"):
            model = timm.create_model(name, weight_init="skip")
        if model.embed_dim <= WIDEST and "distilled" not in name:
            found.append(name)
    return found


def tiny(name: str, **sizes):
    """Return the model with random weights, two blocks deep, on images of 4 x 4 patches, and 14 such images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        with torch.device("meta"):
            usual = timm.create_model(name, weight_init="skip").patch_embed
        side = 4 * usual.patch_size[0] if not hasattr(usual, "backbone") else 128
        model = timm.create_model(name, img_size=side, depth=2, **sizes)
        for (
            module
        ) in model.modules():  # random blocks behind a LayerScale of 1e-6 tell no images apart; trained ones do
            if type(module).__name__ == "LayerScale":
                module.gamma.data.fill_(1.0)
        images = torch.rand(14, 3, side, side)
    return model, images


def check_descends(name: str, steps: int = 20, **sizes: int) -> None:
    plain, images = tiny(name, **sizes)
    for config in (VPT(4), VAPT(4), VAPT(4, start="tokens")):
        model = prompt(deepcopy(plain), config, 7, rng=torch.Generator().manual_seed(0))
        losses = train_prompts(model, [(images, torch.arange(14) % 7)], steps=steps)
        assert len(losses) == steps
        assert losses[0] == pytest.approx(np.log(7), abs=1e-5)
        assert losses[-1] < losses[0], (name, config, losses)
        assert max(losses) < 2 * losses[0], (name, config, losses)


@pytest.mark.parametrize("name", FEW)
def test_the_recipe_descends_on_small_models(name):
    """Random images in 7 classes; from a head of zeros the first loss is log 7. A slow test takes their own widths."""
    check_descends(name, steps=8, embed_dim=64, num_heads=2)


@pytest.mark.slow
def test_the_recipe_descends_on_every_supported_small_model():
    names = small_models()
    assert len(names) > 20
    assert set(FEW) <= set(names)
    for name in names:
        check_descends(name)


def model_and_batch(config=None):
    model = prompt(create_backbone("small"), config or VAPT(3), 5, rng=torch.Generator().manual_seed(0))
    return model, (torch.randn(10, 3, 32, 32), torch.arange(10) % 5)


def test_the_recipe_goes_on_from_fixed_prompts():
    model, batch = model_and_batch(VPT(3))
    first = train_prompts(model.eval(), [batch], steps=10)
    assert not model.training
    model = start_from(model, VAPT(3, offset=True, start="vpt", channel_dropout=0, hidden_dropout=0))
    second = train_prompts(model, [batch], steps=10, fixed_first=0)
    assert second[0] < first[0]
    assert second[-1] < second[0]
    before = {name: value.detach().clone() for name, value in prompt_parameters(model).items()}
    train_prompts(model, [batch], steps=1, fixed_first=0.9)
    moved = {name for name, value in prompt_parameters(model).items() if not torch.equal(value, before[name])}
    assert moved == {"0.tokens", *(f"{block}.offset" for block in (1, 2, 3)), "head.weight", "head.bias"}


WRONG = [
    (lambda model, batch: train_prompts(create_backbone("small"), [batch]), "train_prompts: a VisionTransformer"),
    (lambda model, batch: train_prompts(model, []), "train_prompts: no batches"),
    (lambda model, batch: train_prompts(model, [(batch[0], batch[1] + 1000)]), ": expected 0 to "),
    (lambda model, batch: train_prompts(model, [(batch[0], batch[1] - 1000)]), "train_prompts: labels from -"),
    (lambda model, batch: train_prompts(model, [(batch[0], batch[1].float())]), "expected a tensor of whole numbers"),
    (lambda model, batch: train_prompts(model, iter([batch]), steps=3), "no batches (left); expected a list"),
    (lambda model, batch: train_prompts(model, [(batch[0], batch[1][:1])]), "labels in a batch; expected one label"),
    (lambda model, batch: train_prompts(model, batch[0]), "a batch of type Tensor; expected pairs (images, labels)"),
    (lambda model, batch: train_prompts(model, [batch], steps=0), "train_prompts: steps"),
    (lambda model, batch: train_prompts(model, [batch], lr=-1.0), "expected a number in (0, inf)"),
    (lambda model, batch: train_prompts(model, [batch], optimiser="adam"), "expected one of adamw, sgd, lamb"),
    (lambda model, batch: train_prompts(model, [(batch[0] * np.nan, batch[1])]), "a loss of nan at step 1"),
    (
        lambda model, batch: train_prompts(broken(model), [batch]),
        "at step 1 on finite images, with prompts and head up to",
    ),
    (lambda model, batch: train_prompts(model, [(batch[0], batch[1][:, None])]), "labels of shape (10, 1) and torch.i"),
    (lambda model, batch: train_prompts(model, [(batch[0], batch[1][0])]), "labels of shape () and torch.int64; expec"),
    (
        lambda model, batch: train_prompts(model, [(batch[0], batch[1] > 2)]),
        "labels of shape (10,) and torch.bool; exp",
    ),
    (
        lambda model, batch: train_prompts(model, [(batch[0], F.one_hot(batch[1]).float())]),
        "of shape (10, 5) and torch.f",
    ),
    (lambda model, batch: train_prompts(model, [(batch[0].double(), batch[1])]), "images of torch.float64; this model"),
    (
        lambda model, batch: train_prompts(model, [(batch[0].half(), batch[1])]),
        "images of torch.float16; this model has",
    ),
    (
        lambda model, batch: train_prompts(model, [(batch[0][:0], batch[1][:0])]),
        "(0, 3, 32, 32); expected (B, 3, height, width), B at least 1",
    ),
    (
        lambda model, batch: train_prompts(without_head(), [batch]),
        "expected one of prompt(model, config, num_classes=C)",
    ),
    (lambda model, batch: train_prompts(without_pooling(), [batch]), "train_prompts: logits of shape (10, 17, 5)"),
]


def broken(model):
    """The model as a training with a rate of 1e30 leaves it."""
    with pytest.raises(InputError, match="expected finite images, or a smaller lr"):
        train_prompts(model, [(torch.rand(4, 3, 32, 32), torch.arange(4) % 5)], steps=30, lr=1e30)
    return model


def without_head():
    return prompt(create_backbone("small"), VPT(3), 0)


def without_pooling():
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return prompt(VisionTransformer(**sizes, global_pool=""), VPT(3), 5)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.uint16, torch.int64])
def test_labels_of_every_whole_number_type_train_alike(kind):
    found = []
    for labels in (torch.arange(10) % 5, (torch.arange(10) % 5).to(kind)):
        torch.manual_seed(0)
        model, batch = model_and_batch(VPT(3))
        found.append(train_prompts(model, [(batch[0], labels)], steps=2))
    assert found[0] == found[1]


def test_images_of_half_precision_train_under_autocast():
    model, batch = model_and_batch(VPT(3))
    with torch.autocast("cpu", torch.bfloat16):
        losses = train_prompts(model, [(batch[0].bfloat16(), batch[1])], steps=1)
    assert np.isfinite(losses).all()


@pytest.mark.parametrize("wrong", WRONG, ids=lambda pair: pair[1][:40])
def test_wrong_input_of_the_recipe_gets_one_line(wrong):
    call, expected = wrong
    with pytest.raises(InputError, match=re.escape(expected)) as error:
        call(*model_and_batch())
    assert "\n" not in str(error.value)
