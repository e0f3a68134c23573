"""Prompts in the last blocks only: the oracle's numbers, the formula's count, packed as alone, saved and loaded."""

import numpy as np
import pytest
import torch
from vision_models import CLASSES, DEPTH, KINDS, WIDTH, images, oracle_of, plain, prompted, rng, train_step

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT, PackedTrials, load_prompts, prompt, save_prompts, trainable_summary
from moe_prompts.vision.prompting.prompted import prompt_parameters

CONFIGS = {
    "shallow": VPT(3, deep=False, blocks=2),
    "deep": VPT(3, blocks=2),
    "vapt": VAPT(3, hidden=4, blocks=2),
    "vapt, own projectors": VAPT(3, hidden=4, blocks=2, shared_projector=False, learnable_scale=True),
    "last alone": VPT(3, blocks=1),
}
configs = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@configs
@pytest.mark.parametrize("kind", ["cls", "registers", "average"])
def test_the_oracles_numbers(config, kind):
    """Blocks before are the plain model's; float64, rounding of sums in another order."""
    grid = (4, 6)
    model, batch = prompted(config, grid, **KINDS[kind]), images(grid)
    oracle = oracle_of(model, grid)
    with torch.no_grad():
        logits = model(batch)
        _, maps = model.forward_intermediates(batch)
        _, bare = plain(grid, **KINDS[kind]).eval().forward_intermediates(batch)
    expected = np.array([oracle.logits(image, model.global_pool) for image in batch.numpy()])
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-12)
    before = DEPTH - config.blocks
    assert all(torch.equal(own, other) for own, other in zip(maps[:before], bare[:before], strict=True))
    assert not torch.equal(maps[before], bare[before])
    assert trainable_summary(model).prompts == config.n_parameters(WIDTH, DEPTH, grid)


@configs
def test_all_blocks_said_in_numbers_are_all_blocks(config):
    from dataclasses import replace

    whole, said = replace(config, blocks=None), replace(config, blocks=DEPTH)
    models = [prompted(one) for one in (whole, said)]
    with torch.no_grad():
        first, second = (model(images()) for model in models)
    assert torch.equal(first, second)
    assert whole.n_parameters(WIDTH, DEPTH, (4, 4)) == said.n_parameters(WIDTH, DEPTH, (4, 4))


@configs
def test_they_come_back_from_a_file(config, tmp_path):
    model = prompted(config)
    save_prompts(model, tmp_path / "prompts.safetensors")
    again = load_prompts(plain(), tmp_path / "prompts.safetensors").eval()
    assert again.config == config
    with torch.no_grad():
        assert torch.equal(again(images()), model(images()))


@configs
def test_packed_trials_are_those_alone(config):
    """Logits and gradients of two trials in float64, to rounding."""
    frozen = plain().requires_grad_(False).eval()
    packed = PackedTrials(frozen, config, CLASSES, [rng(seed) for seed in (1, 2)])
    with torch.no_grad():
        for value in packed.parts.values():
            value.add_(0.3 * torch.randn(value.shape, generator=rng(5), dtype=torch.float64))
    batch, labels = images(number=4), torch.arange(4)
    logits = packed(batch)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat(2), reduction="sum").backward()
    for index in range(2):
        one = prompt(plain(), config, CLASSES, rng=rng(0)).eval()
        with torch.no_grad():
            for name, parameter in prompt_parameters(one).items():
                parameter.copy_(packed.trial(index)[name])
        expected = one(batch)
        torch.nn.functional.cross_entropy(expected, labels, reduction="sum").backward()
        torch.testing.assert_close(logits[index], expected, rtol=0, atol=1e-11)
        for name, parameter in prompt_parameters(one).items():
            found = packed.parts[name.replace(".", "/")].grad[index]
            torch.testing.assert_close(found, parameter.grad, rtol=0, atol=1e-10 * max(1, parameter.grad.abs().max()))


def test_they_train():
    model = prompted(VAPT(3, hidden=4, blocks=2))
    before = {name: value.detach().clone() for name, value in prompt_parameters(model).items()}
    train_step(model, images())
    after = prompt_parameters(model)
    assert all(not torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(("make", "words"), [
    (lambda: VPT(3, blocks=0), "VPT: blocks = 0; expected a whole number of at least 1"),
    (lambda: VAPT(3, blocks=1.5), "VAPT: blocks = 1.5; expected a whole number"),
    (lambda: prompt(plain(), VPT(3, blocks=4), 7), "VPT: blocks = 4 in a model of 3 blocks; expected at most 3"),
    (lambda: prompt(plain(), VAPT(3, blocks=9), 7), "VAPT: blocks = 9 in a model of 3 blocks"),
    (lambda: prompt(plain(), VAPT(3, blocks=1), 7), "a model of 1 block with prompts; expected blocks of at "
     r"least 2, or VPT\(num_tokens=3, deep=True, blocks=1\)"),
    (lambda: prompt(plain(depth=1), VAPT(3), 7), r"of 1 block; expected a model of at least 2 blocks, or VPT\("),
    (lambda: prompt(plain(), VAPT(3, static_depth=2, blocks=2), 7), "2 blocks with prompts; expected less than 2, or"),
    (lambda: VPT(3, blocks=4).n_parameters(16, 3, (4, 4)), "blocks = 4 in a model of 3"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(make, words):
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
