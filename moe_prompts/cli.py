"""Share among the experiments' command lines: sizes, output folders, times, and errors as one clear line."""

from __future__ import annotations

import argparse
import io
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_prompts.errors import InputError
from moe_prompts.shown import COLUMNS, as_message, paragraph

if TYPE_CHECKING:
    import pandas as pd

    from moe_prompts.engine.executors import Executor
    from moe_prompts.engine.grid import Part, Study
    from moe_prompts.shown import Ending

#: Exit codes: bad input, interrupted (128 + SIGINT), and nobody reads what is printed (128 + SIGPIPE).
BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
#: What the extras bring, by the names that are imported; pyproject.toml has those of the packages.
#: torchvision comes with timm.
EXTRAS = {
    "vision": ("torch", "torchvision", "timm", "safetensors", "PIL", "sklearn"),
    "peft": ("peft",),
    "hf": ("transformers",),
    "export": ("onnxscript", "onnxruntime"),
    "cluster": ("dask", "distributed", "dask_jobqueue"),
    "notebooks": ("jupyterlab", "jupytext", "ipywidgets"),
}
SIZE_LIMITS = (10, 10**8)
#: Title of the group of options that say who computes.
COMPUTES = "who computes"


def one_thread() -> None:
    """Give torch and linear algebra one thread each, here and in workers, unless the user set a number.

    Call it before torch loads: two processes of two threads are slower on two cores than two of one.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def fill_in(arguments: argparse.Namespace, values: Mapping[str, Any]) -> None:
    """Set the options that were not given, which are None, to those of a preset."""
    for name, value in values.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def sizes(text: str, points: int, option: str = "--n", unit: str = "pairs", most: int = SIZE_LIMITS[1]) -> list[int]:
    """Return the sizes that an option names, ascending.

    text    a range such as ``1e3..1e6``, or a list such as ``1e3,1e4``; whole numbers from 10 to ``most``
    points  how many sizes a range has, evenly spaced on a logarithmic scale and rounded; at least 2; those
            that rounding makes equal are one
    option  its name in errors
    unit    what is counted, in errors
    most    largest size

    Raises ``InputError`` for anything else, and for a list that names a size twice.
    """
    if points < 2 and ".." in text:
        raise InputError(f"--points {points}; expected at least 2 sizes for a range")
    parts = text.split("..") if ".." in text else text.split(",")
    if ".." in text and len(parts) != 2:
        raise InputError(f"{option} {text}; expected one range such as 1e3..1e6")
    values = [_size(part, text, option, unit, most) for part in parts]
    if ".." not in text:
        once(values, f"{option} {text}")
    else:
        if values[0] >= values[1]:
            raise InputError(f"{option} {text}; the range runs downwards: expected low..high, such as 1e3..1e6")
        values = [round(float(n)) for n in np.geomspace(values[0], values[1], points)]
    return sorted(set(values))


def _size(part: str, text: str, option: str, unit: str, most: int) -> int:
    if not re.fullmatch(r"\s*\d+(\.\d*)?([eE]\+?\d+)?\s*", part):
        raise InputError(f"{option} {text}; {part!r} is not a size: expected a range 1e3..1e6 or a list 1e3,1e4")
    value = float(part)
    low = SIZE_LIMITS[0]
    if not low <= value <= most or value != int(value):
        high = f"{most:.0e}" if most == float(f"{most:.0e}") else most
        raise InputError(f"{option} {text}; {part} is not a whole number of {unit} from {low} to {high}")
    return int(value)


def positive(name: str) -> Callable[[str], int]:
    """Return an argparse type for a whole number of at least 1; ``name`` says in errors what is counted."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d+", text) or int(text) < 1:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a number of {name}; expected a whole number of at least 1"
            )
        return int(text)

    return parse


def once(values: Sequence[Any], given: str) -> None:
    """Raise ``InputError`` where a list has a value twice; ``given`` is what was typed, for the error."""
    twice = [value for number, value in enumerate(values) if value in values[:number]]
    if twice:
        shown = f"{twice[0]:g}" if isinstance(twice[0], float) else twice[0]
        raise InputError(f"{given}; named twice: {shown}; expected each once")


def _parsed(values: list[Any], text: str) -> list[Any]:
    """Return the values of an argparse type; raise its error where one stands there twice."""
    try:
        once(values, repr(text))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return values


def positives(name: str, again: bool = False) -> Callable[[str], list[int]]:
    """Return an argparse type for a comma-separated list of whole numbers of at least 1.

    name   what is counted, for errors
    again  whether a number may stand there twice
    """

    def parse(text: str) -> list[int]:
        found = [positive(name)(part.strip()) for part in text.split(",")]
        return found if again else _parsed(found, text)

    return parse


def numbers(text: str | None, option: str, interval: str = "(-inf, inf)") -> tuple[float, ...] | None:
    """Return a comma-separated list as numbers, or None for None.

    option    its name in errors
    interval  of every number: "(-inf, inf)", "(0, inf)" or "[0, inf)"

    Raises ``InputError`` where a part is no finite number of the interval, or a number stands there twice.
    """
    if text is None:
        return None
    kinds = {
        "(-inf, inf)": ("numbers", lambda number: True),
        "(0, inf)": ("positive numbers", lambda number: number > 0),
        "[0, inf)": ("numbers of at least 0", lambda number: number >= 0),
    }
    kind, inside = kinds[interval]
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(math.isfinite(number) and inside(number) for number in found):
        raise InputError(f"{option} {text}; expected {kind} such as 0.25,1,2.5")
    once(found, f"{option} {text}")
    return found


def names(text: str) -> list[str]:
    """Return the different names in a comma-separated list, without spaces and empty parts.

    It is an argparse type, which refuses a text without names, and a name that stands there twice.
    """
    if not _split(text):
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; expected one name, or several with commas between")
    return _parsed(_split(text), text)


def names_of(text: str, option: str) -> list[str]:
    """Return the different names that an option gave.

    Raises ``InputError`` where there are none, or one stands there twice.
    """
    found = _split(text)
    if not found:
        raise InputError(f"{option} {text!r}; expected one name, or several with commas between")
    once(found, f"{option} {text}")
    return found


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def folder(text: str) -> Path:
    """Return the folder that a text names; an argparse type, which refuses an empty text."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name; expected a folder")
    return Path(text)


def check_writable(path: Path | None, option: str) -> None:
    """Raise ``InputError`` unless files can be written to the folder, made first where it is missing.

    What is made for the check is removed again. None is allowed.

    option  its name in errors
    """
    if path is None:
        return
    from moe_prompts.engine.files import reason

    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise InputError(f"{option} {path}: {reason(error)}; expected a folder you may write to") from error
    finally:
        for folder in missing:
            with suppress(OSError):  # was not made, or another process uses it by now
                folder.rmdir()


def default_folder(experiment: str) -> Path:
    """Return a new folder under ``results/`` here, named after experiment, time and process.

    Commands of one second differ by the process, and those of processes of one number by the time.
    """
    return Path("results") / f"{experiment}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"


def add_run(
    parser: argparse.ArgumentParser, draws: str = "entropy of all data and starts", seed: int | None = 0
) -> None:
    """Add the options that say which run it is and where it is kept.

    draws  what comes from the seed, for the help
    seed   default of ``--seed``
    """
    add = parser.add_argument_group("which run, and where it is kept").add_argument
    add("--seed", type=int, default=seed, help=draws if seed is None else f"{draws} (default {seed})")
    add("--out", type=folder, default=None, help="folder of the run (default: a new one under results/)")
    add("--resume", action="store_true", help="complete the run in --out")
    add(
        "--accept-code-change",
        action="store_true",
        help="with --resume: rows of changed code beside those of the old, noted in meta.json",
    )
    add("--clear", action="store_true", help="remove blocks that a killed command left in --out without meta.json")
    add("--insist", action="store_true", help="run more fits, or start more workers, than a mistake would ask for")


def allowed(arguments: argparse.Namespace) -> frozenset[str]:
    """Return what the options of ``add_run`` allow: ``allow`` of ``run_study``."""
    from moe_prompts.engine.store import ALLOWED

    return frozenset(word for word, option in ALLOWED.items() if getattr(arguments, option[2:].replace("-", "_")))


def check_run(arguments: argparse.Namespace) -> None:
    """Raise ``InputError`` if the options of ``add_run`` name no run."""
    if arguments.resume and arguments.out is None:
        raise InputError("--resume needs --out: the folder of the run to complete")
    check_seed(arguments.seed)


def check_seed(seed: int | None) -> None:
    """Raise ``InputError`` if the seed is negative; None is allowed."""
    if seed is not None and seed < 0:
        raise InputError(f"--seed {seed}; expected a whole number of at least 0")


def add_execution(parser: argparse.ArgumentParser, default: str = "all cores") -> None:
    """Add the options that say who runs the blocks of a study; the help says that ``default`` workers run."""
    add = parser.add_argument_group(COMPUTES).add_argument
    add("--workers", type=positive("workers"), default=None, help=f"processes (default: {default})")
    add("--executor", metavar="NAME", default=None, help="in-process, joblib (default) or dask; see docs/scaling.md")
    add(
        "--scheduler",
        metavar="ADDRESS",
        default=None,
        help="of a running dask scheduler (default: dask starts its own)",
    )


def add_shard(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--shard PART/PARTS``, which runs one part of the blocks only."""
    there = [group for group in parser._action_groups if group.title == COMPUTES]
    group = there[0] if there else parser.add_argument_group(COMPUTES)
    group.add_argument(
        "--shard", type=part, default=None, metavar="PART/PARTS", help="run this part of the blocks only, such as 1/4"
    )


def part(text: str) -> Part:
    """Return the part of a study that a text such as ``1/4`` names; an argparse type."""
    from moe_prompts.engine.grid import Part

    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no part; expected one such as 1/4")
    try:
        return Part(int(found[1]), int(found[2]))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def executor(arguments: argparse.Namespace) -> Executor:
    """Return the executor that ``--workers``, ``--executor`` and ``--scheduler`` ask for."""
    from moe_prompts.engine.executors import executor_for

    return executor_for(arguments.workers, arguments.executor, arguments.scheduler, arguments.insist)


def results(
    study: Study,
    out: Path,
    arguments: argparse.Namespace,
    program: str,
    first: Callable[[pd.DataFrame], str] | None = None,
) -> pd.DataFrame:
    """Run the study as the options say, and return its rows.

    With ``--shard`` it runs that part alone, prints how to go on, and exits with code 0.

    study      what to run
    out        folder of the run
    arguments  options of ``add_run``, ``add_execution`` and ``add_shard``
    program    name of the command in messages
    first      makes a text of the first rows, on the smallest data; it is written to first.md
    """
    from moe_prompts.engine.files import write_atomically
    from moe_prompts.engine.runner import run_part, run_study

    runs, allow = executor(arguments), allowed(arguments)

    def look(rows: pd.DataFrame) -> None:
        if first is not None:
            write_atomically(out / "first.md", (first(rows) + "\n").encode())
            print(f"a first table, of the smallest data: {out / 'first.md'}", file=sys.stderr)

    with resumable(program, out):
        if arguments.shard is None:
            return run_study(study, out, executor=runs, resume=arguments.resume, allow=allow, look=look)
        count = run_part(study, out, arguments.shard, executor=runs, resume=arguments.resume, allow=allow)
    print(
        f"part {arguments.shard}: its {count} blocks are in {out}. When all parts are there:\n"
        f"  {spelled('gather.py')} --out WHOLE {shlex.quote(str(out))} ...\n"
        f"and this command with --out WHOLE --resume, without --shard, for the table"
    )
    sys.exit(0)


def finish(
    out: Path,
    text: str,
    ending: Ending,
    tables: Mapping[str, str],
    draw: Callable[[], Sequence[Path]],
    rows: int | None,
    name: str = "summary.md",
) -> None:
    """End a study's command: write all that it leaves in ``out``, and print only then what it found.

    out     folder of the run
    text    all tables, for the file ``name``
    ending  what is printed of them
    tables  name of a file -> its text
    draw    saves the figures and returns their files, PDF and PNG in turn
    rows    number of rows in results.parquet; None: this folder has none, its rows are in folders of stages
    name    file of the text

    A closed pipe or a figure that fails thus loses no file.
    """
    from moe_prompts.engine.files import write_atomically

    for file, content in {name: text + "\n", **tables}.items():
        write_atomically(out / file, content.encode())
    figures = list(draw())
    files = {name: "all tables, in full", **dict.fromkeys(tables, "")}
    if rows is not None:
        files |= {"results.parquet": f"{rows} rows, one per fit or measurement", "meta.json": "how they were made"}
    files |= {figure.name: "figure" for figure in figures}
    print(f"{ending}\n")
    print_files(out, files)


def print_files(out: Path, files: Mapping[str, str]) -> None:
    """Print the folder, and below it the files that a command left there, each with what it holds."""
    print(f"files in {out}")
    width = max(map(len, files))
    for name, what in files.items():
        print(f"  {name.ljust(width)}  {what}".rstrip())


def fastest(function: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest of ``repeats`` calls: the one least disturbed by other programs."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


#: What stands before the name of a command in ``sys.argv[0]`` where it was called as ``moe-prompts NAME``.
CONSOLE = "moe-prompts "


def called(script: str) -> str:
    """Return how a command was called: ``moe-prompts NAME``, or the name of its script."""
    return sys.argv[0] if sys.argv and sys.argv[0].startswith(CONSOLE) else script


def spelled(script: str) -> str:
    """Return how to call another command in the same way, by the console command or by its script."""
    if called(script) == script:
        return f"python experiments/{script}"
    return CONSOLE + script.removesuffix(".py").replace("_", "-")


def in_checkout() -> bool:
    """Say whether this package lies in a clone of its repository."""
    return (Path(__file__).parents[1] / "pyproject.toml").is_file()


def checkout(folder: str) -> Path:
    """Return a folder of the checkout that this package lies in.

    Raises ``InputError`` where the package is installed without one, as from a wheel.
    """
    root = Path(__file__).parents[1]
    if not (root / "pyproject.toml").is_file():
        raise InputError(
            f"{folder}/ is written in a clone of the repository only; this package is installed without one"
        )
    return root / folder


class _Help(argparse.RawDescriptionHelpFormatter):
    """Write help in lines of at most 80 characters, also in a wide terminal."""

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, COLUMNS)
        super().__init__(prog, max_help_position=26, width=width)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Return the lines of an option's text; names such as stand-in:count stay whole."""
        return wrap(text, width, break_on_hyphens=False)


def hours_or_minutes(minutes: float) -> str:
    """Return a duration in words: minutes below an hour and a half, else hours."""
    return f"{minutes / 60:.1f} hours" if minutes >= 90 else f"{minutes:.1f} minutes"


def wrapped(text: str) -> list[str]:
    """Return the lines of a text, those that are too long broken below where their words begin."""
    lines: list[str] = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        broken = wrap(line, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        lines += broken or [""]
    return lines


def help_texts(text: str) -> tuple[str, str]:
    """Return a command's docstring as the description of its help and as its examples.

    Lines that begin with ``python experiments/`` are examples. Paragraphs are wrapped; a paragraph whose
    lines are indented stays as it is, but for lines that are too long.
    """
    described, examples = [], []
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        prose = [line for line in lines if not line.startswith(("python experiments/", CONSOLE))]
        examples += [line for line in lines if line not in prose]
        if prose and prose[0].startswith(" "):
            described.append("\n".join(_terms(prose)))
        elif prose:
            described.append(paragraph(" ".join(prose), COLUMNS - 2))
    shown = ["\n".join(_command(line)) for line in examples]
    return "\n\n".join(described), "examples:\n" + "\n".join(shown) if shown else ""


def _terms(lines: Sequence[str]) -> list[str]:
    """Return indented lines of a term and what it means, each wrapped below where its meaning begins."""
    starts = [re.match(r" +\S+  +", line) for line in lines]
    first = next((len(found[0]) for found in starts if found), 4)
    entries: list[str] = []
    for line, found in zip(lines, starts, strict=True):
        if found or not entries:
            entries.append(line.rstrip())
        else:
            entries[-1] += " " + line.strip()
    return [
        wrapped
        for entry in entries
        for wrapped in wrap(entry, COLUMNS - 2, subsequent_indent=" " * first, break_on_hyphens=False)
    ]


def _command(line: str) -> list[str]:
    """Return a command in lines that a shell puts together again; what stands after a # is above it."""
    line, _, told = (part.strip() for part in line.partition("  #"))
    parts = wrap(line, COLUMNS - 6, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    shown = [f"  {part} \\" for part in parts[:-1]] + [f"  {parts[-1]}"]
    return [f"  # {told}", *shown] if told else shown


def add_part(commands: Any, name: str, told: str, page: str, description: str | None = None) -> argparse.ArgumentParser:
    """Add a part of a command, as ``run`` of ``vtab``, with examples of its own, and return its parser.

    commands     what ``add_subparsers`` returned
    told         what it does, as the list of parts says it
    page         docstring of the command, whose examples of this part are shown
    description  what the help says at its head (default: ``told`` as a sentence)
    """
    lines = page.splitlines()
    examples = [line for line in lines if re.match(rf"python experiments/\w+\.py {re.escape(name)}(\s|$)", line)]
    text = description or f"{told[0].upper()}{told[1:]}."
    return commands.add_parser(name, help=told, description="\n\n".join([text, "\n".join(examples)]))


class OneLineParser(argparse.ArgumentParser):
    """Parse options, and report mistakes in one line with exit code 2, without the usage block.

    Help has at most 80 columns, the options in groups, and the examples of the description at its end.
    """

    def __init__(self, prog: str | None = None, **options: Any) -> None:
        text = options.get("description") or ""
        if prog is not None and prog.endswith(".py"):
            script, prog = prog, called(prog)
            text = text if prog == script else text.replace(f"python experiments/{script}", prog)
        elif prog is not None and prog.startswith(CONSOLE):
            name = prog.split()[1]
            text = text.replace(f"python experiments/{name.replace('-', '_')}.py", CONSOLE + name)
        options["description"], examples = help_texts(text)
        options = {"epilog": examples or None, "formatter_class": _Help, **options}
        super().__init__(prog, **options)
        self._positionals.title, self._optionals.title = "what it takes", "help"

    def format_usage(self) -> str:
        """Return the first line of the help: the options stand below it, in groups."""
        return self._short_usage()

    def format_help(self) -> str:
        """Return the help with a short usage line in place of the list of all options."""
        if self.usage is None:
            self.usage = self._short_usage().removeprefix("usage: ").strip().replace("%", "%%")
        return super().format_help()

    def _short_usage(self) -> str:
        needed = []
        for action in self._actions:
            if action.option_strings and action.required:
                needed.append(f"{action.option_strings[0]} {action.metavar or action.dest.upper()}")
            elif not action.option_strings:
                needed.append(_positional(action))
        return " ".join([f"usage: {self.prog}", *needed, "[options]"]) + "\n"

    def error(self, message: str):
        """End the command with the message and code 2."""
        complain(f"{self.prog}: {InputError(message)} (see --help)")
        self.exit(BAD_INPUT)


def _positional(action: argparse.Action) -> str:
    if isinstance(action, argparse._SubParsersAction):
        return "{" + ",".join(action.choices) + "}"
    name = str(action.metavar or action.dest)
    return f"{name} [{name} ...]" if action.nargs == "+" else name


def extra_of(module: str | None) -> str | None:
    """Return the extra of the project that brings a module; None for what no extra brings."""
    top = (module or "").split(".")[0]
    return next((extra for extra, modules in EXTRAS.items() if top in modules), None)


def run(main: Callable[[], None], program: str) -> None:
    """Call ``main``, and end what goes wrong with one line.

    Bad input and what the system refuses have code 2, Ctrl-C has code 130. What a terminal's locale cannot
    show is printed as an escape, so that printing never ends a run. Where the reader of a pipe is gone, the
    command ends without a word, as its files are written by then.
    """
    program = called(program)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except InputError as error:
        # Functions name themselves in their errors, and some have the name of their command.
        name = program.removeprefix(CONSOLE).removesuffix(".py")
        complain(f"{program}: {str(error).removeprefix(f'{name}: ')}")
        sys.exit(BAD_INPUT)
    except ModuleNotFoundError as error:
        extra = extra_of(error.name)
        if extra is None:
            raise
        complain(
            f"{program}: needs {error.name}, which is not installed: it comes with the extra {extra}, pip install -e "
            f'".[{extra}]" -c requirements.lock'
        )
        sys.exit(BAD_INPUT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more at its end
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        from moe_prompts.engine.files import reason, remedy

        what = f"{error.filename}: " if error.filename else ""
        line = InputError(f"{what}{reason(error)}; {remedy(error)}, and repeat the command")
        complain(f"{program}: {line}")
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        leave_quietly()
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def complain(line: str) -> None:
    """Print a line to stderr: whole, or in lines of at most 80 columns where a terminal shows it."""
    print(as_message(line, sys.stderr.isatty()), file=sys.stderr)


def leave_quietly() -> None:
    """Say nothing of objects that an interrupt left half made and that complain when they are freed."""
    sys.unraisablehook = lambda complaint: None


@contextmanager
def resumable(program: str, out: Path) -> Iterator[None]:
    """Hold a run in ``out``: Ctrl-C ends it with a line that says how to go on, and code 130.

    What a killed command left half written in ``out`` itself, beside the folders of its studies, is removed.
    """
    from moe_prompts.engine.files import clear_left

    program = called(program)
    clear_left(out)
    try:
        yield
    except KeyboardInterrupt:
        leave_quietly()
        complain(
            f"{program}: interrupted; finished blocks are kept: to complete them repeat the command with "
            f"--out {shlex.quote(str(out))} --resume"
        )
        sys.exit(INTERRUPTED)
