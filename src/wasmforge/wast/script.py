"""Scripts of the specification's test suites (`.wast`): the commands as data, and their parser.

The language is that of the reference interpreter: modules, actions on their exports and assertions about both.
`commands` yields one command after the other; a command that cannot be parsed becomes a `BadCommand`, so that the
rest of the file can run. Modules are parsed when they are asked for, not before. The runner consumes this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from wasmforge.binary import encode
from wasmforge.text import keywords, parse
from wasmforge.text.errors import ParseError
from wasmforge.text.lexer import Source
from wasmforge.text.literals import F32_FORMAT, F64_FORMAT, FloatFormat, float_bits, integer
from wasmforge.text.parser import ModuleParser
from wasmforge.text.reader import Reader
from wasmforge.text.vectors import lane_bits, vector_shape

__all__ = [
    "Action",
    "AssertBadModule",
    "AssertReturn",
    "AssertTrap",
    "BadCommand",
    "Command",
    "DefineModule",
    "Do",
    "Either",
    "InstantiateModule",
    "ModuleForm",
    "NanPattern",
    "Pattern",
    "Register",
    "Thread",
    "Value",
    "VectorPattern",
    "Wait",
    "commands",
]


@dataclass(frozen=True, slots=True)
class ModuleForm:
    """A module as a script gives it: in text, or as strings that hold a binary (`binary`) or a text (`quote`)."""

    form: str
    identifier: str
    source: Source
    at: int
    data: bytes

    def encoded(self) -> bytes:
        """The binary. Raises `ParseError` when the text is malformed."""
        if self.form == "binary":
            return self.data
        if self.form == "quote":
            return encode(parse(self.data, f"{self.source.filename}:{self.source.line(self.at)}: quoted text"))
        return encode(ModuleParser(self.source, self.at if self.form == "text" else None).parse())


@dataclass(frozen=True, slots=True)
class Value:
    """A value. `type` is `i32`, `i64`, `f32`, `f64` or `v128`, with `bits` as unsigned bit pattern, or `ref.null`,
    `ref.extern`, `ref.host` or another `ref.` pattern, with the number that tells externrefs apart in `bits`; None
    stands for any reference of that kind."""

    type: str
    bits: int | None = None


@dataclass(frozen=True, slots=True)
class NanPattern:
    """Any NaN of a kind: `canonical` or `arithmetic` (quiet, with any payload)."""

    type: str
    kind: str


@dataclass(frozen=True, slots=True)
class VectorPattern:
    """A vector some of whose lanes are any NaN of a kind: `lanes` are bit patterns, or `canonical` or `arithmetic`.
    `type` is that of a lane, `f32` or `f64`."""

    type: str
    lanes: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of several results."""

    choices: tuple[Pattern, ...]


Pattern = Value | NanPattern | VectorPattern | Either


@dataclass(frozen=True, slots=True)
class Action:
    """A call of an exported function, or a read of an exported global (`arguments` is None). `instance` is empty for
    the current one."""

    instance: str
    export: str
    arguments: tuple[Value, ...] | None


@dataclass(frozen=True, slots=True)
class DefineModule:
    """A module; `instantiate` tells it from a mere definition."""

    line: int
    module: ModuleForm
    instantiate: bool


@dataclass(frozen=True, slots=True)
class InstantiateModule:
    line: int
    instance: str
    module: str


@dataclass(frozen=True, slots=True)
class Register:
    line: int
    name: str
    instance: str


@dataclass(frozen=True, slots=True)
class Do:
    """An action of which nothing is asserted but that it works."""

    line: int
    action: Action


@dataclass(frozen=True, slots=True)
class AssertReturn:
    line: int
    action: Action
    expected: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class AssertTrap:
    """`kind` is `trap`, `exhaustion`, `exception` or `suspension`; a trap may be that of an instantiation."""

    line: int
    kind: str
    subject: Action | ModuleForm
    text: str


@dataclass(frozen=True, slots=True)
class AssertBadModule:
    """`kind` is `malformed`, `invalid`, `unlinkable`, `malformed_custom` or `invalid_custom`."""

    line: int
    kind: str
    module: ModuleForm
    text: str


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread of the threads proposal, with the commands that it runs. Recognised, not run."""

    line: int
    identifier: str


@dataclass(frozen=True, slots=True)
class Wait:
    line: int
    thread: str


@dataclass(frozen=True, slots=True)
class BadCommand:
    """A command that the parser does not understand."""

    line: int
    error: ParseError


Command = (
    DefineModule
    | InstantiateModule
    | Register
    | Do
    | AssertReturn
    | AssertTrap
    | AssertBadModule
    | Thread
    | Wait
    | BadCommand
)

_MODULE_FIELDS: Final = frozenset(
    ("type", "rec", "import", "func", "table", "memory", "tag", "global", "export", "start", "elem", "data")
)


def commands(source: str | bytes, filename: str | None = None) -> Iterator[Command]:
    """The commands of a script, in order. Raises `ParseError` only for what is no sequence of tokens or no sequence
    of parenthesised expressions; everything else comes as `BadCommand`."""
    text = Source(source, filename)
    if text.tokens[0] == "(" and text.tokens[1] in _MODULE_FIELDS:
        # A script may be the fields of a single module (section "inline modules" of the suite).
        yield DefineModule(text.line(0), ModuleForm("fields", "", text, 0, b""), True)
        return
    parser = _ScriptParser(text)
    while text.tokens[parser.at]:
        start = parser.at
        if text.tokens[start] != "(":
            raise parser.unexpected("a command")
        parser.skip()
        after = parser.at
        parser.at = start
        line = text.line(start)
        try:
            command = parser.command(line)
            if parser.at != after:
                raise parser.unexpected("`)`")
            yield command
        except ParseError as e:
            yield BadCommand(line, e)
        parser.at = after


class _ScriptParser(Reader):
    def command(self, line: int) -> Command:
        word = self.tokens[self.at + 1]
        parse_command = _COMMANDS.get(word)
        if word == "module":
            return self._module(line)
        if parse_command is None:
            raise self.error(f"unknown command {word}", self.at + 1)
        self.at += 2
        command = parse_command(self, line)
        self.expect(")")
        return command

    # Modules

    def _module(self, line: int) -> Command:
        start = self.at
        self.at += 2
        if self.take("instance"):
            instance = self.identifier()
            module = self.identifier()
            self.expect(")")
            return InstantiateModule(line, instance, module)
        definition = self.tokens[self.at] == "definition"
        self.at = start
        return DefineModule(line, self._module_form(), not definition)

    def _module_form(self) -> ModuleForm:
        start = self.at
        self.expect("(")
        self.expect("module")
        definition = self.take("definition")
        identifier = self.identifier()
        form = self.tokens[self.at]
        if form in ("binary", "quote"):
            self.at += 1
            data = self._quoted() if form == "quote" else self.strings()
            self.expect(")")
            return ModuleForm(form, identifier, self.source, start, data)
        self.at = start
        self.skip()
        # The module parser begins behind two tokens, which are `(module` or, for a definition, `module definition`.
        return ModuleForm("text", identifier, self.source, start + 1 if definition else start, b"")

    def _quoted(self) -> bytes:
        """The strings of a quoted text. They are lines: a token does not continue from one to the next."""
        lines: list[bytes] = []
        while self.tokens[self.at][:1] == '"':
            lines.append(self.string())
        return b"\n".join(lines)

    # Actions and values

    def _action(self) -> Action:
        if self.open("invoke"):
            instance = self.identifier()
            export = self.name()
            arguments: list[Value] = []
            while self.tokens[self.at] == "(":
                value = self._pattern()
                if not isinstance(value, Value):
                    raise self.error("an argument must be a value")
                arguments.append(value)
            action = Action(instance, export, tuple(arguments))
        else:
            self.expect("(")
            self.expect("get")
            instance = self.identifier()
            action = Action(instance, self.name(), None)
        self.expect(")")
        return action

    def _pattern(self, inside_either: bool = False) -> Pattern:
        self.expect("(")
        word = self.tokens[self.at]
        self.at += 1
        pattern: Pattern
        if word in ("i32.const", "i64.const"):
            pattern = Value(word[:3], self._integer(32 if word == "i32.const" else 64))
        elif word in ("f32.const", "f64.const"):
            pattern = self._float(word[:3])
        elif word == "ref.null":
            self._optional_heap_type()
            pattern = Value(word)
        elif word == "either" and not inside_either:
            # Not inside another one: a script may not make the parser recurse as deep as it likes.
            choices: list[Pattern] = []
            while self.tokens[self.at] == "(":
                choices.append(self._pattern(inside_either=True))
            pattern = Either(tuple(choices))
        elif word == "v128.const":
            pattern = self._vector()
        elif word.startswith("ref."):
            pattern = Value(word, self.number(32, "the number of a reference") if self.at_number() else None)
        else:
            raise self.unexpected("a value", self.at - 1)
        self.expect(")")
        return pattern

    def _optional_heap_type(self) -> None:
        token = self.tokens[self.at]
        if token != ")":
            feature = keywords.unsupported_type(token)
            if feature is None and token not in keywords.HEAP_TYPES:
                raise self.unexpected("a heap type")
            self.at += 1

    def _integer(self, bits: int) -> int:
        value = integer(self.tokens[self.at])
        if value is None:
            raise self.unexpected(f"an i{bits} number")
        if not -(1 << (bits - 1)) <= value < 1 << bits:
            raise self.error("constant out of range")
        self.at += 1
        return value & (1 << bits) - 1

    def _float(self, type_: str) -> Value | NanPattern:
        token = self.tokens[self.at]
        form: FloatFormat = F32_FORMAT if type_ == "f32" else F64_FORMAT
        if token in ("nan:canonical", "nan:arithmetic"):
            self.at += 1
            return NanPattern(type_, token[4:])
        try:
            bits = float_bits(token, form)
        except ValueError as e:
            raise self.error(str(e)) from None
        if bits is None:
            raise self.unexpected(f"an {type_} number")
        self.at += 1
        return Value(type_, bits)

    def _vector(self) -> Value | VectorPattern:
        type_ = self.tokens[self.at][:3]
        shape = vector_shape(self)
        lanes: list[int | str] = []
        for _ in range(shape.lanes):
            token = self.tokens[self.at]
            if shape.floats is not None and token in ("nan:canonical", "nan:arithmetic"):
                self.at += 1
                lanes.append(token[4:])
            else:
                lanes.append(lane_bits(self, shape))
        bits = [lane << k * shape.bits for k, lane in enumerate(lanes) if isinstance(lane, int)]
        return Value("v128", sum(bits)) if len(bits) == len(lanes) else VectorPattern(type_, tuple(lanes))

    # Commands

    def _register(self, line: int) -> Command:
        name = self.name()
        return Register(line, name, self.identifier())

    def _do(self, line: int) -> Command:
        # The action's own parentheses are those of the command.
        self.at -= 2
        action = self._action()
        self.at -= 1
        return Do(line, action)

    def _assert_return(self, line: int) -> Command:
        action = self._action()
        expected: list[Pattern] = []
        while self.tokens[self.at] == "(":
            expected.append(self._pattern())
        return AssertReturn(line, action, tuple(expected))

    def _assert_trap(self, line: int) -> Command:
        kind = self.tokens[self.at - 1].removeprefix("assert_")
        subject: Action | ModuleForm
        if self.tokens[self.at + 1] == "module":
            subject = self._module_form()
        else:
            subject = self._action()
        text = "" if self.tokens[self.at] == ")" else self.name()
        return AssertTrap(line, kind, subject, text)

    def _assert_bad_module(self, line: int) -> Command:
        kind = self.tokens[self.at - 1].removeprefix("assert_")
        module = self._module_form()
        return AssertBadModule(line, kind, module, self.name())

    def _thread(self, line: int) -> Command:
        identifier = self.identifier()
        while self.tokens[self.at] == "(":
            self.skip()
        return Thread(line, identifier)

    def _wait(self, line: int) -> Command:
        return Wait(line, self.identifier())


_COMMANDS: Final[dict[str, Callable[[_ScriptParser, int], Command]]] = {
    "register": _ScriptParser._register,
    "invoke": _ScriptParser._do,
    "get": _ScriptParser._do,
    "assert_return": _ScriptParser._assert_return,
    "assert_trap": _ScriptParser._assert_trap,
    "assert_exhaustion": _ScriptParser._assert_trap,
    "assert_exception": _ScriptParser._assert_trap,
    "assert_suspension": _ScriptParser._assert_trap,
    "assert_malformed": _ScriptParser._assert_bad_module,
    "assert_invalid": _ScriptParser._assert_bad_module,
    "assert_unlinkable": _ScriptParser._assert_bad_module,
    "assert_malformed_custom": _ScriptParser._assert_bad_module,
    "assert_invalid_custom": _ScriptParser._assert_bad_module,
    "thread": _ScriptParser._thread,
    "wait": _ScriptParser._wait,
}
