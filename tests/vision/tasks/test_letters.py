"""Letters: the pixels against Pillow's own drawing of a whole line, and labels read back by templates."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from moe_prompts.errors import InputError
from moe_prompts.vision.tasks.letters import FONTS, LETTERS, font_file, lines, places, render_lines
from moe_prompts.vision.tasks.procedural import block_scenes

SIZE = 56


def plain(scenes):
    """White letters on black."""
    return replace(
        scenes,
        ink=np.ones_like(scenes.ink),
        ground=np.zeros_like(scenes.ground),
        waves=np.zeros_like(scenes.waves),
    )


def drawn_by_pillow(scenes, number, word, fine=8):
    """The letters of ``word`` at the places of the scene, drawn ``fine`` times as large, turned, and averaged: [0, 1].

    A letter None is left out. The canvas has a margin of half a side, so that letters are cut off after the turn.
    """
    side, margin = SIZE * fine, SIZE * fine // 2
    font = ImageFont.truetype(str(font_file(FONTS[scenes.font[number]])), scenes.em[number] * side)
    top, bottom = font.getbbox("H", anchor="ls")[1::2]
    canvas = np.zeros((side + 2 * margin, side + 2 * margin))
    for slot in (slot for slot in range(3) if word[slot] is not None):
        x, y = places(scenes, slot)[number] * side + margin
        image = Image.new("L", canvas.shape)
        ImageDraw.Draw(image).text((x, y - (top + bottom) / 2), word[slot], fill=255, font=font, anchor="ms")
        turned = image.rotate(-np.degrees(scenes.angle[number]), Image.Resampling.BILINEAR, center=(x, y))
        canvas = np.maximum(canvas, np.asarray(turned) / 255)
    return canvas[margin:-margin, margin:-margin].reshape(SIZE, fine, SIZE, fine).mean(axis=(1, 3))


def word_of(scenes, number):
    return [LETTERS[index] for index in scenes.letter[number]]


def test_pixels_are_those_of_pillow():
    """Pillow places pens and edges on whole pixels of the eightfold image and of a canvas of 256: together less than a
    quarter of a pixel at 56, for either edge of a thin stroke; and a tenth of all pixels lie at edges."""
    scenes = lines(np.random.default_rng(0), 24)
    found = render_lines(plain(scenes), SIZE)[..., 0] / 255
    for number, image in enumerate(found):
        expected = drawn_by_pillow(scenes, number, word_of(scenes, number))
        assert np.abs(image - expected).max() < 0.5
        assert np.abs(image - expected).mean() < 0.02
        assert expected.mean() > 0.05


def test_the_middle_letter_is_read_by_templates():
    """The nearest of the 26 letters that Pillow draws in the middle is the label, in every image; Q and O, whose tail
    is small, included."""
    scenes = lines(np.random.default_rng(1), 8)
    found = render_lines(plain(scenes), SIZE)[..., 0] / 255
    for number, image in enumerate(found):
        left, _, right = word_of(scenes, number)
        beside = drawn_by_pillow(scenes, number, [left, None, right], 4)
        middles = (drawn_by_pillow(scenes, number, [None, letter, None], 4) for letter in LETTERS)
        off = [np.square(image - np.maximum(beside, middle)).sum() for middle in middles]
        assert np.argmin(off) == scenes.labels[number]


def test_ink_stands_out_from_the_ground():
    """Mean grey of ink and ground differ by 0.35 at least, tints take at most 0.14 of it."""
    scenes = lines(np.random.default_rng(2), 2000)
    apart = scenes.ink.mean(axis=1) - scenes.ground.mean(axis=1)
    assert np.abs(apart).min() > 0.2
    assert 0.35 < (apart > 0).mean() < 0.65
    assert len(np.unique(scenes.font)) == len(FONTS)


def test_brightness_does_not_give_the_letter_away():
    """Mean grey predicts the label no better than chance by a table of 20 bins, at 5 standard errors."""
    scenes = [block_scenes("letters", "fresh", block, 0) for block in range(30)]
    labels = np.concatenate([one.labels for one in scenes])
    grey = np.concatenate([render_lines(one, 16).mean(axis=(1, 2, 3)) for one in scenes])
    bins = np.argsort(np.argsort(grey)) * 20 // len(grey)
    learn = np.arange(len(grey)) % 2 == 0
    table = np.array([np.bincount(labels[learn & (bins == b)], minlength=26).argmax() for b in range(20)])
    chance, held = 1 / 26, (~learn).sum()
    assert (table[bins] == labels)[~learn].mean() < chance + 5 * np.sqrt(chance * (1 - chance) / held)


@pytest.mark.parametrize("size", [98, 224])
def test_one_scene_at_any_size(size):
    """Averaged to 14 x 14, a large image is the small one: the points put an edge right to a sixth of a pixel, which is
    a twenty-fourth of a cell at 56 pixels; a cell has at most two edges across, so 2 / 24 of 255."""
    scenes = plain(lines(np.random.default_rng(3), 4))
    large = render_lines(scenes, size)[..., 0].astype(float)
    factor = 14
    coarse = [
        image.reshape(len(image), factor, image.shape[1] // factor, factor, -1).mean(axis=(2, 4))
        for image in (large, render_lines(scenes, SIZE)[..., 0].astype(float))
    ]
    assert np.abs(coarse[0] - coarse[1]).max() < 255 / 12
    assert np.abs(coarse[0] - coarse[1]).mean() < 2


def test_a_missing_font_is_one_line(monkeypatch, tmp_path):
    import matplotlib

    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(InputError, match="no such font; expected matplotlib's own"):
        font_file("cmr10")
