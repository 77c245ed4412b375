"""The parser of the command line takes Wasmtime's forms (reference, table E9) and refuses everything else."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from wasmforge.cli.errors import UsageError
from wasmforge.cli.options import Option, describe, parse
from wasmforge.cli.run import OPTIONS as RUN_OPTIONS
from wasmforge.cli.settings import _NOT_HERE, _OFF_HERE, GROUPS, SETTINGS, HelpRequest, parse_groups

TABLE = (
    Option("--flag", "a flag"),
    Option("--dir", "a directory", value="DIR", repeat=True),
    Option("--out", "a file", short="-o", value="FILE"),
    Option("--gone", "", value="X", unsupported="it is gone"),
)


@pytest.mark.parametrize(
    ("words", "options", "arguments"),
    [
        ([], {}, []),
        (["a", "b"], {}, ["a", "b"]),
        (["--flag", "a"], {"--flag": [""]}, ["a"]),
        (["a", "--flag"], {"--flag": [""]}, ["a"]),
        (["--dir", "x", "--dir=y", "--dir", "--flag"], {"--dir": ["x", "y", "--flag"]}, []),
        (["--dir="], {"--dir": [""]}, []),
        (["--dir=a=b"], {"--dir": ["a=b"]}, []),
        (["-o", "x"], {"--out": ["x"]}, []),
        (["-ox"], {"--out": ["x"]}, []),
        (["-o=x"], {"--out": ["x"]}, []),
        (["-"], {}, ["-"]),
        (["--", "--flag", "-o"], {}, ["--flag", "-o"]),
        (["a", "--", "b"], {}, ["a", "b"]),
    ],
)
def test_forms(words: list[str], options: dict[str, list[str]], arguments: list[str]) -> None:
    parsed = parse(words, TABLE)
    assert (parsed.options, parsed.arguments) == (options, arguments)


def test_what_follows_the_module_belongs_to_the_guest() -> None:
    parsed = parse(["--flag", "app.wasm", "--dir", "x", "--", "-o", "--unknown"], TABLE, stop_at_argument=True)
    assert parsed.arguments == ["app.wasm", "--dir", "x", "--", "-o", "--unknown"]
    assert parsed.options == {"--flag": [""]}
    assert parse(["--", "--app", "x"], TABLE, stop_at_argument=True).arguments == ["--app", "x"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--unknown"], "unexpected argument '--unknown' found"),
        (["--fla"], "did you mean '--flag'"),
        (["-x"], "unexpected argument '-x' found"),
        (["--dir"], "a value is required for '--dir <DIR>'"),
        (["-o"], "a value is required for '--out <FILE>'"),
        (["--flag=1"], "'--flag' takes no value"),
        (["-o", "a", "-o", "b"], "cannot be used multiple times"),
        (["--gone", "x"], "'--gone' does not work in wasmforge: it is gone"),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(words, TABLE)
    assert message in str(error.value)


def test_help_lists_what_works() -> None:
    text = describe(TABLE)
    assert "-o, --out <FILE>" in text
    assert "--flag" in text
    assert "--gone" not in text


# --- The groups -O -C -D -W -S


def settings(*words: str) -> dict[str, object]:
    parsed = parse_groups(parse(list(words), RUN_OPTIONS, stop_at_argument=True))
    return {name: value for name, (_, value) in parsed.config.items()} | parsed.other


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-O", "opt-level=0"], {"cranelift_opt_level": "none"}),
        (["-Oopt-level=s"], {"cranelift_opt_level": "speed_and_size"}),
        (["--optimize=opt-level=2"], {"cranelift_opt_level": "speed"}),
        (["-O", "memory-reservation=0x1_0000,memory-guard-size=65_536"],
         {"memory_reservation": 65536, "memory_guard_size": 65536}),
        (["-C", "parallel-compilation=n"], {"parallel_compilation": False}),
        (["-W", "bulk-memory,multi-value=yes", "-W", "simd=false"],
         {"wasm_bulk_memory": True, "wasm_multi_value": True, "wasm_simd": False}),
        (["-S", "inherit-env", "-Scli=n"], {"inherit-env": True, "cli": False}),
        (["-W", "fuel=1_000"], {"fuel": 1000, "consume_fuel": True}),
        (["-W", "exceptions=n,gc=no", "-O", "pooling-allocator=n"], {}),
    ],
)  # fmt: skip
def test_groups(words: list[str], expected: dict[str, object]) -> None:
    assert settings(*words) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-O", "nonsense"], "unknown -O option: nonsense"),
        (["-O", "pooling-allocator=y"], "`-O pooling-allocator` does not work in this version"),
        (["-W", "gc"], "`-W gc` does not work in this version"),
        (["-W", "exceptions=y"], "`-W exceptions` does not work in this version"),
        (["-W", "fuel=18446744073709551616"], "number too large to fit in 64 bits"),
        (["-C", "cranelift-regalloc_checker=1"], "does not work in this version"),
        (["-W", "bulk-memory=maybe"], "unknown boolean flag `maybe`, only yes,no,<nothing> accepted"),
        (["-O", "opt-level=9"], "unknown optimization level `9`, only 0,1,2,s accepted"),
        (["-O", "opt-level"], "`opt-level` needs a value"),
        (["-O", "memory-guard-size=many"], "`memory-guard-size`: invalid number `many`"),
        (["-O", "memory-guard-size=-1"], "must not be negative"),
        (["-R", "path=x"], "'--record' does not work in wasmforge"),
    ],
)
def test_group_refusals(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as error:
        settings(*words)
    assert message in str(error.value)


@pytest.mark.parametrize("group", GROUPS)
def test_group_help(group: str) -> None:
    with pytest.raises(HelpRequest) as request:
        settings(group, "help")
    for setting in SETTINGS[group]:
        assert setting.name in str(request.value)


def test_every_setting_reaches_a_config_property() -> None:
    """A setting that names a property of `Config` which does not exist would be accepted and fail later."""
    from wasmforge.config import Config

    for rows in SETTINGS.values():
        for setting in rows:
            assert setting.config is None or isinstance(getattr(Config, setting.config, None), property), setting.name


def test_what_the_configuration_refuses_is_wrong_usage() -> None:
    parsed = parse_groups(parse(["-C", "compiler=gcc"], RUN_OPTIONS))
    with pytest.raises(UsageError, match=r"`-C compiler=gcc` does not work in wasmforge: unknown strategy: gcc"):
        parsed.make_config()


def test_a_configuration_file_comes_before_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        "[wasm]\nfuel = 7\nsimd = false\ntimeout = '2s'\n[optimize]\nopt-level = 0\n[wasi]\ntcplisten = ['a:1']"
    )
    assert settings("--config", str(path), "-W", "simd") == {
        "fuel": 7, "consume_fuel": True, "wasm_simd": True, "timeout": 2.0, "cranelift_opt_level": "none",
        "tcplisten": ["a:1"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("[wasm]\nnonsense = 1", "unknown -W option: nonsense"),
        ("[wasm]\ngc = true", "`-W gc` does not work"),
        ("fuel = 1", "unknown table `fuel`"),
        ("[record]\npath = 'x'", "unknown table `record`"),
        ("[wasm]\nfuel = {}", "`fuel` must be a boolean, a number or a string"),
        ("[wasm", "failed to parse configuration file"),
        (None, "failed to read configuration file"),
    ],
)
def test_configuration_files_with_errors(tmp_path: Path, contents: str | None, message: str) -> None:
    path = tmp_path / "config.toml"
    if contents is not None:
        path.write_text(contents)
    with pytest.raises(UsageError) as error:
        settings("--config", str(path))
    assert message in str(error.value)


def test_what_is_accepted_as_off_is_a_switch_that_does_not_work() -> None:
    not_here = {name for names in _NOT_HERE.values() for name in names.split()}
    assert not_here >= set(_OFF_HERE.split())


def test_every_setting_of_wasmtime_is_known() -> None:
    """Tables E3 to E7 of the reference: each works, or is known not to; none stands in both."""
    root = os.environ.get("WASMFORGE_TESTSUITES") or Path(__file__).parents[3] / "shared" / "testsuites"
    reference = Path(root).parent / "reference" / "wasmtime-42" / "e-command-line.md"
    if not reference.exists():
        pytest.skip("the reference of Wasmtime 42 is not beside the test suites")
    rows = re.findall(r"^\| E[3-7]-\d+ \| `(-[OCDWS]) ([a-z0-9-]+)", reference.read_text(), re.MULTILINE)
    assert len(rows) > 120
    for group in GROUPS:
        names = {name for short, name in rows if short == group and name != "cranelift-"}
        here = [setting.name for setting in SETTINGS[group]]
        not_here = _NOT_HERE[group].split()
        assert sorted({*here, *not_here}) == sorted([*here, *not_here]), group
        assert names == {*here, *not_here}, group
