"""Presets of ``experiments/data_efficiency.py``: what it trains where options say nothing else.

A preset is a dictionary, option -> value. This module imports nothing else of the package, so that the
command's help is quick.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: Names of the planted truths, as in ``curves``. They are written here again: that module may need packages
#: that are not installed where the help is asked for.
PLANTED = ("planted-fixed", "planted-adaptive")
#: What a preset says where nothing else is given.
PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "task": [*PLANTED, "stand-in:dsprites_loc", "count"],
        "students": ["vpt_deep", "vpt_matched", "vapt", "at_teacher"],
        "n": "50,200,1000",
        "reps": 2,
        "steps": 120,
        "fresh_steps": 240,
        "fresh_reps": 1,
    },
    "night": {
        "task": [*PLANTED, "stand-in:dsprites_loc", "count"],
        "n": "500,2000,8000",
        "reps": 5,
        "steps": 600,
        "fresh_steps": 1500,
        "fresh_reps": 1,
    },
    "gpu": {
        "task": [*PLANTED, "stand-in:dsprites_loc", "stand-in:dsprites_ori", "count", "distance", "digits"],
        "n": "50,100,200,400,700,1000",
        "reps": 5,
        "steps": 1000,
        "fresh_steps": 10_000,
        "fresh_reps": 2,
        "tune": True,
        "device": "cuda",
    },
}
#: A real pretrained backbone at 56 pixels, with prompts in its last six blocks. Every method has standardised
#: features, a head that begins at zero, the same steps, and a rate that the same grid gives on validation
#: images. "real" compares LoRA in the same blocks, too, and full tuning by AdamW, with rates and n of its
#: own.
PRETRAINED: dict[str, Any] = {
    "backbone": "dinov2-small-focus",
    "size": 56,
    "last_blocks": 6,
    "standardise": True,
    "head": "zero",
    "batch": 32,
    "tune": True,
}
PRESETS["real"] = PRETRAINED | {
    "task": ["stand-in:dsprites_loc", "stand-in:dsprites_ori", "count", "distance", "letters", "azimuth", "digits"],
    "methods": ["linear", "bias", "lora", "vpt_deep", "vpt_matched", "vapt", "vapt_constant", "vapt_shuffled"],
    "n": "50,100,200,400,800",
    "drawn_n": "3200",
    "reps": 5,
    "steps": 200,
    "fresh_steps": 300,
    "fresh_reps": 1,
    "lr": "0.005,0.05,0.25,1",
    "tune_by": "accuracy",
    "full_n": "200,800",
}
#: The same with larger images and prompts in all ten blocks: hours of a GPU.
PRESETS["real-gpu"] = PRESETS["real"] | {"size": 112, "last_blocks": 10, "device": "cuda"}
#: The first registered part: fewer tasks, methods, sizes, steps and replicates.
PRESETS["real-first"] = PRETRAINED | {
    "task": ["stand-in:dsprites_loc", "count"],
    "methods": ["linear", "vpt_deep", "vapt", "vapt_shuffled"],
    "n": "50,200,800",
    "reps": 3,
    "steps": 100,
    "fresh_reps": 0,
    "fresh_steps": 100,
    "lr": "0.05,0.25,1,4",
}
#: The second registered part: where adaptive prompts begin, with twice the steps and two more decades of
#: rates.
PRESETS["real-second"] = PRETRAINED | {
    "task": ["stand-in:dsprites_loc", "count"],
    "methods": ["linear", "vpt_deep", "vapt", "vapt_tokens", "vapt_vpt"],
    "n": "800",
    "reps": 3,
    "steps": 200,
    "fresh_reps": 0,
    "fresh_steps": 200,
    "lr": "0.0005,0.005,0.05,0.25,1,4",
}
#: The third registered part: four other tasks, with fresh images for floors.
PRESETS["real-third"] = PRETRAINED | {
    "task": ["stand-in:dsprites_ori", "distance", "letters", "stand-in:azimuth"],
    "methods": ["linear", "vpt_deep", "vapt"],
    "n": "800",
    "reps": 3,
    "steps": 200,
    "fresh_reps": 1,
    "fresh_steps": 300,
    "lr": "0.005,0.05,0.25,1",
}
#: Prompts planted in the last three blocks of the same backbone, one in each: few enough parameters that
#: P / (2 n) is of the size of what is measured. States before them are kept on disk. With a sharpness
#: of 2, labels have .65 to 1.40 nats of entropy (seeds 99 to 101); with 6, those of adaptive teachers .21 to
#: .38.
PRESETS["planted-pretrained"] = {
    "task": [*PLANTED],
    "backbone": "dinov2-small-focus",
    "size": 56,
    "last_blocks": 3,
    "teacher_tokens": 1,
    "teacher_hidden": 2,
    "teacher_sharpness": 2.0,
    "students": ["vpt_deep", "vapt", "at_teacher"],
    "n": "500,2000,8000",
    "reps": 3,
    "steps": 150,
    "fresh_steps": 300,
    "fresh_reps": 1,
    "batch": 32,
    "optimiser": "adamw",
    "tune": True,
    "lr": "0.0003,0.003",
    "states": Path("results/states"),
}
PRESETS["real-quick"] = PRETRAINED | {
    "task": ["stand-in:dsprites_loc"],
    "methods": ["linear", "vpt_deep", "vapt"],
    "n": "50,200",
    "reps": 2,
    "steps": 40,
    "fresh_reps": 0,
    "fresh_steps": 40,
    "lr": "0.05,0.25",
}
#: What ``--quick`` changes.
QUICK = {
    "task": ["planted-adaptive", "count"],
    "students": ["vpt_deep", "vapt"],
    "methods": ["linear", "vapt"],
    "n": "20,40",
    "reps": 2,
    "steps": 3,
    "fresh_steps": 3,
    "fresh_reps": 1,
}
#: On the pretrained backbone as well: planted truths label thousands of images by it, and each rate costs
#: trainings.
QUICK_PRETRAINED = {"task": ["count"], "lr": "0.25"}
#: Where only planted truths are asked for.
QUICK_PLANTED = {"task": ["planted-adaptive"], "lr": "0.25", "fresh_reps": 0}
