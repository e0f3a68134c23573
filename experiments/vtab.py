"""Prompts on real images: VTAB-1K (19 tasks) and fine-grained tasks (FGVC), from folders of your own.

python experiments/vtab.py check --data vtab-1k --task cifar
python experiments/vtab.py fetch-help
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from moe_prompts import cli
from moe_prompts.errors import InputError

TASK_HELP = (
    "comma-separated: names such as cifar or fgvc:dogs; natural, specialized, structured; all (the 19 of VTAB-1K, the "
    "default); fgvc (all five)"
)

FETCH_HELP = """\
Nothing is downloaded here: get the data yourself, put it into these folders, then run `check`.

VTAB-1K

  <root>/<task>/train800.txt, val200.txt, train800val200.txt, test.txt      lines "relative/path label", labels from 0
  <root>/<task>/...                                                         the images, at the paths of the lists

  This layout is what repositories of several methods of efficient tuning read (NOAH, SSF, RepAdapter and their kin);
  some link to a finished archive or to a script that writes it. The origin is TensorFlow Datasets, read as in
  google-research/task_adaptation:
{origins}
  TensorFlow Datasets wants some of them (diabetic_retinopathy_detection) downloaded by hand first.

  Archives differ in how their images were written. PNG keeps every pixel. JPEG does not, and on small images (cifar,
  svhn, eurosat, dsprites) that costs accuracy, up to 15 points on CIFAR-100: `check` warns of it, and results say the
  format. Numbers from archives of different formats do not compare.

FGVC

  <root>/<folder>/train.json, val.json, test.json     {{image name: class id}}: the split files that the repository of
                                                      VPT (github.com/KMnP/vpt) links to
  <root>/<folder>/...                                 the images, from each data set's own site; names are relative to
                                                      the folder or to images/, Images/, jpg/ or car_ims/ in it
{folders}
"""

#: Where TensorFlow Datasets keeps what a task is made from.
ORIGINS = {
    "cifar": "cifar100",
    "svhn": "svhn_cropped",
    "diabetic_retinopathy": "diabetic_retinopathy_detection/btgraham-300",
    "eurosat": "eurosat/rgb",
    "clevr_count": "clevr (number of objects)",
    "clevr_dist": "clevr (distance of the closest object)",
    "dsprites_loc": "dsprites (x-position in 16 bins)",
    "dsprites_ori": "dsprites (orientation in 16 bins)",
    "kitti": "kitti (distance of the closest vehicle)",
    "smallnorb_azi": "smallnorb (azimuth)",
    "smallnorb_ele": "smallnorb (elevation)",
}


def chosen(text: str) -> list[str]:
    """The tasks that ``--task`` names, each once, in order."""
    from moe_prompts.vision.tasks import fgvc, vtab

    groups = {group: [name for name, data in vtab.TASKS.items() if data.group == group] for group in vtab.GROUPS}
    groups |= {"all": list(vtab.TASKS), "fgvc": [fgvc.PREFIX + name for name in fgvc.TASKS]}
    known = groups | {name: [name] for name in [*groups["all"], *groups["fgvc"]]}
    asked = cli.names(text)
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise InputError(f"--task {text}; expected some of {', '.join(known)}")
    return list(dict.fromkeys(task for name in asked for task in known[name]))


def check(arguments: argparse.Namespace) -> None:
    """One line per fault; exit code 1 if there is a problem, warnings are none."""
    from moe_prompts.vision.tasks import fgvc
    from moe_prompts.vision.tasks.check import PROBLEM, check_fgvc, check_vtab

    tasks = chosen(arguments.task)
    if not arguments.data.is_dir():
        raise InputError(f"--data {arguments.data}: no such folder; expected the root of the data (see fetch-help)")
    problems = 0
    for task in tasks:
        look = check_fgvc if task.startswith(fgvc.PREFIX) else check_vtab
        for finding in look(arguments.data, [task], arguments.thorough):
            print(finding, flush=True)
            problems += finding.kind == PROBLEM
    print(f"{len(tasks)} task{'s' * (len(tasks) > 1)} checked, {problems} problem{'s' * (problems != 1)}")
    if problems:
        sys.exit(1)


def fetch_help(arguments: argparse.Namespace) -> None:
    """Where the data come from and how they must lie."""
    from moe_prompts.vision.tasks import fgvc, vtab

    origins = "\n".join(f"    {name:<22}{ORIGINS.get(name, name)}" for name in vtab.TASKS)
    folders = "\n".join(f"    {fgvc.PREFIX + name:<22}<root>/{data.folders[0]}" for name, data in fgvc.TASKS.items())
    print(FETCH_HELP.format(origins=origins, folders=folders), end="")


def parser() -> argparse.ArgumentParser:
    parser = cli.OneLineParser("vtab.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    one = commands.add_parser("check", help="what is missing or wrong in the data folders", description=check.__doc__)
    one.add_argument("--data", type=Path, required=True, metavar="ROOT", help="the folder of the tasks' folders")
    one.add_argument("--task", default="all", metavar="TASKS", help=TASK_HELP)
    one.add_argument("--thorough", action="store_true", help="decode every image instead of 50 per task")
    one.set_defaults(call=check)

    one = commands.add_parser("fetch-help", help="where the data come from", description=fetch_help.__doc__)
    one.set_defaults(call=fetch_help)
    return parser


def main() -> None:
    arguments = parser().parse_args()
    arguments.call(arguments)


if __name__ == "__main__":
    cli.run(main, "vtab.py")
