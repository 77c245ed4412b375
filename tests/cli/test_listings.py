"""`settings`, `config new` and `completion`: what they write is what the tables say, and what reads it accepts it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wasmforge.cli import SUBCOMMANDS
from wasmforge.cli.completion import _commands
from wasmforge.cli.list_settings import default
from wasmforge.cli.settings import GROUPS, SETTINGS
from wasmforge.runtime.cache.settings import default_settings, load_settings

from .conftest import Result


class TestSettings:
    def test_every_setting_has_a_line_with_its_default(self, run: Callable[..., Result]) -> None:
        result = run("settings")
        assert (result.status, result.err) == (0, "")
        rows = {line.split()[0]: line.split()[1] for line in result.out.splitlines() if line.startswith("  ")}
        assert set(rows) == {setting.name for settings in SETTINGS.values() for setting in settings}
        # Some of Wasmtime's (reference, tables E3 to E7), and what is not limited.
        assert rows["memory-guard-size"] == str(32 << 20)
        assert rows["max-wasm-stack"] == str(512 << 10)
        assert (rows["simd"], rows["custom-page-sizes"], rows["fuel"]) == ("y", "n", "-")

    def test_defaults_are_accepted_and_change_nothing(self) -> None:
        from wasmforge.cli.options import parse
        from wasmforge.cli.run import OPTIONS
        from wasmforge.cli.settings import parse_groups
        from wasmforge.config import Config

        words = []
        for group, settings in SETTINGS.items():
            for setting in settings:
                value = default(setting)
                words += ["-" + group[1:], f"{setting.name}={value}"] if value is not None else []
        config = parse_groups(parse(words, OPTIONS)).make_config()
        assert config._consume() == Config()._consume()

    def test_json(self, run: Callable[..., Result]) -> None:
        found = json.loads(run("settings", "--json").out)
        assert found["triple"].startswith("x86_64")
        assert set(found["settings"]) == {name[2:] for name, _, _ in GROUPS.values()}
        assert {"name": "bulk-memory", "default": "y", "description": "bulk memory operations"} in found["settings"][
            "wasm"
        ]

    def test_refusals(self, run: Callable[..., Result]) -> None:
        assert run("settings", "--target", "riscv64gc-unknown-linux-gnu").status == 2
        assert run("settings", "x").status == 2


class TestConfigNew:
    def test_the_file_says_what_holds_without_it(self, run: Callable[..., Result], tmp_path: Path) -> None:
        result = run("config", "new", "deep/er/cache.toml")
        path = tmp_path / "deep" / "er" / "cache.toml"
        assert result == Result(0, f"Successfully created a new configuration file at {path}\n", "")
        uncommented = path.read_text().replace("# d", "d").replace("# f", "f")
        assert "directory = " in uncommented
        for text in (path.read_text(), uncommented):
            path.write_text(text)
            settings = load_settings(str(path))
            assert settings is not None
            for name in ("size_limit", "size_percent", "count_limit", "count_percent"):
                assert getattr(settings, name) == getattr(default_settings(), name)
        assert run("-C", "cache-config=deep/er/cache.toml", "(module)").status == 0

    def test_a_file_that_exists_is_left_alone(self, run: Callable[..., Result], tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("mine")
        result = run("config", "new", "mine")
        assert result.status == 1
        assert "it exists already" in result.err
        assert (tmp_path / "mine").read_text() == "mine"

    def test_the_default_place(
        self, run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        assert run("config", "new").status == 0
        assert (tmp_path / "wasmforge" / "config.toml").exists()

    def test_a_hostile_directory_name_stays_one_string(self) -> None:
        import tomllib

        from wasmforge.cli.cache_config import _quoted

        name = '/a"\nenabled = false\n\\\x1b'
        assert tomllib.loads(f"directory = {_quoted(name)}") == {"directory": name}

    @pytest.mark.parametrize("words", [(), ("old",), ("new", "a", "b")])
    def test_refusals(self, run: Callable[..., Result], words: tuple[str, ...]) -> None:
        assert run("config", *words).status == 2


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_every_command_option_and_setting_is_there(self, run: Callable[..., Result], shell: str) -> None:
        result = run("completion", shell)
        assert (result.status, result.err) == (0, "")
        for command, (_, options) in _commands().items():
            assert command in result.out
            for option in options:
                assert (f"-l {option.name[2:]} " if shell == "fish" else option.name) in result.out
        for settings in SETTINGS.values():
            assert all(setting.name in result.out for setting in settings)
        assert "--record" not in result.out  # it does not work

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_the_shell_reads_it(self, run: Callable[..., Result], tmp_path: Path, shell: str) -> None:
        program = shutil.which(shell)
        if program is None:
            pytest.skip(f"{shell} is not installed")
        script = tmp_path / "script"
        script.write_text(run("completion", shell).out)
        subprocess.run([program, "-n", script], check=True, timeout=20)

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("wasmforge va", "validate"),
            ("wasmforge run -W max-m", "max-memory-size= max-memories="),
            ("wasmforge --wasm fu", "fuel= function-references"),
            ("wasmforge run --inv", "--invoke"),
            ("wasmforge --inv", "--invoke"),
            ("wasmforge compile --inv", ""),
            ("wasmforge cache cl", "clear"),
            ("wasmforge completion z", "zsh"),
        ],
    )
    def test_bash_completes(self, run: Callable[..., Result], tmp_path: Path, line: str, expected: str) -> None:
        program = shutil.which("bash")
        if program is None:
            pytest.skip("bash is not installed")
        (tmp_path / "script").write_text(run("completion", "bash").out)
        test = (
            'source ./script; compopt() { :; }; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _wasmforge; '
            'echo "${COMPREPLY[*]}"'
        )
        out = subprocess.run([program, "-c", test, "-", *line.split()], capture_output=True, text=True, timeout=20)
        assert (out.stdout, out.stderr) == (expected + "\n", "")

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("wasmforge va", "wasmforge validate "),
            ("wasmforge run -W max-m", "wasmforge run -W max-memor"),
            ("wasmforge --wasm=fue", "wasmforge --wasm=fuel="),
            ("wasmforge -W fuel=1,max-memori", "wasmforge -W fuel=1,max-memories="),
            ("wasmforge a.wasm --inv", "wasmforge a.wasm --invoke="),
            ("wasmforge compile --inv", "wasmforge compile --inv"),
            ("wasmforge run --dir a.w", "wasmforge run --dir a.wasm "),
            ("wasmforge cache cl", "wasmforge cache clear "),
        ],
    )
    def test_zsh_completes(self, run: Callable[..., Result], tmp_path: Path, line: str, expected: str) -> None:
        program = shutil.which("zsh")
        if program is None:
            pytest.skip("zsh is not installed")
        (tmp_path / "_wasmforge").write_text(run("completion", "zsh").out)
        (tmp_path / "a.wasm").touch()
        assert Zsh(program, tmp_path).complete(line) == expected

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("wasmforge va", ["validate"]),
            ("wasmforge run -W max-m", ["max-memories=", "max-memory-size="]),
            ("wasmforge --wasm=fue", ["--wasm=fuel="]),
            ("wasmforge a.wasm --inv", ["--invoke"]),
            ("wasmforge compile --inv", []),
            ("wasmforge cache cl", ["clear"]),
        ],
    )
    def test_fish_completes(self, run: Callable[..., Result], tmp_path: Path, line: str, expected: list[str]) -> None:
        program = shutil.which("fish")
        if program is None:
            pytest.skip("fish is not installed")
        (tmp_path / "script").write_text(run("completion", "fish").out)
        command = [program, "-c", "source script; complete -C $argv[1]", line]
        environment = {**os.environ, "HOME": str(tmp_path)}
        out = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=20, check=True
        )
        assert [found.partition("\t")[0] for found in out.stdout.splitlines()] == expected

    @pytest.mark.parametrize("words", [(), ("elvish",), ("powershell",), ("tcsh",), ("bash", "zsh")])
    def test_refusals(self, run: Callable[..., Result], words: tuple[str, ...]) -> None:
        assert run("completion", *words).status == 2


class Zsh:
    """An interactive shell on a terminal of its own, which says what the tab key makes of a line."""

    SETUP = (
        'fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; tell() { print -r -- "$BUFFER" > .line }; '
        "zle -N tell; bindkey '^X' tell; zstyle ':completion:*' insert-tab false; : > .ready\n"
    )

    def __init__(self, program: str, directory: Path) -> None:
        self.program = program
        self.directory = directory

    def complete(self, line: str) -> str:
        child, self.terminal = pty.fork()
        if not child:
            try:
                os.chdir(self.directory)
                os.execv(self.program, ["zsh", "-f", "-i"])
            finally:
                os._exit(1)
        try:
            self.send(self.SETUP, ".ready")
            return self.send(f"{line}\t\x18", ".line").removesuffix("\n")
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(self.terminal)

    def send(self, keys: str, answer: str) -> str:
        """Types, and waits for a file with contents, or for an empty one where the name says that it is a sign."""
        os.write(self.terminal, keys.encode())
        path = self.directory / answer
        deadline = time.monotonic() + 20
        while not path.exists() or (answer == ".line" and not path.read_text().endswith("\n")):
            assert time.monotonic() < deadline, f"zsh does not answer {keys!r}"
            if select.select([self.terminal], [], [], 0.02)[0]:
                os.read(self.terminal, 65536)
        return path.read_text()


def test_every_subcommand_has_a_module_with_help(run: Callable[..., Result]) -> None:
    for command in SUBCOMMANDS:
        assert f"Usage: wasmforge {command}" in run(command, "--help").out


class TestDocumentation:
    PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")

    def test_the_table_names_every_subcommand_option_of_run_and_setting(self) -> None:
        from wasmforge.cli.run import OPTIONS

        for command in SUBCOMMANDS:
            assert command in self.PAGE
        for option in OPTIONS:
            known = any(option.name == name for name, _, _ in GROUPS.values()) or option.name in (
                "--record",
                "--target",
            )
            assert known or f"`{option.name}" in self.PAGE, option.name
        for settings in SETTINGS.values():
            for setting in settings:
                assert re.search(rf"`(-[OCDWS] )?{setting.name}[=`]", self.PAGE), setting.name

    def test_the_listing_is_what_objdump_prints(self, run: Callable[..., Result], tmp_path: Path) -> None:
        from .test_objdump import MODULE

        (tmp_path / "app.wat").write_text(MODULE)
        command, _, listing = self.PAGE.partition("$ wasmforge ")[2].partition("\n")
        assert run(*command.split()).out == listing.partition("```")[0]
