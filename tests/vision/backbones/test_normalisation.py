"""Inputs of backbones: one pixel by hand, the scale of the own pretraining, and which backbone has which."""

import numpy as np
import pytest
import torch

from moe_prompts.errors import InputError
from moe_prompts.vision.backbones.create import OWN
from moe_prompts.vision.backbones.normalisation import normalisation_of, normalised

LIKE = torch.zeros(())


def test_normalisation_of_one_pixel():
    pixels = np.array([[[[255, 0, 51]]]], dtype=np.uint8)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(normalised(pixels, "imagenet", LIKE).flatten(), torch.tensor(expected))
    torch.testing.assert_close(normalised(pixels, "none", LIKE).flatten(), torch.tensor([1, 0, 0.2]))


def test_half_is_the_scale_of_the_own_pretraining_to_the_last_bit():
    """bytes / 127.5 - 1 in float32, as the committed backbone was trained; every byte."""
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    expected = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).float() / 127.5 - 1
    assert torch.equal(normalised(pixels, "half"), expected)


def test_the_default_of_each_backbone():
    assert {normalisation_of(name) for name in OWN} == {"half"}
    assert normalisation_of("vit_base_patch16_224.orig_in21k") == "imagenet"


def test_an_unknown_name_is_one_clear_error():
    with pytest.raises(InputError, match="normalisation 'vgg'; expected one of imagenet, half, none"):
        normalised(np.zeros((1, 1, 1, 3), dtype=np.uint8), "vgg")
