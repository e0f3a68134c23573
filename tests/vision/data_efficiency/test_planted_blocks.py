"""Truths planted in the last blocks: the whole model with prompts put in by hand, kept states, identities, errors."""

import importlib
import json
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from moe_prompts.errors import InputError
from moe_prompts.vision import create_backbone, prompt
from moe_prompts.vision.backbones.fetched import cached_file, how_to_fetch
from moe_prompts.vision.backbones.normalisation import normalised
from moe_prompts.vision.data_efficiency import sources as module
from moe_prompts.vision.data_efficiency.curves import PLANTED
from moe_prompts.vision.data_efficiency.sources import PlantedImages, student_config, teacher_of
from moe_prompts.vision.data_efficiency.teacher import CLASSES, Planted
from moe_prompts.vision.prompting.prompted import prompt_parameters
from moe_prompts.vision.tasks.replicates import TEST
from moe_prompts.vision.training.methods import Sizes
from moe_prompts.vision.training.runs import Setup, backbone
from moe_prompts.vision.training.sgd import Recipe, Setting, Trial
from moe_prompts.vision.training.states import MEMORY

REAL = "dinov2-small-focus"
COMMITTED = Path(__file__).parents[3] / "paper_figures" / "data" / "planted_vit" / "meta.json"
GOLDEN_FIXED = [1, 9, 5, 4, 5, 9, 5, 9, 9, 6, 1, 1, 9, 1, 6, 1, 4, 6, 9, 9, 9, 9, 5, 6]
GOLDEN_ADAPTIVE = [7, 4, 6, 2, 6, 5, 7, 1, 8, 7, 6, 7, 8, 4, 7, 5, 8, 7, 6, 6, 3, 5, 5, 7]
RECIPE = Recipe(steps=3, batch=20, normalisation="half")
SETUP = Setup("small-random", sizes=Sizes(2, 3, blocks=2), recipe=RECIPE)


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(module, "TEST_IMAGES", 40)
    monkeypatch.setattr(module, "VALIDATION_IMAGES", 40)


def by_hand(truth: Planted, pixels: np.ndarray) -> torch.Tensor:
    """Return log p(class | image) from timm's own blocks, with the teacher's fixed prompts beside their tokens."""
    model, parts = truth.model, dict(truth.teacher.named_parts())
    x = model._pos_embed(model.patch_embed(normalised(pixels, truth.normalisation)))
    for index, block in enumerate(model.blocks):
        if index < len(model.blocks) - truth.blocks:
            x = block(x)
        else:
            prompts = parts[f"{index}.tokens"].expand(len(x), -1, -1)
            x = block(torch.cat([x, prompts], dim=1))[:, : x.shape[1]]
    return truth.head(model.norm(x)[:, 0]).log_softmax(dim=-1)


def prompted(truth: Planted, pixels: np.ndarray) -> torch.Tensor:
    """Return the same from the prompted model, which is no trial in a pack, with the teacher's values."""
    own = prompt(deepcopy(truth.model), truth.config, num_classes=CLASSES).eval()
    values = dict(truth.teacher.named_parts())
    with torch.no_grad():
        for name, parameter in prompt_parameters(own).items():
            head = name.startswith("head.")
            parameter.copy_(getattr(truth.head, name.removeprefix("head.")) if head else values[name][0])
        return own(normalised(pixels, truth.normalisation)).log_softmax(dim=-1)


@pytest.fixture(scope="module")
def model(uneven_vit):
    return uneven_vit


@pytest.mark.parametrize(("kind", "blocks"), [(PLANTED[0], 1), (PLANTED[0], 3), (PLANTED[1], 2), (PLANTED[1], 3)])
def test_the_teacher_is_the_whole_model_with_prompts_in_its_last_blocks(model, kind, blocks):
    truth = Planted(kind, model, 2, 3.0, blocks=blocks, hidden=3)
    assert truth.first == 4 - blocks
    pixels = truth.draw(12, TEST).pixels
    expected = by_hand(truth, pixels) if kind == PLANTED[0] else prompted(truth, pixels)
    torch.testing.assert_close(truth.log_probabilities(pixels), expected, rtol=0, atol=2e-5)
    everywhere = Planted(kind, model, 2, 3.0, hidden=3)
    assert (everywhere.log_probabilities(pixels) - expected).abs().max() > 0.1


def test_all_blocks_named_are_all_blocks(model):
    """Blocks = depth has the same values as no number of blocks."""
    for kind in PLANTED:
        named, unnamed = (Planted(kind, model, 2, blocks=blocks) for blocks in (4, None))
        assert torch.equal(
            named.log_probabilities(named.draw(9, 0).pixels), unnamed.log_probabilities(unnamed.draw(9, 0).pixels)
        )


def test_labels_of_older_runs_are_what_they_were():
    """Drawn on small-gain by the version before prompts could be in the last blocks alone."""
    drawn = {kind: Planted(kind, create_backbone("small-gain").requires_grad_(False)).draw(24, 0) for kind in PLANTED}
    assert drawn[PLANTED[0]].labels.tolist() == GOLDEN_FIXED
    assert drawn[PLANTED[1]].labels.tolist() == GOLDEN_ADAPTIVE


def test_the_identity_of_older_runs_is_what_it_was():
    script = importlib.import_module("moe_prompts.commands.data_efficiency")
    asked = ["--task", ",".join(PLANTED), "--preset", "night", "--tune"]
    arguments = script.parser().parse_args(asked)
    script.fill_in(arguments)
    setup = script.planted_setup(arguments)
    sources = [PlantedImages(truth, script.sharpness_of(arguments)) for truth in PLANTED]
    committed = json.loads(COMMITTED.read_text())["identity"]
    assert PlantedImages.identity(sources, setup, 1500, [])["planting"] == committed["planting"]
    plain = script.setup_of(arguments)
    assert script.case(arguments, plain)["planted"] == {"backbone": "small-gain", "tokens": 4}


def test_what_is_new_is_in_the_identity_and_in_the_case_of_rates():
    script = importlib.import_module("moe_prompts.commands.data_efficiency")
    arguments = script.parser().parse_args(["--preset", "planted-pretrained"])
    script.fill_in(arguments)
    setup = script.planted_setup(arguments)
    sources = [PlantedImages(truth, script.sharpness_of(arguments)) for truth in arguments.task]
    new = {"size": 56, "blocks": 3, "hidden": 2, "normalisation": "imagenet", "batch": 32} | {
        "optimiser": "adamw",
        "sharpness": 2.0,
    }
    planting = PlantedImages.identity(sources, setup, arguments.fresh_steps, [])["planting"]
    assert {name: planting[name] for name in new} == new
    assert script.case(arguments, script.setup_of(arguments))["planted"] == {"backbone": REAL, "tokens": 1} | new
    assert not set(planting) & {"states", "memory"}  # they change no row


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bfloat16"},
        {"momentum": 0.5},
        {"warmup": 0.2},
        {"schedule": "official"},
        {"rates": "mu"},
        {"fixed_first": 0.25},
    ],
)
def test_every_setting_of_the_recipe_is_in_the_identity_where_it_is_not_the_usual_one(change):
    usual, other = (Setup("small-random", recipe=replace(RECIPE, **more)) for more in ({}, change))
    source = PlantedImages(PLANTED[0])
    before, after = (PlantedImages.identity([source], setup, 3, [])["planting"] for setup in (usual, other))
    assert after == before | change
    # Steps are given, so epochs change nothing.
    assert module.unusual(replace(usual, recipe=replace(RECIPE, epochs=3))) == module.unusual(usual)


def test_sources_of_different_sharpness_are_told_apart():
    planting = lambda *values: PlantedImages.identity(
        [PlantedImages(*pair) for pair in zip(PLANTED, values, strict=True)], SETUP, 3, []
    )["planting"]
    assert planting(2.0, 2.0)["sharpness"] == 2.0
    assert planting(6.0, 2.0)["sharpness"] == {PLANTED[0]: 6.0, PLANTED[1]: 2.0}
    assert "sharpness" not in planting(6.0, 6.0)


@pytest.mark.parametrize("student", ["vapt", "vapt_constant", "at_teacher"])
def test_students_train_in_packs_of_the_given_size_and_rows_do_not_depend_on_it(monkeypatch, student):
    source, trials = PlantedImages(PLANTED[1], 2.0), [Trial(Setting(0.2, 0.0), seed) for seed in (1, 2, 3)]
    packs, rows, scores = [], {}, {}
    train = module.train_packed

    def counted(packed, images, some, recipe):
        packs.append((len(images), len(some)))
        return train(packed, images, some, recipe)

    monkeypatch.setattr(module, "train_packed", counted)
    for pack in (3, 2):
        setup = replace(SETUP, pack=pack)
        sets = [source.images(30, replicate, setup, 0) for replicate in (0, 1, 2)]
        rows[pack] = source.measured(student, setup, trials, sets, 0)
        scores[pack] = source.judged(student, setup, trials, *source.tuning_images(30, setup, 0), 0)
    assert packs == [(3, 3)] * 2 + [(2, 2), (1, 1)] * 2
    for (one, values), (other, same) in zip(rows[3], rows[2], strict=True):
        assert values == pytest.approx(same, rel=1e-4, abs=1e-5)
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
    losses = [[score.cross_entropy for _, score in scores[pack]] for pack in (3, 2)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_command_gives_its_pack_to_planted_truths():
    script = importlib.import_module("moe_prompts.commands.data_efficiency")
    arguments = script.parser().parse_args(["--task", "planted-fixed", "--pack", "3"])
    script.fill_in(arguments)
    assert script.planted_setup(arguments).pack == 3


@pytest.mark.parametrize("truth", PLANTED)
def test_kept_states_change_no_bit(tmp_path, truth):
    source, train = PlantedImages(truth, 2.0), [Trial(Setting(0.2, 0.0), seed) for seed in (1, 2)]
    places = {"none": {}, "memory": {"memory": MEMORY}, "folder": {"states": str(tmp_path)}}
    found, recipe = {}, replace(RECIPE, steps=2, batch=10)
    for name, place in places.items():
        setup = Setup("small-random", sizes=SETUP.sizes, recipe=recipe, **place)
        assert source.reads_states(2 * 20, setup) == (name != "none")
        sets = [source.images(20, replicate, setup, 0) for replicate in (0, 1)]
        tuning = source.tuning_images(20, setup, 0)
        found[name] = [[one.labels.tolist() for one in (*sets, *tuning)]]
        for student in ("vpt_deep", "vapt", "vapt_constant", "vapt_offset", "at_teacher"):
            found[name].append(source.measured(student, setup, train, sets, 0))
            found[name].append(source.judged(student, setup, train, *tuning, 0))
    assert found["memory"] == found["none"]
    assert found["folder"] == found["none"]
    assert len(list(tmp_path.glob("*.npy"))) == 5  # two replicates, two sets to tune with, one to test on


def test_steps_read_states_and_do_not_compute_what_enters(tmp_path, monkeypatch):
    source = PlantedImages(PLANTED[0])
    setup = Setup("small-random", sizes=SETUP.sizes, recipe=RECIPE, states=str(tmp_path))
    images = source.images(33, 0, setup, 0)
    source.measured("vpt_deep", setup, [Trial(Setting(0.2, 0.0), 1)], [images], 0)  # writes the files
    computed = []
    monkeypatch.setattr(backbone(setup).blocks[0], "forward", lambda x: computed.append(len(x)))
    source.measured("vpt_deep", setup, [Trial(Setting(0.2, 0.0), 2)], [images], 0)
    assert computed == []


@pytest.mark.parametrize("truth", PLANTED)
def test_students_have_the_blocks_of_the_teacher_and_lose_nothing_where_it_stands(truth):
    source = PlantedImages(truth, 2.0)
    assert source.parameters("vpt_deep", SETUP, 0) == 2 * 2 * 64
    # Two fixed prompts, then norm, kernel, weights and biases of two more over 3 x 3 positions, and a projector.
    assert source.parameters("vapt", SETUP, 0) == 2 * 64 + 2 * 64 + 4 + 2 * (9 + 1) + 2 * 64 * 3
    planted = teacher_of(truth, SETUP, 0, 2.0)
    for student in (*module.STUDENTS, "at_teacher"):
        assert student_config(student, planted).blocks == 2
    still = [Trial(Setting(1e-12, 0.0), 0)]
    [(_, values)] = source.measured("at_teacher", SETUP, still, [source.images(30, 0, SETUP, 0)], 0)
    assert abs(values["excess"]) < 1e-6
    [(_, values)] = source.measured("vpt_large", SETUP, still, [source.images(30, 0, SETUP, 0)], 0)
    assert values["excess"] > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--last-blocks", "2"), "choose rates with --tune"),
        (("--teacher-sharpness", "2"), "choose rates with --tune"),
        (("--last-blocks", "5"), "--last-blocks 5; expected at most 4, the blocks of small-gain"),
        (
            ("--last-blocks", "1"),
            "--last-blocks 1 with planted-adaptive and adaptive students, whose first block has fixed",
        ),
        (("--size", "56"), "--size 56; small-gain takes 32 pixels: leave it out"),
        (("--teacher-sharpness=-2", "--tune"), "--teacher-sharpness -2; expected a positive number"),
        (("--teacher-sharpness", "nan"), "--teacher-sharpness nan; expected a positive number"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, monkeypatch, options, message):
    script = importlib.import_module("moe_prompts.commands.data_efficiency")
    asked = ["--task", "planted-adaptive", "--out", str(tmp_path / "out"), *options]
    monkeypatch.setattr(sys, "argv", ["data_efficiency.py", *asked])
    with pytest.raises(InputError) as caught:
        script.main()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(cached_file(REAL) is None, reason=how_to_fetch(REAL))
def test_a_size_that_the_real_backbone_does_not_take_is_told_before_rates(monkeypatch):
    script = importlib.import_module("moe_prompts.commands.data_efficiency")
    monkeypatch.setattr(sys, "argv", ["data_efficiency.py", "--task", "count", "--backbone", REAL, "--size", "55"])
    with pytest.raises(InputError, match=r"^--size 55; expected a multiple of 14, the side of a patch, such as 56$"):
        script.main()


@pytest.mark.skipif(cached_file(REAL) is None, reason=how_to_fetch(REAL))
def test_the_real_backbone(tmp_path, monkeypatch):
    """Its teacher is the model with a prompt in each of three blocks; students read states; a size must fit."""
    # An image takes as long as a hundred of the small backbone: few to test on, and few to centre the head's features.
    monkeypatch.setattr(module, "TEST_IMAGES", 8)
    pixels_of = Planted._pixels
    monkeypatch.setattr(Planted, "_pixels", lambda truth, replicate, n: pixels_of(truth, replicate, min(n, 32)))
    recipe = replace(RECIPE, steps=2, batch=4)
    of = lambda **place: Setup(REAL, size=56, sizes=Sizes(1, 2, blocks=3), recipe=recipe, **place)
    source, trials = PlantedImages(PLANTED[0], 2.0), [Trial(Setting(0.05, 0.0), 0)]
    truth = teacher_of(PLANTED[0], of(), 99, 2.0)
    assert (truth.first, len(truth.model.blocks), truth.normalisation) == (7, 10, "imagenet")
    assert source.parameters("vpt_deep", of(), 99) == 3 * 384
    pixels = truth.draw(4, TEST).pixels
    torch.testing.assert_close(truth.log_probabilities(pixels), by_hand(truth, pixels), rtol=0, atol=1e-4)
    rows = []
    for setup in (of(), of(states=str(tmp_path))):
        images = source.images(10, 0, setup, 99)
        rows.append(source.measured("vpt_deep", setup, trials, [images], 99))
    assert rows[0] == rows[1]
    [(_, values)] = source.measured("at_teacher", of(), [Trial(Setting(1e-12, 0.0), 0)], [images], 99)
    assert abs(values["excess"]) < 1e-5
    for size, blocks, message in ((60, 3, "60"), (56, 11, "blocks = 11 in a model of 10 blocks")):
        with pytest.raises(InputError, match=message):
            source.check(["vpt_deep"], [32], Setup(REAL, size=size, sizes=Sizes(1, blocks=blocks)), 99)


@pytest.mark.slow
@pytest.mark.skipif(cached_file(REAL) is None, reason=how_to_fetch(REAL))
def test_the_page_says_how_far_teachers_of_the_pretrained_backbone_are_from_no_prompts():
    """Excess of the model without prompts, and the entropy of labels, on 512 images for three seeds of trials."""
    vit = create_backbone(REAL, size=56).requires_grad_(False).eval()
    page = " ".join((COMMITTED.parents[3] / "docs" / "planted_vit.md").read_text("utf-8").split())
    excess, entropy = {}, []
    for kind in PLANTED:
        for seed in (99, 100, 101):
            truth = Planted(kind, vit, 1, 2.0, seed, "imagenet", blocks=3, hidden=2)
            pixels = truth._pixels(TEST, 512)
            law = truth.log_probabilities(pixels)
            plain = truth.head(truth._features(pixels)).log_softmax(dim=-1)
            excess.setdefault(kind, []).append(float((law.exp() * (law - plain)).sum(dim=-1).mean()))
            entropy.append(float(-(law.exp() * law).sum(dim=-1).mean()))
    shown = {kind: f"{min(own):.2f} to {max(own):.2f}".replace("0.", ".") for kind, own in excess.items()}
    fixed, adaptive = (shown[kind] for kind in PLANTED)
    assert f"excess of {fixed} nats on the fixed truth and {adaptive} on the adaptive one" in page
    assert f"entropy of {min(entropy):.2f} to {max(entropy):.2f} nats".replace("0.", ".") in page
