"""What `pyproject.toml` cannot say: the hot rooms compiled by mypyc where there is a C compiler, and the image of the
gates built by LLVM, both when a wheel is made. Whatever of it fails costs speed, or a build at the first start, and is
reported; the package works without.

`WASMFORGE_COMPILE=0` leaves the rooms as they are, `WASMFORGE_COMPILE=1` makes a failure to compile them an error. An
editable installation is always uncompiled, since extension modules beside the sources would hide every later edit.
"""

from __future__ import annotations

import atexit
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("src", "wasmforge")
ROOMS = ("binary", "validation", "compiler/baseline")
"""Every module of these is compiled, in one group: so calls between them are C calls. `wasmforge.cli.version` reports
which form runs. No room belongs here that a process needs which maps an image from the cache, because loading the
library of the group takes longer than all of that process's imports."""

UNCOMPILED = {"__init__.py", "buffer.py", "words.py"}
"""`buffer` and `words` are the uncompiled forms of classes that mypyc brings along."""

GATES = PACKAGE / "runtime" / "native" / "gates.bin"

# Not the checkout's own `build`: setuptools puts whatever lies there into the wheel, files of deleted modules too.
WORK = Path(tempfile.mkdtemp(prefix="wasmforge-build-"))
atexit.register(shutil.rmtree, WORK, ignore_errors=True)


def report(message: str) -> None:
    """To the log of the build, which pip shows with `-v` and when the build fails."""
    print(f"wasmforge: {message}", file=sys.stderr, flush=True)


class PlatformDistribution(Distribution):
    """The gates are machine code, so that a wheel is for one platform even where nothing was compiled by mypyc."""

    def has_ext_modules(self) -> bool:
        return True


class BuildFrontEnd(build_ext):
    """All modules of the rooms, or none. Half of them would be an installation that cannot be imported, therefore they
    are built in a directory of their own and copied when everything went well."""

    staged: list[Path] = []

    def run(self) -> None:
        choice = os.environ.get("WASMFORGE_COMPILE", "")
        if self.inplace or self.editable_mode:
            report("an editable installation runs the front end uncompiled")
        elif choice == "0":
            report("the front end stays uncompiled, as WASMFORGE_COMPILE=0 asks")
        else:
            try:
                self.compile_rooms()
            except (Exception, SystemExit) as error:  # mypyc leaves with SystemExit when it refuses a file
                if choice == "1":
                    raise
                report(f"THE FRONT END STAYS UNCOMPILED, decoding and compiling are six times slower: {error}")

    def compile_rooms(self) -> None:
        self.probe_compiler()
        from mypyc.build import mypycify

        os.chdir(ROOT)
        rooms = [sorted((PACKAGE / room).glob("*.py")) for room in ROOMS]
        sources = [str(path) for files in rooms for path in files if path.name not in UNCOMPILED]
        # A fixed name, or an update would leave the library of the last version behind.
        extensions = mypycify(
            sources, opt_level="3", debug_level="0", target_dir=str(WORK / "c"), group_name="wasmforge"
        )
        for extension in extensions:
            # What a later C compiler warns of is no reason to be slow.
            extension.extra_compile_args = [o for o in extension.extra_compile_args if o != "-Werror"]
        self.build_staged(extensions)
        for path in sorted((WORK / "lib").rglob("*")):
            if path.is_file():
                target = Path(self.build_lib, path.relative_to(WORK / "lib"))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
                self.staged = [*self.staged, target]
        report(f"compiled {len(sources)} modules of the front end")

    def build_staged(self, extensions: list[Extension]) -> None:
        inner = build_ext(Distribution({"name": "wasmforge", "ext_modules": extensions}))
        inner.build_lib = str(WORK / "lib")
        inner.build_temp = str(WORK / "objects")
        inner.parallel = os.cpu_count() or 1
        inner.ensure_finalized()
        inner.run()

    def probe_compiler(self) -> None:
        """Fails within a moment where there is no C compiler, or no header of Python: mypyc itself takes longer."""
        probe = WORK / "probe.c"
        probe.write_text("#include <Python.h>\nint wasmforge_probe;\n")
        try:
            self.build_staged([Extension("wasmforge_probe", [str(probe)])])
        except Exception as error:
            raise RuntimeError(f"no C compiler that finds Python.h ({error})") from error
        shutil.rmtree(WORK / "lib", ignore_errors=True)

    def get_outputs(self) -> list[str]:
        return [str(path) for path in self.staged]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class BuildWithGates(build_py):
    """Adds the image of the gates, keyed by the sources just copied. An installation then needs no llvmlite."""

    gates: list[str] = []

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib).resolve() / GATES.relative_to("src")
        reason = build_gates(target)
        if reason:
            report(f"THE GATES ARE NOT IN THIS WHEEL, so the first start needs llvmlite: {reason}")
        else:
            self.gates = [str(target)]
            report(f"built the gates ({target.stat().st_size} bytes)")

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return super().get_outputs(include_bytecode) + self.gates


def build_gates(target: Path) -> str:
    """Writes the image. Returns why it could not, or an empty string."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"they are for x86-64 Linux, this is {sys.platform} on {platform.machine()}"
    library = target.parents[3]
    code = (
        f"import sys; sys.path.insert(0, {str(library)!r}); sys.dont_write_bytecode = True\n"
        "from wasmforge.runtime.native.build import main\n"
        f"sys.exit(main([{str(target)!r}]))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    if child.returncode == 0 and target.is_file():
        target.chmod(0o644)
        return ""
    lines = child.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {child.returncode}"


setup(
    distclass=PlatformDistribution,
    cmdclass={"build_ext": BuildFrontEnd, "build_py": BuildWithGates},
    options={"build": {"build_base": str(WORK / "build")}},
)
