"""An unmodified executable as a simulation: input files from templates, results from its files."""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from ensemblerl.records import Program
from ensemblerl.simulations import invocation, limits
from ensemblerl.simulations.executables import environment_for, find, from_here
from ensemblerl.simulations.inputs import files_of, fill, templates_of
from ensemblerl.simulations.program import run_program
from ensemblerl.simulations.reading import read_all, readers_of
from ensemblerl.simulations.rendering import BUILTIN, Renderer, argument, inline_of, variable
from ensemblerl.simulations.telling import brief, described, hashed
from ensemblerl.simulations.workdir import scratch_directory, written

OURS = ("attempt", "cores", "number", "point", "restarted", "seed", "threads")
"""Names that templates have besides parameters and constants."""
KEEP = ("failures", "all", "nothing")


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Command:
    r"""A program that is started in a working directory of its own, once for each member.

    Templates, arguments and environment are Jinja2 with the parameters of the point, ``seed``,
    ``number`` and ``attempt`` of the member, ``restarted``, ``cores``, ``threads``, ``point`` (all
    parameters as one mapping), and the constants. A name that none of these gives is an error.

    Parameters
    ----------
    arguments : list of texts, or one text as for a shell, but for what a shell does with > < | &
        and ; (for these: ``["sh", "-c", "..."]``). The executable first: a name on the worker's
        PATH or beside its Python, or a path (looked for in the working directory first)
    reads : a reader such as ``readers.Json("out.json")``, a callable of the working directory (a
        `pathlib.Path`) that returns a mapping or an `xarray.Dataset`, or a list of them
    templates : name in the working directory -> the text itself, or a `pathlib.Path` of it;
        executable when it begins with "#!". They may include each other by these names; one that
        is included is a part of the other, and no file of its own
    files : copied as they are: name in the working directory -> path, or a list of paths; a
        directory stands for all files in it
    environment : name -> text, on top of the worker's environment without its MPI rank, if any
    launcher : in front of the arguments, such as ``"mpiexec -n {cores}"``
    constants : name -> numbers, texts, lists and mappings of them, for the templates
    cores : processor cores that one run uses
    threads : of numerical libraries, by OMP_NUM_THREADS and its like; None: ``cores``, and 1
        where there is a launcher
    memory : bytes, or text such as ``"2 GB"``, that all processes of one run may hold together
    timeout : seconds that a run may take
    retries : how often a run that failed is run again
    scratch : directory for the working directories, such as ``"$TMPDIR"``; None: in the store
    keep : the working directories that stay: of ``"failures"``, of ``"all"``, or ``"nothing"``
    checkpoint : the program writes files from which it can go on. The working directory of an
        attempt that was lost (its job's time was over, its node went down, the campaign was
        stopped) is then handed to the next attempt, templates and files written anew; what is
        printed goes on in ``stdout`` and ``stderr``. ``restarted`` is True where the program finds
        files of its own there. An attempt that failed leaves nothing
    version : of what is run; None: a hash of arguments, templates, files, environment, launcher,
        constants, readers and checkpoint (not of the executable, which may differ from worker to
        worker)
    max_result_bytes : larger results (after ``Goal.reduce``) are invalid

    Raises
    ------
    ValueError, FileNotFoundError
        naming the argument, what was wanted and what came

    Examples
    --------
    >>> from ensemblerl.simulations.readers.regex import Regex
    >>> double = Command(["expr", "2", "*", "{{ x }}"], reads=Regex("stdout", r"(?P<y>\S+)"))
    >>> float(double({"x": 21}, seed=1)["y"])
    42.0
    """

    arguments: tuple[str, ...]
    _: KW_ONLY
    reads: tuple[Callable[[Path], Any], ...]
    templates: dict[str, str]
    files: dict[str, str]
    environment: dict[str, str]
    launcher: str
    constants: dict[str, Any]
    cores: int
    threads: int | None
    memory: int | None
    timeout: float | None
    retries: int
    scratch: str | None
    keep: str
    checkpoint: bool
    version: str | None
    max_result_bytes: int
    _renderer: Renderer = field(init=False)
    _executable: str = field(init=False)

    def __init__(
        self,
        arguments: str | Iterable[str | os.PathLike[str]],
        *,
        reads: Callable[[Path], Any] | Sequence[Callable[[Path], Any]],
        templates: Mapping[str, str | os.PathLike[str]] | None = None,
        files: Mapping[str, str | os.PathLike[str]] | Iterable[str | os.PathLike[str]] = (),
        environment: Mapping[str, str] | None = None,
        launcher: str = "",
        constants: Mapping[str, Any] | None = None,
        cores: int = 1,
        threads: int | None = None,
        memory: int | str | None = None,
        timeout: float | None = None,
        retries: int = 0,
        scratch: str | os.PathLike[str] | None = None,
        keep: str = "failures",
        checkpoint: bool = False,
        version: str | None = None,
        max_result_bytes: int = 2**28,
    ) -> None:
        put = vars(self)
        put["arguments"] = invocation.arguments_of(arguments)
        put["reads"] = readers_of(reads)
        put["templates"] = templates_of({} if templates is None else templates)
        put["files"] = files_of(files, self.templates)
        put["environment"] = invocation.environment_of({} if environment is None else environment)
        put["launcher"] = invocation.launcher_of(launcher)
        put["constants"] = invocation.constants_of(
            {} if constants is None else constants, {*OURS, *BUILTIN}
        )
        put["cores"] = limits.whole("cores", cores, least=1)
        put["threads"] = None if threads is None else limits.whole("threads", threads, least=1)
        put["memory"] = limits.size("memory", memory)
        put["timeout"] = limits.seconds("timeout", timeout)
        put["retries"] = limits.whole("retries", retries, least=0)
        put["scratch"] = limits.directory("scratch", scratch)
        put["keep"] = limits.one_of("keep", keep, KEEP)
        put["checkpoint"] = invocation.yes_or_no("checkpoint", checkpoint)
        put["max_result_bytes"] = limits.whole("max_result_bytes", max_result_bytes, least=1)
        put["_renderer"] = Renderer(self.templates, inline_of(self.arguments, self.environment))
        put["_executable"] = from_here(self.arguments[0])
        if version is not None and not isinstance(version, str):
            raise ValueError(f"version: wanted text or None, got {version!r}")
        put["version"] = hashed(self) if version is None else version

    def __call__(
        self, point: Mapping[str, Any], *, seed: int, member: Mapping[str, Any] | None = None
    ) -> Any:
        """Run one member here, in a temporary directory: to try it out.

        A campaign runs members by `prepare` and `read`, under a supervisor. That also keeps to
        ``memory``, survives the end of this process, and ends every process of the member. Here,
        one that the program puts into a session of its own and leaves behind goes on.

        Raises
        ------
        ProgramFailed
            it ended with another exit code than 0, or by a signal
        TimedOut
            it took longer than ``timeout`` seconds
        FileNotFoundError
            no such executable here
        InvalidResult
            the files that it left do not hold what the readers want
        """
        parent = None if self.scratch is None else scratch_directory(self.scratch)
        with tempfile.TemporaryDirectory(prefix="ensemblerl-", dir=parent) as made:
            directory = Path(made)
            program = self.prepare(point, seed=seed, member=member or {}, directory=directory)
            run_program(program, directory, self.timeout)
            return self.read(directory)

    def prepare(
        self,
        point: Mapping[str, Any],
        *,
        seed: int,
        member: Mapping[str, Any],
        directory: Path,
    ) -> Program:
        """Fill the working directory; the program to start in it."""
        restarted = self.checkpoint and written(directory, {*self.templates, *self.files})
        context = {**self._context(point, seed, member), "restarted": restarted}
        files = [name for name in self.templates if name not in self._renderer.parts]
        texts = {name: self._renderer.render(name, context) for name in files}
        own = {name: self._renderer.render(variable(name), context) for name in self.environment}
        words = [self._renderer.render(argument(word), context) for word in self.arguments]
        if words[0] == self.arguments[0] and not (directory / words[0]).exists():
            words[0] = self._executable
        environment = environment_for(self.n_threads, own)
        for name in (*texts, *self.files):  # what was copied read-only cannot be written over
            (directory / name).unlink(missing_ok=True)
        fill(directory, texts, self.files)
        launcher = shlex.split(self.launcher.format(cores=self.cores, threads=self.n_threads))
        for name, line in (("arguments", words), ("launcher", launcher)):
            if line:
                line[0] = find(line[0], directory, environment["PATH"], argument=name)
        return Program((*launcher, *words), environment)

    def read(self, directory: Path) -> Any:
        """What the readers find in the working directory of a program that ended well."""
        return read_all(self.reads, directory)

    @property
    def n_threads(self) -> int:
        """Threads of one process of the program, as its environment says."""
        if self.threads is not None:
            return self.threads
        return 1 if self.launcher else self.cores

    def uses(self) -> dict[str, frozenset[str]]:
        """In words where (a template, an argument, the environment) -> names looked up there."""
        return self._renderer.uses()

    def gives(self) -> frozenset[str]:
        """Names that are there without a parameter: ours, the constants, those of Jinja2."""
        return frozenset([*OURS, *BUILTIN, *self.constants])

    def describe(self) -> dict[str, Any]:
        """Name, version, and all arguments, the texts of templates and hashes of files: JSON."""
        return described(self)

    def __repr__(self) -> str:
        return brief(self)

    def _context(
        self, point: Mapping[str, Any], seed: int, member: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {
            **point,
            **self.constants,
            "point": dict(point),
            "seed": seed,
            "number": member.get("number", 0),
            "attempt": member.get("attempt", 1),
            "cores": self.cores,
            "threads": self.n_threads,
        }
