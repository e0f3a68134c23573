"""Training on kept states is training without them, bit for bit in float32."""

import os
from copy import deepcopy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from timm.layers.activations import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT, PackedTrials
from moe_prompts.vision.tasks.task import Pixels, Subset
from moe_prompts.vision.training import runs, states
from moe_prompts.vision.training.methods import Sizes
from moe_prompts.vision.training.packed import GROUP, entering_states
from moe_prompts.vision.training.runs import Setup, train_and_score
from moe_prompts.vision.training.sgd import Recipe, Setting, Trial, evaluate, init_generator, train_packed
from moe_prompts.vision.training.states import States, is_fixed, kept_states

CONFIGS = {
    "linear": None,
    "deep": VPT(3, blocks=2),
    "vapt": VAPT(3, hidden=4, blocks=2),
    "shuffled": VAPT(3, hidden=4, blocks=2, source="another"),
}
RECIPE = Recipe(steps=7, batch=20, normalisation="half")
N = GROUP + 17


@pytest.fixture(scope="module")
def model(uneven_vit):
    return uneven_vit


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(1)
    return Pixels(rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8), rng.integers(0, 5, N))


def test_states_do_not_depend_on_what_is_beside(model, images):
    """In any order and company the same bits, and to rounding those of one pass over all."""
    inputs = torch.tensor(images.pixels).movedim(-1, 1).float() / 127.5 - 1
    states = entering_states(model, 2, inputs)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    assert torch.equal(entering_states(model, 2, inputs[order]), states[order])
    assert torch.equal(entering_states(model, 2, inputs[5:6]), states[5:6])
    x = model._pos_embed(model.patch_embed(inputs))
    torch.testing.assert_close(states, model.blocks[1](model.blocks[0](x)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("prompts", CONFIGS.values(), ids=CONFIGS)
def test_training_on_kept_states_is_training_without(prompts, model, images, tmp_path):
    trials = [Trial(Setting(lr, 1e-4), seed) for lr, seed in ((0.5, 3), (0.1, 3), (0.1, 4))]

    def run(kept: bool):
        packed = PackedTrials(model, prompts, 5, [init_generator(trial.seed) for trial in trials])
        own = kept_states(model, packed.first, images, "half", "float32", tmp_path) if kept else images
        outcomes = train_packed(packed, own, trials, RECIPE)
        forward = packed.of_states if kept else packed
        scores = evaluate(forward, own, RECIPE, next(packed.parameters()))
        return outcomes, scores, [value.detach().clone() for value in packed.parts.values()]

    without, kept, again = run(False), run(True), run(True)
    assert len(list(tmp_path.glob("*.npy"))) == 1
    for one in (kept, again):
        assert one[:2] == without[:2]
        assert all(torch.equal(a, b) for a, b in zip(one[2], without[2], strict=True))


def test_files_are_mapped_and_belong_to_images_block_and_backbone(model, images, tmp_path):
    states = kept_states(model, 2, images, "half", "float32", tmp_path)
    assert isinstance(states.values, np.memmap)
    assert not states.values.flags.writeable
    assert states.values.shape == (N, 17, 36)
    others = Pixels(images.pixels[::-1].copy(), images.labels)
    for arguments in ((model, 1, images, "half"), (model, 2, images, "imagenet"), (model, 2, others, "half")):
        kept_states(*arguments, "float32", tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 4


@pytest.fixture
def kept(model, images, tmp_path, monkeypatch):
    """Return a function that reads kept states as a new process does, and the file they are in."""

    def read(precision="float32", like=images):
        monkeypatch.setattr(states, "_CHECKED", {}, raising=False)
        return kept_states(model, 2, like, "half", precision, tmp_path).values

    read()
    return read, next(tmp_path.glob("*.npy"))


def one(index):
    """The states of one image become those of the one beside it."""

    def change(values):
        values[index] = values[index - 1].copy()

    return change


def lost(values):
    values[N // 2 :] = 0


def unknown(values):
    values[-1, 3, 5] = np.nan


@pytest.mark.parametrize(
    "change", [lambda values: np.negative(values, out=values), one(0), one(N - 1), lost, unknown],
    ids=["sign", "first", "last", "half", "NaN"],
)  # fmt: skip
def test_altered_states_are_not_used(change, kept):
    read, path = kept
    values = np.load(path)
    change(values)
    np.save(path, values)
    with pytest.raises(InputError, match="tokens that were computed again are others") as caught:
        read()
    assert str(caught.value).startswith(f"{path}: kept states cannot be used")
    assert "delete the file" in str(caught.value)
    path.unlink()
    read()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_states_of_a_machine_that_rounds_otherwise_are_used(precision, kept, images, tmp_path):
    """Bits differ, by more than another order of sums makes of them: 1e-4 in float32, 2^-5 in bfloat16."""
    read, path = kept
    first = {file: np.load(file) for file in tmp_path.glob("*.npy")}
    values = read(precision)
    path = next((file for file in tmp_path.glob("*.npy") if file not in first), path)
    other = values * (1 + (1e-4 if precision == "float32" else 2**-5))
    np.save(path, other)
    np.testing.assert_array_equal(read(precision), other)


def test_a_file_that_this_process_altered_after_its_check_is_checked_again(model, images, kept, tmp_path):
    read, path = kept
    read()
    written = path.stat().st_mtime_ns
    np.save(path, -np.load(path))
    os.utime(path, ns=(written, written + 10**9))  # clocks of file systems may be coarse
    with pytest.raises(InputError, match="kept states cannot be used"):
        kept_states(model, 2, images, "half", "float32", tmp_path)


def test_a_check_computes_one_group_once(model, kept, tmp_path, monkeypatch):
    """Whatever the number of images; what the process itself wrote is not computed again."""
    many = Pixels(
        np.random.default_rng(3).integers(0, 256, (3 * GROUP, 32, 32, 3), dtype=np.uint8), np.arange(3 * GROUP)
    )
    computed = []

    def counted(model, first, inputs):
        computed.append(len(inputs))
        return entering_states(model, first, inputs)

    monkeypatch.setattr(states, "entering_states", counted)
    read, _ = kept
    read(like=many)
    assert sum(computed) == 3 * GROUP
    kept_states(model, 2, many, "half", "float32", tmp_path)
    assert sum(computed) == 3 * GROUP
    read(like=many)
    kept_states(model, 2, many, "half", "float32", tmp_path)
    assert sum(computed) == 4 * GROUP


def of_another_shape(path):
    np.save(path, np.zeros((N, 17, 35), np.float32))


def of_another_type(path):
    np.save(path, np.load(path).astype(np.float64))


@pytest.mark.parametrize("damage", [
    lambda path: path.write_bytes(path.read_bytes()[:-7]),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"PK\x03\x04" + path.read_bytes()),
    lambda path: path.write_bytes(path.read_bytes().replace(b"'descr'", b"(descr'")),
    of_another_shape,
    of_another_type,
], ids=["truncated", "empty", "zip", "header", "shape", "type"])  # fmt: skip
def test_a_file_that_cannot_be_read_is_named(damage, kept):
    read, path = kept
    damage(path)
    with pytest.raises(InputError, match="delete the file, and they are computed anew") as caught:
        read()
    assert str(caught.value).startswith(f"{path}: kept states cannot be used (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "other", [{"num_heads": 4}, {"act_layer": QuickGELU}, {"norm_layer": partial(nn.LayerNorm, eps=0.1)}]
)
def test_backbones_of_equal_weights_and_another_function_share_no_states(other, images, tmp_path, monkeypatch):
    monkeypatch.setattr(states, "_MEMORY", states._Memory())
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0}
    one, two = (VisionTransformer(**sizes | more).requires_grad_(False).eval() for more in ({}, other))
    two.load_state_dict(one.state_dict())
    for ask in (
        lambda model: kept_states(model, 1, images, "half", "float32", tmp_path),
        lambda model: states.remembered_states(model, 1, images, "half", "float32", 2**24),
    ):
        mine, theirs = ask(one).values, ask(two).values
        assert not np.array_equal(mine, theirs)
        np.testing.assert_array_equal(mine, ask(one).values)
    assert len(list(tmp_path.glob("*.npy"))) == len(states._MEMORY.arrays) == 2


def test_other_weights_and_another_precision_share_no_states(model, images, tmp_path, monkeypatch):
    """In one folder and in one memory: of two backbones of one form, and of passes in float32 and in bfloat16."""
    monkeypatch.setattr(states, "_MEMORY", states._Memory())
    other = deepcopy(model)
    with torch.no_grad():
        other.blocks[0].mlp.fc2.weight.mul_(1.5)
    asked = [(model, "float32"), (other, "float32"), (model, "bfloat16")]
    for ask in (
        lambda one, precision: kept_states(one, 1, images, "half", precision, tmp_path),
        lambda one, precision: states.remembered_states(one, 1, images, "half", precision, 2**24),
    ):
        first, *others = [ask(*one).values for one in asked]
        assert all(not np.array_equal(first, values) for values in others)
        np.testing.assert_array_equal(first, ask(*asked[0]).values)
    assert len(list(tmp_path.glob("*.npy"))) == len(states._MEMORY.arrays) == 3


def test_a_layer_without_weights_counts_where_it_stands(model, images):
    """Both backbones have the same kinds of layers; in one the other activation is in the block that is computed."""
    early, late = deepcopy(model), deepcopy(model)
    early.blocks[0].mlp.act = late.blocks[1].mlp.act = QuickGELU()
    names = {states._name(one, 1, images, "half", "float32") for one in (early, late, model)}
    assert len(names) == 3


def test_what_is_augmented_is_not_kept(images):
    class Cropped:
        labels = images.labels

    assert is_fixed(images)
    assert is_fixed(Subset(images, np.arange(3)))
    assert not is_fixed(Cropped())


@pytest.mark.parametrize("method", ["linear", "vpt_deep", "vapt", "vapt_constant", "vpt_matched"])
def test_a_run_with_a_folder_is_the_run_without(method, images, tmp_path, monkeypatch):
    """All the way through ``train_and_score``; with the folder no step computes the frozen blocks."""
    setup = Setup("small", sizes=Sizes(3, 4, blocks=2), recipe=RECIPE)
    kept = Setup("small", sizes=Sizes(3, 4, blocks=2), recipe=RECIPE, states=str(tmp_path))
    assert kept.identity() == setup.identity()
    trials = [Trial(Setting(0.5, 0.0), seed) for seed in (1, 2)]
    plain = train_and_score(method, setup, 5, trials, images, images)
    first = train_and_score(method, kept, 5, trials, images, images)
    monkeypatch.setattr("moe_prompts.vision.training.states.entering_states", None)
    monkeypatch.setattr("moe_prompts.vision.training.packed.entering_states", None)
    assert plain == first == train_and_score(method, kept, 5, trials, images, images)
    first = runs.first_read(method, kept.sizes, runs.backbone(kept))
    assert isinstance(runs.entering(first, kept, runs.backbone(kept), [images], images)[1], States)


@pytest.mark.parametrize("method", ["linear", "vpt_deep", "vapt", "adapter"])
def test_a_run_that_remembers_states_is_the_run_without(method, images, monkeypatch):
    """The second method that reads the same block computes no frozen block at all, nor does the first one again."""
    monkeypatch.setattr(states, "_MEMORY", states._Memory())
    setup = Setup("small", sizes=Sizes(3, 4, blocks=2), recipe=RECIPE)
    remembers = replace(setup, memory=2**24)
    assert remembers.identity() == setup.identity()
    trials = [Trial(Setting(0.5, 0.0), seed) for seed in (1, 2)]
    plain = train_and_score(method, setup, 5, trials, images, images)
    assert not states._MEMORY.arrays
    found = train_and_score(method, remembers, 5, trials, images, images)
    assert [len(values) for values in states._MEMORY.arrays.values()] == [N]
    monkeypatch.setattr(states, "entering_states", None)
    monkeypatch.setattr("moe_prompts.vision.training.packed.entering_states", None)
    assert plain == found == train_and_score(method, remembers, 5, trials, images, images)
    if method == "vpt_deep":
        train_and_score("vapt", remembers, 5, trials, images, images)


def test_the_sets_of_a_call_and_what_is_remembered_fit_into_memory_together(model, images, monkeypatch):
    """Sets that do not fit all are all read as images: one of them alone would fit."""
    monkeypatch.setattr(states, "_MEMORY", states._Memory())
    room = N * 17 * 36 * 4  # of one set's states
    held = []

    def counted(*arguments):
        held.append(room + sum(values.nbytes for values in states._MEMORY.arrays.values()))
        return computed(*arguments)

    computed = states._computed
    monkeypatch.setattr(states, "_computed", counted)
    sets = [Pixels(np.roll(images.pixels, number, axis=0), images.labels) for number in range(6)]
    setup = Setup(recipe=RECIPE, memory=3 * room)
    train, judge = runs.entering(2, setup, model, sets[:3], sets[3])
    assert all(own is images for own, images in zip((*train, judge), sets[:4], strict=True))
    assert held == []
    first, judge = runs.entering(2, setup, model, [sets[0], sets[1], sets[0]], sets[3])
    assert all(isinstance(own, States) for own in (*first, judge))
    assert first[0] is first[2]
    again, same = runs.entering(2, setup, model, [sets[4], sets[5]], sets[3])
    assert held == [room, 2 * room, 3 * room, 3 * room, 3 * room]  # the judge's set stays
    alive = {id(own.values) for own in (*again, same)}
    assert {id(values) for values in states._MEMORY.arrays.values()} == alive


def test_memory_is_bounded_and_drops_what_was_read_longest_ago(model, images, monkeypatch):
    monkeypatch.setattr(states, "_MEMORY", states._Memory())
    room = N * 17 * 36 * 4  # of one set's states
    sets = [Pixels(np.roll(images.pixels, number, axis=0), images.labels) for number in range(3)]

    def ask(number, most):
        return states.remembered_states(model, 2, sets[number], "half", "float32", most)

    first = ask(0, 2 * room)
    assert first.values.nbytes == room
    assert not first.values.flags.writeable
    ask(1, 2 * room)
    assert ask(0, 2 * room).values is first.values
    ask(2, 2 * room)  # drops set 1, as set 0 was read after it
    assert len(states._MEMORY.arrays) == 2
    assert ask(0, 2 * room).values is first.values
    assert ask(1, room - 1) is sets[1]  # too large
    ask(1, room)
    assert [len(values) for values in states._MEMORY.arrays.values()] == [N]
