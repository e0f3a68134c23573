"""The file operations of a command, counted, one of which fails or is the command's last.

    python file_faults.py FOLDER SCENE STEP [lasting]

For every STEP-th operation of a small study (SCENE study), or of the gathering of its parts (SCENE gather), and each
kind of fault a process is forked that runs the command with the fault; a second one runs what completes it. Prints the
operations, the number of faults and what was not as it should be, as JSON.

An operation is a call of ``os``, of ``open`` or of a file's own that names a run's folder or a file below it; each
write, read and close of a file is one. Arrow reads and writes through files that Python opened.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from unittest import mock

#: None: the process ends at once.
KINDS = {"crash": None} | {name: getattr(errno, name) for name in ("ENOSPC", "EIO", "EACCES", "ESTALE")}
CALLS = ("open", "close", "stat", "lstat", "fstat", "mkdir", "unlink", "remove", "rmdir", "replace", "rename", "link")
CALLS += ("scandir", "listdir", "fsync", "fdatasync", "ftruncate", "chmod", "utime")
KILLED = 99


@dataclass
class Operations:
    """Counts operations below ``folder``; number ``at`` of them (from 0) fails, or ends the process.

    ``lasting``: all after it fail as well, as on a disk that stays full or away.
    """

    folder: str
    at: int = -1
    kind: int | None = None
    lasting: bool = False
    seen: list[str] = field(default_factory=list)

    def fault(self, name: str, what: object) -> OSError | None:
        """Count an operation; return its error if it is to fail."""
        path = self.path(what)
        if path is None:
            return None
        number = len(self.seen)
        self.seen.append(f"{name} {os.path.relpath(path, self.folder)}")
        if number != self.at and not (self.lasting and number > self.at >= 0):
            return None
        return OSError(0 if self.kind is None else self.kind, os.strerror(self.kind or 0), path)

    def end(self, error: OSError) -> None:
        """Carry a fault out."""
        if self.kind is None:
            os._exit(KILLED)
        raise error

    def path(self, what: object) -> str | None:
        if isinstance(what, int):
            try:
                what = os.readlink(f"/proc/self/fd/{what}")
            except OSError:
                return None
        path = os.path.abspath(os.fsdecode(what)).removesuffix(" (deleted)")
        return path if path == self.folder or path.startswith(self.folder + "/") else None


def counted(operations: Operations, name: str, call: Callable) -> Callable:
    @wraps(call)
    def wrapper(what=".", *others, **options):
        if isinstance(what, str | bytes | int | os.PathLike) and (error := operations.fault(name, what)):
            if name == "close":
                call(what)  # it is closed, whatever it says
            operations.end(error)
        return call(what, *others, **options)

    return wrapper


def file_type(operations: Operations) -> type:
    class Raw(io.FileIO):
        """Half of a write that fails is on the disk."""

        def __init__(self, what, mode):
            super().__init__(what, mode)
            self.what = os.fspath(what) if not isinstance(what, int) else os.readlink(f"/proc/self/fd/{what}")

        def _tell(self, name):
            if error := operations.fault(name, self.what):
                operations.end(error)

        def write(self, content):
            if error := operations.fault("write", self.what):
                super().write(memoryview(content)[: len(content) // 2])
                operations.end(error)
            return super().write(content)

        def readinto(self, buffer):
            self._tell("read")
            return super().readinto(buffer)

        def readall(self):
            self._tell("read")
            return super().readall()

        def truncate(self, size=None):
            self._tell("truncate")
            return super().truncate(size)

        def close(self):
            error = None if self.closed else operations.fault("close", self.what)
            super().close()
            if error:
                operations.end(error)

    return Raw


@contextmanager
def watched(operations: Operations):
    """Within it, every operation is counted."""
    Raw, plain = file_type(operations), builtins.open

    def opened(what, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **options):
        if operations.path(what) is None:
            return plain(what, mode, buffering, encoding, errors, newline, **options)
        if not isinstance(what, int) and (error := operations.fault(f"open-{mode}", what)):
            operations.end(error)
        raw = Raw(what, mode.replace("b", "").replace("t", ""))
        buffered = (
            io.BufferedRandom(raw) if "+" in mode else io.BufferedReader(raw) if "r" in mode else io.BufferedWriter(raw)
        )
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline)

    with ExitStack() as stack:
        for name in CALLS:
            stack.enter_context(mock.patch.object(os, name, counted(operations, name, getattr(os, name))))
        flock = counted(operations, "flock", fcntl.flock)
        stack.enter_context(mock.patch.object(fcntl, "flock", lambda file, how: flock(file.fileno(), how)))
        for module in (builtins, io):
            stack.enter_context(mock.patch.object(module, "open", opened))
        yield operations


def forked(action: Callable[[], object], said: Path) -> int:
    """Run ``action`` in a process of its own, as a command does; return its exit code, with what it said in a file."""
    if (child := os.fork()) == 0:
        code = 1
        try:
            descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            action()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def study():
    from fault_cases import toys

    return toys(*[""] * 5)


def run(folder: Path) -> None:
    """Begin the study in ``folder``, or resume it there."""
    from moe_prompts import run_study

    run_study(study(), folder, resume=(folder / "meta.json").exists(), progress=False)


def prepare_parts(folder: Path) -> None:
    from moe_prompts.engine.grid import Part
    from moe_prompts.engine.runner import run_part

    for number in (1, 2):
        run_part(study(), folder / f"part{number}", Part(number, 2), progress=False)


def gathered(folder: Path, allow: tuple[str, ...] = ()) -> None:
    from moe_prompts.engine.store import gather

    gather(folder / "whole", [folder / "part1", folder / "part2"], allow)


def completed(folder: Path) -> None:
    """A gather that was killed has left blocks without meta.json, or is done."""
    if not (folder / "whole" / "meta.json").exists():
        gathered(folder, ("clear",))
    run(folder / "whole")


@dataclass(frozen=True)
class Scene:
    """What is there before, the command that gets a fault, what completes it, and where its table is then."""

    prepare: Callable[[Path], None]
    begin: Callable[[Path], None]
    complete: Callable[[Path], None]
    table: str


SCENES = {
    "study": Scene(lambda folder: None, lambda folder: run(folder / "run"), lambda folder: run(folder / "run"), "run"),
    "gather": Scene(prepare_parts, gathered, completed, "whole"),
}


def command(action: Callable[[Path], None], folder: Path, operations: Operations | None = None) -> Callable[[], None]:
    """``action`` as a command, which says what is wrong in one line."""
    from moe_prompts import cli

    def called() -> None:
        with ExitStack() as stack:
            if operations is not None:
                stack.enter_context(watched(operations))
            cli.run(lambda: action(folder), "it")

    return called


def temporary(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name.endswith(".tmp"))


@dataclass
class Trials:
    """Faults in copies of one folder, and what was not as it should be."""

    scene: Scene
    before: Path
    folder: Path
    said: Path
    whole: bytes

    def wrong(self, operations: Operations) -> str:
        """Carry out one fault; return what was not as it should be after it, or nothing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.before, self.folder)
        code = forked(command(self.scene.begin, self.folder, operations), self.said)
        text = self.said.read_text()
        if operations.kind is None:
            if code not in (KILLED, 0):
                return f"exit code {code}: {text}"
        elif code not in (0, 2) or text.count("\n") != (code == 2) or (code == 2) != text.startswith("it: "):
            return f"exit code {code}, {text.count(chr(10))} lines: {text}"
        elif not operations.lasting and (left := temporary(self.folder)):
            return f"left after the fault: {left}"
        return self.completed()

    def completed(self) -> str:
        code = forked(command(self.scene.complete, self.folder), self.said)
        if code or self.said.read_text():
            return f"resumed: exit code {code}: {self.said.read_text()}"
        if left := temporary(self.folder):
            return f"left after resume: {left}"
        from moe_prompts.engine.store import read_table

        read_table(self.folder / self.scene.table)  # with its sha256
        content = (self.folder / self.scene.table / "results.parquet").read_bytes()
        return "" if content == self.whole else "another table"


def main(folder: Path, scene: Scene, step: int, lasting: bool) -> dict:
    sys.path.insert(0, str(Path(__file__).parent))
    from moe_prompts.engine import runner, store

    runner.SEGMENT = 4  # ten blocks: two segments and two blocks of their own
    runner.SYNCED_FROM = 0.0  # as for blocks that take long
    store._git_commit = lambda: None  # no file of the folder, and most of the time
    folder = folder.resolve()
    run(folder / "warm")  # what all processes inherit
    whole = (folder / "warm" / "results.parquet").read_bytes()
    (folder / "before").mkdir()
    scene.prepare(folder / "before")
    counting = Operations(str(folder / "counted"))
    shutil.copytree(folder / "before", folder / "counted")
    with watched(counting):
        scene.begin(folder / "counted")
    trials = Trials(scene, folder / "before", folder / "trial", folder / "said", whole)
    faults, wrong = 0, []
    for number, (kind, code) in enumerate(KINDS.items()):
        if lasting and code is None:
            continue
        # Thinned runs take other operations for each kind.
        for at in range(number * step // len(KINDS), len(counting.seen), step):
            faults += 1
            if text := trials.wrong(Operations(str(trials.folder), at, code, lasting)):
                wrong.append(f"{kind} at {at}, {counting.seen[at]}: {text}")
    return {"operations": counting.seen, "faults": faults, "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), SCENES[sys.argv[2]], int(sys.argv[3]), "lasting" in sys.argv)))
