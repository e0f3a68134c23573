"""--backbone, --weights and --size of the commands that ask a head of a given backbone."""

import json
from hashlib import sha256

import pandas as pd
import pytest
import timm
from commands import call
from safetensors.torch import save_file

from moe_prompts.commands.head_as_moe import size_of
from moe_prompts.vision.planted_head.head import HeadChoice, frozen_head

NAME, BLOCKS, HEADS = "vit_tiny_patch16_224", 12, 3


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with the weights of a small model of timm, drawn anew."""
    file = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model(NAME, num_classes=0, img_size=224).state_dict(), str(file))
    return file


def test_a_planted_head_is_one_of_the_given_backbone(weights):
    choice = HeadChoice(NAME, block=2, head=1, images=5, coordinates=2, size=32, weights=str(weights))
    (W_Q, *_), tokens = frozen_head(choice, 0)
    assert tokens.shape == (5, 1 + 4, 192)
    assert W_Q.shape == (192, 64)
    facts = choice.facts()
    assert (facts["size"], facts["weights"]) == (32, sha256(weights.read_bytes()).hexdigest())
    assert "size" not in HeadChoice().facts()  # older runs keep their identity


def test_prompts_in_the_heads_of_the_given_backbone(weights, tmp_path):
    """Prompts in the last three blocks alone, over photographs; every head of those blocks has its rows."""
    options = ("--backbone", NAME, "--weights", str(weights), "--size", "32", "--last-blocks", "3", "--quick")
    done = call("head_as_moe.py", *options, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "results.parquet")
    prompted = table[table["block"] >= BLOCKS - 3]
    assert set(prompted["head"]) == set(range(HEADS))
    assert prompted.groupby(["method", "block", "head"]).size().eq(4).all()
    assert (prompted["mass"] > 0).all()
    assert len(prompted) == len(table)
    made = json.loads((tmp_path / "meta.json").read_text())["identity"]["options"]
    assert made["backbone"] == NAME
    assert made["weights"] == sha256(weights.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("backbone", "size"),
    [("dinov2-small-focus", 98), ("small", 32), (NAME, 224), ("vit_base_patch14_dinov2.lvd142m", 518)],
)
def test_images_have_a_size_that_the_backbone_takes(backbone, size):
    """98 pixels are no whole number of patches of 16."""
    assert size_of(backbone) == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("head_as_moe.py", "--out", __file__), f"--out {__file__}: File exists; expected a folder"),
        (("tasks.py", "probe", "--quick", "--out", __file__), f"--out {__file__}: File exists; expected a folder"),
        (("tasks.py", "probe", "--task", ""), "--task: '' names nothing; expected one name"),
        (("head_as_moe.py", "--size", "56"), "--size and --weights are of a pretrained backbone"),
        (("planted_head.py", "--backbone", "small", "--size", "56"), "small: file None, size 56"),
        (("planted_head.py", "--backbone", NAME, "--weights", "gone.pth", "--quick"), "gone.pth"),
        (("head_as_moe.py", "--backbone", NAME, "--weights", "gone.pth", "--quick"), "gone.pth"),
    ],
)
def test_wrong_options_are_one_clear_error(arguments, message, tmp_path):
    out = () if "--out" in arguments else ("--out", str(tmp_path / "out"))
    done = call(arguments[0], *arguments[1:], *out)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
