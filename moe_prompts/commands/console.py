"""Find the command that ``moe-prompts NAME ...`` asks for, and run it.

Nothing is loaded before the name is known, so that the list of commands appears at once.
"""

from __future__ import annotations

import sys
from importlib import import_module

#: Commands in groups: name, and what it does in a few words.
GROUPS = {
    "theory: do the claims hold?": {
        "sample-efficiency": "do fixed or adaptive prompts learn faster? verdicts",
        "rates": "how fast can parameters be learned? by algebra",
        "identifiability": "which prompts can be told apart, in any configuration",
        "floors": "the least risk of a kind of prompt on another truth",
        "claims": "every claim of the field, with its verdict",
        "replicate": "two published simulations, beside certified fits",
        "power": "how many replicates does a verdict take?",
    },
    "in a Vision Transformer (extra vision)": {
        "vtab": "VPT, VAPT and baselines on VTAB-1K, FGVC or stand-ins",
        "data-efficiency": "accuracy against sample size; planted truths",
        "predicted-excess": "what theory predicts of such a run",
        "starts": "where prompts begin, and which optimiser finds them",
        "search": "certified fits of planted prompts: can they be found?",
        "tasks": "images of the tasks, and what a linear probe finds",
        "planted-head": "the exact theory in one real head",
        "head-as-moe": "what prompts do inside the heads of a ViT",
        "backbone": "fetch a pretrained backbone, and ask what it knows",
        "pretrain": "pretrain a small backbone on drawn images",
    },
    "runs on several hosts": {"gather": "put the parts of a study together"},
}
#: Where a command has another name than its module.
MODULES = {"rates": "predicted_rates"}
COMMANDS = {name: MODULES.get(name, name.replace("-", "_")) for group in GROUPS.values() for name in group}
EXAMPLES = """examples
  moe-prompts sample-efficiency --quick
  moe-prompts sample-efficiency --n 1e3..1e6
  moe-prompts rates --model softmax-gaussian --cells 1,2,3
  moe-prompts power --n 1e3..1e6 --scatter .8 --replicates 16
  moe-prompts vtab run --preset small"""


def overview() -> str:
    """Return the list of commands, in groups, with examples."""
    width = max(map(len, COMMANDS))
    lines = ["usage: moe-prompts COMMAND [options]        moe-prompts COMMAND --help", ""]
    for title, commands in GROUPS.items():
        lines += [title, *(f"  {name.ljust(width)}  {text}" for name, text in commands.items()), ""]
    return "\n".join([*lines, EXAMPLES])


def _unknown(name: str) -> str:
    """Return what is said of a name that no command has: the nearest one, which may be a module's, or all."""
    from difflib import get_close_matches

    names = {module.replace("_", "-"): command for command, module in COMMANDS.items()} | {at: at for at in COMMANDS}
    told = f"expected one of {', '.join(COMMANDS)}"
    for near in get_close_matches(name, names, n=1):
        told = f"did you mean {names[near]}? moe-prompts --help lists all"
    return f"no command {name!r}; {told}"


def main() -> None:
    """Run the command that the first argument names; without one, or with --help, list the commands."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
        return
    if name == "--version":
        from moe_prompts import __version__

        print(__version__)
        return
    if name not in COMMANDS:
        from moe_prompts.shown import as_message

        print(as_message(f"moe-prompts: {_unknown(name)}", sys.stderr.isatty()), file=sys.stderr)
        sys.exit(2)
    from moe_prompts import cli

    # Options, messages and meta.json then name the command as it was called.
    sys.argv = [f"{cli.CONSOLE}{name}", *rest]
    module = COMMANDS[name]
    cli.run(import_module(f"moe_prompts.commands.{module}").main, f"{module}.py")
