"""`wasmforge settings`: what the option groups offer, with defaults, and which machine the compilers compile for. The
defaults are asked of `Config`, so that the list cannot go stale.
"""

from __future__ import annotations

from wasmforge.cli.errors import UsageError
from wasmforge.cli.options import Option, parse
from wasmforge.cli.settings import GROUPS, SETTINGS, _boolean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from wasmforge.cli.settings import Setting
    from wasmforge.config import Config

__all__ = ["HELP", "OPTIONS", "default", "main"]

SUMMARY = "Lists the settings of the compilers and the runtime, with their defaults"
USAGE = "wasmforge settings [OPTIONS]"
HELP = "Each is set by its group: `-W fuel=1000`. Only this machine can be compiled for."

OPTIONS = (
    Option("--json", "as JSON: triple, processor level, and the settings of each group"),
    Option("--target", "the machine; only this one is known", value="TRIPLE"),
)

OTHERS = {"opt-level": "2", "compiler": "auto", "cache": "y", "cli": "y", "common": "y", "preview0": "y"}
"""Defaults of what is neither a plain switch nor a number of `Config`."""


def main(argv: Sequence[str]) -> int:
    parsed = parse(argv, OPTIONS)
    if parsed.arguments:
        raise UsageError(f"unexpected argument '{parsed.arguments[0]}' found")
    from wasmforge.cli.compile import check_target
    from wasmforge.compiler.target import TRIPLE, host_level

    check_target(parsed.last("--target"))
    if parsed.flag("--json"):
        import json

        settings = {
            GROUPS[group][0][2:]: [{"name": s.name, "default": default(s), "description": _text(s)} for s in rows]
            for group, rows in SETTINGS.items()
        }
        print(json.dumps({"triple": TRIPLE, "level": host_level(), "settings": settings}, indent=2))
        return 0
    print(f"Wasmforge settings for target '{TRIPLE}', processor level {host_level()}:")
    width = max(len(s.name) for rows in SETTINGS.values() for s in rows)
    for group, rows in SETTINGS.items():
        print(f"\n{GROUPS[group][2]} ({group}, {GROUPS[group][0]}):")
        for setting in rows:
            value = default(setting)
            print(f"  {setting.name:<{width}}  {'-' if value is None else value:<12}  {_text(setting)}")
    return 0


def _text(setting: Setting) -> str:
    return setting.help.partition(": ")[2]


def default(setting: Setting) -> str | None:
    """The default as it is written on the command line; None for what is not limited or not given."""
    if setting.name in OTHERS:
        return OTHERS[setting.name]
    if setting.config is None or setting.name == "cache-config":
        return "n" if setting.parse is _boolean else None
    from wasmforge.config import Config

    config = Config()
    if setting.parse is not _boolean:
        return str(getattr(_tunables(config), setting.config, None) or getattr(config, f"_{setting.config}"))
    before = _state(config)
    setattr(config, setting.config, True)
    return "y" if _state(config) == before else "n"


def _tunables(config: Config) -> object:
    from wasmforge.compiler.environ import Tunables

    return Tunables(**config._tunables, features=config._features)  # type: ignore[arg-type]


def _state(config: Config) -> dict[str, object]:
    return {**vars(config), "_tunables": _tunables(config)}
