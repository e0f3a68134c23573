"""Give the data that methods are trained on: VTAB-1K and FGVC from folders, and stand-ins that are drawn.

task        Task, ImageSet, Pixels, Subset: named splits of labelled images, as training sees them
vtab        the 19 tasks of VTAB-1K, from folders
fgvc        five fine-grained tasks (FGVC), from folders
folder      a task from a plain folder, with a folder of images for each class
emoji       fetches emoji of two vendors as such a folder
check       reports what is wrong with such folders
images      decodes and resizes image files, and keeps the result in a cache
procedural  stand-in tasks that are drawn by formula from addressed seeds
drawing     renders their scenes of flat shapes
letters     renders those of glyphs
solids      renders those of lit bodies
replicates  gives each replicate of a study its own images of a stand-in
subsets     stratified subsets, the smaller contained in the larger
named       opens tasks by name, as command lines know them
"""

from __future__ import annotations

from moe_prompts.lazy import loaded

_PUBLIC = {
    "vtab_task": "vtab",
    "fgvc_task": "fgvc",
    "procedural_task": "procedural",
    "fresh": "procedural",
    "stratified_subset": "subsets",
    "TaskSpec": "named",
}

__all__ = list(_PUBLIC)

__getattr__, __dir__ = loaded(__name__, _PUBLIC)
