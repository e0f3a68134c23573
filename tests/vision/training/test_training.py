"""Training: rates and batches by hand, packed trials against torch's optimiser one by one, scores against counting."""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from moe_prompts.errors import InputError
from moe_prompts.vision import VAPT, VPT, PackedTrials, prompt
from moe_prompts.vision.prompting.prompted import prompt_parameters
from moe_prompts.vision.tasks.task import Pixels
from moe_prompts.vision.training.sgd import (
    DIVERGED,
    TRAINED,
    Recipe,
    Setting,
    Trial,
    batches,
    evaluate,
    factors,
    init_generator,
    train_alone,
    train_packed,
)

LIKE = torch.zeros(())


def images(n=30, classes=3, seed=0) -> Pixels:
    rng = np.random.default_rng(seed)
    return Pixels(rng.integers(0, 256, (n, 16, 16, 3), dtype=np.uint8), rng.integers(0, classes, n))


def backbone() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=3, num_classes=0).eval()


def test_official_factors_change_per_epoch_and_begin_with_none():
    found = factors(Recipe(epochs=100, schedule="official"), n=130)
    assert len(found) == 300
    per_epoch = found.reshape(100, 3)
    assert (per_epoch == per_epoch[:, :1]).all()
    np.testing.assert_allclose(per_epoch[:11, 0], np.linspace(0, 1, 11), atol=1e-15)
    assert per_epoch[55, 0] == pytest.approx(0.5)
    assert (np.diff(per_epoch[10:, 0]) < 0).all()


def test_smooth_factors_have_no_dead_step():
    found = factors(Recipe(steps=40), n=1000)
    np.testing.assert_allclose(found[:4], [0.25, 0.5, 0.75, 1])
    assert (found > 0).all()
    assert (np.diff(found[3:]) < 0).all()
    assert found[-1] < 0.01


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_short_runs_have_a_factor_for_each_step(steps):
    for schedule in ("smooth", "official"):
        assert len(factors(Recipe(steps=steps, schedule=schedule), n=100)) == steps


def test_each_epoch_sees_every_image_once_in_its_own_order():
    found = list(batches(10, Recipe(epochs=2, batch=4), seed=3))
    assert [len(batch) for batch in found] == [4, 4, 2, 4, 4, 2]
    first, second = np.concatenate(found[:3]), np.concatenate(found[3:])
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(second)
    again = list(batches(10, Recipe(steps=4, batch=4), seed=3))
    assert all((a == b).all() for a, b in zip(again, found[:4], strict=True))


#: Rates of each step are made before the prompts are asked: the second schedule meets one of each class by default.
SCHEDULED = [
    (VPT(3, prompt_dropout=0.2), "smooth"),
    (VPT(3, prompt_dropout=0.2), "official"),
    (VPT(3, deep=False), "smooth"),
    pytest.param(VPT(3, deep=False), "official", marks=pytest.mark.slow),
    (VAPT(3), "smooth"),
    (VAPT(3), "official"),
    (VAPT(3, pooled=True), "smooth"),
    pytest.param(VAPT(3, pooled=True), "official", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("config", "schedule"), SCHEDULED)
def test_packed_trials_train_as_separate_ones(config, schedule):
    """Same init, batches, dropout and steps: apart only by rounding of float64, which training amplifies."""
    recipe = Recipe(epochs=3, batch=8, warmup=0.4, schedule=schedule)
    trials = [Trial(Setting(2.0, 0.1), 5), Trial(Setting(0.5, 0.0), 6), Trial(Setting(4.0, 0.01), 5)]
    data = images(12)
    model = backbone().double().requires_grad_(False)
    packed = PackedTrials(model, config, 3, [init_generator(trial.seed) for trial in trials])
    outcomes = train_packed(packed, data, trials, recipe)
    scores = evaluate(packed, data, recipe, LIKE.double())
    for index, trial in enumerate(trials):
        one = prompt(backbone().double(), config, 3, rng=init_generator(trial.seed), head="published")
        outcome = train_alone(one, data, trial, recipe)
        assert outcome.train_loss == pytest.approx(outcomes[index].train_loss, rel=1e-6)  # kept as float32
        for name, value in prompt_parameters(one).items():
            torch.testing.assert_close(packed.trial(index)[name], value.detach(), rtol=0, atol=1e-10)
        one.eval()
        score = evaluate(lambda batch, one=one: one(batch)[None], data, recipe, LIKE.double())[0]
        assert score.cross_entropy == pytest.approx(scores[index].cross_entropy, rel=1e-6)


def test_packed_trials_of_float32_agree_to_1e5_after_some_steps():
    """Rounding of float32; longer training amplifies it."""
    recipe, data = Recipe(epochs=1, batch=8), images()
    trials = [Trial(Setting(lr, 0.01), 5) for lr in (0.2, 0.5, 1.0)]
    packed = PackedTrials(backbone().requires_grad_(False), VAPT(3), 3, [init_generator(5) for _ in trials])
    train_packed(packed, data, trials, recipe)
    for index, trial in enumerate(trials):
        one = prompt(backbone(), VAPT(3), 3, rng=init_generator(5), head="published")
        train_alone(one, data, trial, recipe)
        for name, value in prompt_parameters(one).items():
            torch.testing.assert_close(packed.trial(index)[name], value.detach(), rtol=1e-5, atol=1e-5)


def test_bfloat16_is_near_float32():
    """Scores of trained trials: bfloat16 keeps 8 bits, so losses of about 1 agree to some hundredths."""
    data, trials = images(), [Trial(Setting(0.5, 0.0), 5)]
    scores = []
    for precision in ("float32", "bfloat16"):
        recipe = Recipe(epochs=2, batch=8, precision=precision)
        packed = PackedTrials(backbone().requires_grad_(False), VAPT(3), 3, [init_generator(5)])
        train_packed(packed, data, trials, recipe)
        assert packed.parts["head/weight"].dtype == torch.float32
        scores.append(evaluate(packed, data, recipe, LIKE)[0].cross_entropy)
    assert scores[1] == pytest.approx(scores[0], abs=0.05)
    assert scores[1] != scores[0]


def test_no_image_is_left_alone():
    """Prompts computed from another image of the batch need one."""
    assert [len(batch) for batch in batches(17, Recipe(epochs=2, batch=8), seed=0)] == [8, 9, 8, 9]
    assert [len(batch) for batch in batches(1, Recipe(epochs=2, batch=8), seed=0)] == [1, 1]
    assert len(factors(Recipe(epochs=4, batch=8), n=17)) == 8


def test_trials_may_have_images_of_their_own():
    """Two trials on two sets are what each is alone."""
    recipe, sets = Recipe(epochs=2, batch=8), [images(seed=1), images(seed=2)]
    trials = [Trial(Setting(1.0, 0.0), 5), Trial(Setting(1.0, 0.0), 5)]
    model = backbone().double().requires_grad_(False)
    packed = PackedTrials(model, VPT(2), 3, [init_generator(5), init_generator(5)])
    train_packed(packed, sets, trials, recipe)
    for index, own in enumerate(sets):
        alone = PackedTrials(model, VPT(2), 3, [init_generator(5)])
        train_packed(alone, own, trials[:1], recipe)
        for name, value in alone.trial(0).items():
            torch.testing.assert_close(packed.trial(index)[name], value, rtol=0, atol=1e-10)
    with pytest.raises(InputError, match="2 trials on 2 sets of"):
        train_packed(packed, [sets[0], images(n=20)], trials, recipe)


def test_training_learns_what_can_be_learned():
    """Labels that are the brightness of an image: far better than chance, on new images too."""
    data = images(120)
    labels = np.arange(120) % 3
    pixels = (data.pixels // 4 + 80 * labels[:, None, None, None]).astype(np.uint8)
    train, test = Pixels(pixels[:90], labels[:90]), Pixels(pixels[90:], labels[90:])
    trials = [Trial(Setting(lr, 1e-4), 0) for lr in (0.1, 1.0)]
    recipe = Recipe(steps=40, batch=16)
    for config in (None, VPT(2), VAPT(2)):
        packed = PackedTrials(backbone().requires_grad_(False), config, 3, [init_generator(0)] * 2)
        outcomes = train_packed(packed, train, trials, recipe)
        assert {outcome.status for outcome in outcomes} == {TRAINED}
        assert max(score.accuracy for score in evaluate(packed, test, recipe, LIKE)) > 0.8


def test_a_trial_that_diverges_says_so_and_leaves_the_others_alone():
    data, recipe = images(), Recipe(epochs=4, batch=8)
    trials = [Trial(Setting(1e25, 0.0), 0), Trial(Setting(0.5, 0.0), 0)]
    rngs = [init_generator(0), init_generator(0)]
    packed = PackedTrials(backbone().requires_grad_(False), VPT(2), 3, rngs)
    outcomes = train_packed(packed, data, trials, recipe)
    assert [outcome.status for outcome in outcomes] == [DIVERGED, TRAINED]
    assert packed.trial(1)["head.weight"].isfinite().all()


def test_scores_count_right_answers():
    data = images(300)

    def forward(batch):
        """Two trials: the first sees the brightest channel, the second says class 1 with probability 1/2."""
        brightness = batch.mean(dim=(2, 3)) * 50
        fixed = torch.tensor([0.25, 0.5, 0.25]).log().expand(len(batch), 3)
        return torch.stack([brightness, fixed])

    scores = evaluate(forward, data, Recipe(normalisation="none"), LIKE)
    guess = data.pixels.mean(axis=(1, 2)).argmax(axis=1)
    assert scores[0].accuracy == pytest.approx((guess == data.labels).mean())
    assert scores[1].accuracy == pytest.approx((data.labels == 1).mean())
    expected = -np.log(np.where(data.labels == 1, 0.5, 0.25)).mean()
    assert scores[1].cross_entropy == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps = 0; expected a whole number of at least 1"),
        ({"steps": True}, "Recipe: steps = True; expected a whole number of at least 1"),
        ({"batch": "64"}, "Recipe: batch = '64'; expected a whole number of at least 1"),
        ({"schedule": "linear"}, "schedule = 'linear'; expected one of smooth, official"),
        ({"normalisation": "vgg"}, "normalisation = 'vgg'; expected one of imagenet, half, none"),
        ({"rates": ["mu"]}, r"rates = \['mu'\]; expected one of uniform, mu"),
        ({"warmup": 1.0}, r"warmup = 1\.0; expected a number in \[0, 1\)"),
        ({"momentum": "much"}, r"Recipe: momentum = 'much'; expected a number in \[0, 1\)"),
    ],
)
def test_wrong_recipes(options, message):
    with pytest.raises(InputError, match=message):
        Recipe(**options)


def test_wrong_settings():
    cases = {
        (0.0, 0.1): r"Setting: lr = 0\.0; expected a number in \(0, inf\)",
        (float("inf"), 0.1): r"Setting: lr = inf; expected a number in \(0, inf\)",
        ("1", 0.1): r"Setting: lr = '1'; expected a number in \(0, inf\)",
        (1.0, -0.1): r"Setting: weight_decay = -0\.1; expected a number in \[0, inf\)",
        (1.0, float("inf")): r"Setting: weight_decay = inf; expected a number in \[0, inf\)",
    }
    for values, message in cases.items():
        with pytest.raises(InputError, match=message):
            Setting(*values)
