"""Prompts of one block: every option against the NumPy oracle, the fused path against the literal one."""

import numpy as np
import pytest
import torch
from PIL import Image
from vision_models import CLASSES, DEPTH, WIDTH, images, oracle_of, plain, prompted, rng

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT, AdaptivePrompts, prompt
from moe_prompts.vision.prompting.prompted import prompt_parameters
from moe_prompts.vision.prompting.prompted_model import prompt_modules
from moe_prompts.vision.prompting.prompts import Projector, StaticPrompts, position_map, prompt_bound, resized_map

OPTIONS = {
    "kernel 1": {"kernel": 1},
    "kernel 3": {"kernel": 3},
    "no convolution": {"kernel": None},
    "padding": {"kernel": 3, "padding": 1},
    "per channel": {"per_channel": True},
    "projector per block": {"shared_projector": False},
    "two static blocks": {"static_depth": 2},
    "scale": {"learnable_scale": True},
    "gelu": {"activation": "gelu"},
    "sigmoid": {"activation": "sigmoid"},
    "softmax": {"activation": "softmax"},
    "identity": {"activation": "identity"},
    "pooled": {"pooled": True},
    "pooled, no convolution": {"pooled": True, "kernel": None},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_option_against_numpy(options):
    """To rounding, on a rectangular grid."""
    grid = (4, 6)
    model = prompted(VAPT(3, hidden=4, **options), grid)
    assert sum(one.numel() for one in prompt_parameters(model).values()) == model.config.n_parameters(
        WIDTH, DEPTH, grid
    ) + 7 * (WIDTH + 1)
    oracle = oracle_of(model, grid)
    batch = images(grid)
    expected = [oracle.logits(image, "token") for image in batch.numpy()]
    np.testing.assert_allclose(model(batch).detach(), expected, rtol=0, atol=1e-12)


def adaptive(grid, seed=0, **options):
    config = VAPT(3, hidden=4, **options)
    made = AdaptivePrompts(config, WIDTH, grid, Projector(config, WIDTH, rng()), rng()).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng(seed), dtype=torch.float64))
    return made


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("options", [{}, {"kernel": 3}, {"kernel": 3, "padding": 1}, {"kernel": None}], ids=str)
@pytest.mark.parametrize("grid", [(4, 4), (16, 16), (5, 9)], ids=str)
def test_fused_is_literal(grid, options, train):
    """Values and every gradient to 1e-12 of the largest, with the same dropout masks in training."""
    fused, literal = adaptive(grid, **options), adaptive(grid, fused=False, **options)
    literal.load_state_dict(fused.state_dict())
    results = []
    for made in (fused, literal):
        patches = torch.randn(2, grid[0] * grid[1], WIDTH, generator=rng(5), dtype=torch.float64, requires_grad=True)
        torch.manual_seed(0)
        out = made.train(train)(patches)
        (out * torch.randn(out.shape, generator=rng(6), dtype=torch.float64)).sum().backward()
        results.append([out.detach(), patches.grad, *(one.grad for one in made.parameters())])
    for one, other in zip(*results, strict=True):
        assert (one - other).abs().max() <= 1e-12 * max(1, other.abs().max())


def test_position_map_by_its_formula():
    """E[n, y, x] = sum over a, b of W[n, y - a, x - b] K[a, b], term by term."""
    weight, kernel = torch.randn(2, 3, 5, generator=rng()), torch.randn(2, 2, generator=rng(1))
    expected = torch.zeros(2, 4, 6)
    for n, y, x, a, b in np.ndindex(2, 3, 5, 2, 2):
        expected[n, y + a, x + b] += weight[n, y, x] * kernel[a, b]
    torch.testing.assert_close(position_map(weight, kernel), expected)


def test_official_init():
    """Fixed prompts within their bound; every adaptive prompt exactly zero, whatever the image."""
    v = prompt_bound(768, 16 * 16)
    assert v == pytest.approx(np.sqrt(6 / (3 * 256 + 768)))
    tokens = StaticPrompts(100, 768, v, 0.0, rng()).tokens
    # The largest of 76800 uniform draws is below (1 - 2e-4) v with probability e^-15.
    assert (1 - 2e-4) * v < tokens.abs().max() < v
    made = AdaptivePrompts(VAPT(3), WIDTH, (4, 4), Projector(VAPT(3), WIDTH, rng()), rng())
    assert (made(torch.randn(2, 16, WIDTH, generator=rng())) == 0).all()
    # sd of the variance of 100 standard normals is 0.14: five of them.
    wide = AdaptivePrompts(VAPT(3, kernel=10), WIDTH, (16, 16), Projector(VAPT(3), WIDTH, rng()), rng())
    assert abs(wide.kernel.var().item() - 1) < 0.7
    assert (made.norm.weight == 1).all()
    assert made.norm.eps == 1e-5


@pytest.mark.parametrize("activation", ["relu", "gelu", "identity", "sigmoid", "softmax"])
def test_where_adaptive_prompts_start(activation):
    """At exactly zero where the activation is zero at zero, else at W2 act(0), whatever the image."""
    config = VAPT(3, hidden=4, activation=activation)
    projector = Projector(config, WIDTH, rng())
    made = AdaptivePrompts(config, WIDTH, (4, 4), projector, rng()).eval()
    level = {"sigmoid": 0.5, "softmax": 0.25}.get(activation, 0.0)
    expected = (level * projector.up.sum(dim=1)).expand(2, 3, WIDTH)
    found = made(torch.randn(2, 16, WIDTH, generator=rng()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 if level else 0)


def test_bounds_of_the_initial_weights():
    """Fixed prompts are bounded by the pixels of a patch, linear layers by 1 / sqrt(columns): n draws come near.

    The largest of n uniform draws is below (1 - x) of its bound with probability e^-nx: e^-24 at least here.
    """
    model = prompt(plain((4, 4), img_size=(16, 16), patch_size=(4, 2)), VPT(50), CLASSES, rng=rng())
    found = torch.cat([one.tokens for one in prompt_modules(model)]).abs().max().item()
    assert 0.99 < found / np.sqrt(6 / (3 * 8 + WIDTH)) < 1
    made = Projector(VAPT(hidden=64), 256, rng())
    assert 0.998 < made.down.abs().max().item() * np.sqrt(256) < 1
    assert 0.998 < made.up.abs().max().item() * np.sqrt(64) < 1


def test_hidden_units_drop():
    """By their share, the rest made up for; without a projector's own change they pass as they are."""
    config = VAPT(hidden=WIDTH, activation="identity", hidden_dropout=0.25)
    projector = Projector(config, WIDTH, rng())
    with torch.no_grad():
        projector.down.copy_(torch.eye(WIDTH))
        projector.up.copy_(torch.eye(WIDTH))
    Z = torch.ones(50, 25, WIDTH)
    torch.manual_seed(0)
    hidden = projector.train()(Z) - Z
    torch.testing.assert_close(hidden[hidden != 0].unique(), torch.tensor([1 / 0.75]))
    assert abs((hidden == 0).double().mean().item() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / hidden.numel())
    assert (projector.eval()(Z) == 2).all()


def test_no_channels_drop_without_a_convolution():
    made = adaptive((4, 4), kernel=None, channel_dropout=0.5)
    U = torch.randn(2, 16, WIDTH, generator=rng(), dtype=torch.float64)
    assert torch.equal(made.train().tokens(U), made.eval().tokens(U))


def test_dropouts_are_those_of_the_page():
    """Prompt dropout on fixed prompts, whole channels of an image after the convolution, hidden units."""
    static = StaticPrompts(50, 200, 1.0, 0.25, rng()).train()
    torch.manual_seed(0)
    zero = (static(torch.zeros(2, 1, 1)) == 0).double().mean().item()
    assert abs(zero - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 20000)  # five standard deviations
    made = adaptive((4, 4), hidden_dropout=0.0, activation="identity").train()
    with torch.no_grad():
        made.bias.zero_()
    patches = torch.randn(400, 16, WIDTH, generator=rng(), dtype=torch.float64)
    dropped = made.tokens(made.norm(patches)) == 0
    assert (dropped.all(dim=1) == dropped.any(dim=1)).all()  # all prompts of a channel together
    assert abs(dropped.double().mean().item() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / (400 * WIDTH))


def test_another_grid_is_refused_or_resampled():
    """A map over a grid twice as fine carries the same total; constant patches give the same prompts."""
    made = adaptive((4, 4))
    made.grid = (8, 8)
    with pytest.raises(InputError, match=r"8 x 8 patches.*made for 4 x 4.*resize='bilinear'"):
        made(torch.zeros(1, 64, WIDTH, dtype=torch.float64))
    E = position_map(made.weight, made.kernel)
    torch.testing.assert_close(resized_map(E, (4, 4)), E)
    fine = resized_map(torch.ones(1, 4, 4), (8, 12))
    torch.testing.assert_close(fine, torch.full((1, 8, 12), 16 / 96))
    free = adaptive((4, 4), resize="bilinear").eval()
    row = torch.randn(1, 1, WIDTH, generator=rng(), dtype=torch.float64)
    coarse = free(row.expand(1, 16, WIDTH))
    free.grid = (8, 8)
    # Borders of a resampled map weigh a little differently; far from the factor 4 that a forgotten rescaling gives.
    assert (free(row.expand(1, 64, WIDTH)) - coarse).norm() < 0.5 * coarse.norm()


@pytest.mark.parametrize(("old", "new"), [((4, 4), (8, 8)), ((9, 7), (4, 5)), ((5, 4), (3, 6))], ids=str)
def test_a_resized_map_is_pillows(old, new):
    """Bilinear with antialiasing, as Pillow has it, over the growth of the grid; to the rounding of float32."""
    E = torch.randn(2, *old, generator=rng())
    expected = [np.asarray(Image.fromarray(one.numpy()).resize(new[::-1], Image.Resampling.BILINEAR)) for one in E]
    growth = new[0] * new[1] / (old[0] * old[1])
    np.testing.assert_allclose(resized_map(E, new), np.array(expected) / growth, rtol=0, atol=1e-5)


@pytest.mark.parametrize("numbers", [torch.bfloat16, torch.float16])
def test_maps_of_small_types_are_resized(numbers):
    """In float32, which is rounded once."""
    E = torch.randn(2, 4, 4, generator=rng()).to(numbers)
    found = resized_map(E, (3, 5))
    assert found.dtype == numbers
    assert torch.equal(found, resized_map(E.float(), (3, 5)).to(numbers))


def test_float32_prompts_take_states_of_a_smaller_type():
    made = adaptive((4, 4)).float().eval()
    patches = torch.randn(2, 16, WIDTH, generator=rng()).bfloat16()
    assert torch.equal(made(patches), made(patches.float()))


@pytest.mark.parametrize("make", [lambda n: VPT(n), lambda n: VAPT(n, hidden=n, kernel=n, static_depth=n)])
def test_whole_numbers_of_numpy(make):
    config = make(np.int64(2))
    assert config == make(2)
    assert type(config.num_tokens) is int


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: VPT(True), "num_tokens = True; expected a whole number"),
        (lambda: VPT(deep="no"), "deep = 'no'; expected True or False"),
        (lambda: VAPT(pooled=1), "pooled = 1; expected True or False"),
        (lambda: VAPT(source="images"), "source = 'images'; expected one of image, another, mean"),
        (lambda: VAPT(source="mean", resize="bilinear"), "mean states belong to one grid"),
        (lambda: VPT(0), "num_tokens = 0; expected a whole number of at least 1"),
        (lambda: VPT(2.5), "num_tokens = 2.5"),
        (lambda: VPT(prompt_dropout=1.0), r"prompt_dropout = 1.0; expected a number in \[0, 1\)"),
        (lambda: VAPT(num_tokens=0), "num_tokens = 0"),
        (lambda: VAPT(hidden=0), "hidden = 0"),
        (lambda: VAPT(kernel=0), "kernel = 0"),
        (lambda: VAPT(static_depth=0), "static_depth = 0"),
        (lambda: VAPT(activation="tanh"), "'tanh'; expected one of relu, gelu, sigmoid, softmax, identity"),
        (lambda: VAPT(kernel=None, padding=1), "without a convolution"),
        (lambda: VAPT(padding=2), "less padding than the kernel"),
        (lambda: VAPT(resize="bicubic"), "'bicubic'; expected None or 'bilinear'"),
        (lambda: VAPT(per_channel=True, resize="bilinear"), "resize with per_channel"),
        (lambda: VAPT(kernel=5).check(4, (4, 8)), "kernel = 5 with padding = 0 on a grid of 4 x 8"),
        (lambda: VAPT(static_depth=3).check(3, (4, 4)), r"no adaptive prompts in a model of 3 blocks.*VPT\(num_tokens"),
    ],
)
def test_wrong_configs_are_refused(make, match):
    with pytest.raises(InputError, match=match):
        make()


def test_published_counts():
    """ViT-B/16: the counts of the two papers' settings."""
    for n, vapt, deep in ((1, 31866, 9216), (5, 42418, 46080), (10, 55608, 92160), (50, 161128, 460800)):
        assert VAPT(n).n_parameters(768, 12, (14, 14)) == vapt
        assert VPT(n).n_parameters(768, 12, (14, 14)) == deep
    assert VPT(10, deep=False).n_parameters(768, 12, (14, 14)) == 7680


def test_blocks_share_one_projector_or_none():
    shared = [one.projector for one in prompt_modules(prompted(VAPT(3))) if isinstance(one, AdaptivePrompts)]
    assert len({id(one) for one in shared}) == 1
    own = prompted(VAPT(3, shared_projector=False))
    assert len({id(one.projector) for one in prompt_modules(own) if isinstance(one, AdaptivePrompts)}) == DEPTH - 1
