"""`func`, the decorator that gives a Python function a WebAssembly type, from a signature or from type hints; and the
annotations `i32`, `i64` and so on for such hints. `load` and `Linker.define` consume what it makes.
"""

from __future__ import annotations

import inspect
import types as python_types
from collections.abc import Callable
from functools import update_wrapper
from typing import Annotated, Any, Generic, ParamSpec, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints
from typing import overload as typing_overload

from wasmforge.func_ import Caller, Func
from wasmforge.types import FuncType, ValType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from wasmforge.store import Storelike

__all__ = ["HostFunction", "externref", "f32", "f64", "func", "funcref", "i32", "i64", "v128"]

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# For a type checker these are the Python types that calls take and give.
i32: TypeAlias = Annotated[int, ValType.i32()]
i64: TypeAlias = Annotated[int, ValType.i64()]
f32: TypeAlias = Annotated[float, ValType.f32()]
f64: TypeAlias = Annotated[float, ValType.f64()]
v128: TypeAlias = Annotated[bytes, ValType.v128()]
externref: TypeAlias = Annotated[Any, ValType.externref()]
funcref: TypeAlias = Annotated[Any, ValType.funcref()]

_BY_NAME: Final = {
    "i32": ValType.i32(),
    "i64": ValType.i64(),
    "f32": ValType.f32(),
    "f64": ValType.f64(),
    "v128": ValType.v128(),
    "externref": ValType.externref(),
    "funcref": ValType.funcref(),
}

_BY_HINT: Final[dict[object, ValType]] = {
    bool: ValType.i32(),
    int: ValType.i32(),  # what C's int, bool and pointers are
    float: ValType.f64(),  # what a Python float is
    bytes: ValType.v128(),
    Func: ValType.funcref(),
    object: ValType.externref(),
    Any: ValType.externref(),
}


class HostFunction(Generic[Parameters, Result]):
    """A Python function with a WebAssembly type, for every store. Made by `func`; calling it calls the Python function.

    Attributes:
        function: the Python function.
        type: its `FuncType`.
        access_caller: whether it gets a `Caller` as first argument.
    """

    def __init__(self, function: Callable[Parameters, Result], ty: FuncType, access_caller: bool = False) -> None:
        if not callable(function):
            raise TypeError(f"expected a callable, got {type(function).__name__}")
        update_wrapper(self, function)
        self.function = function
        self.type = ty
        self.access_caller = access_caller

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return self.function(*args, **kwargs)

    def bind(self, store: Storelike) -> Func:
        """A `Func` of it in a store, for `Instance`, tables and globals."""
        return Func(store, self.type, self.function, self.access_caller)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"<HostFunction {name}: {self.type._type}>"


@typing_overload
def func(
    signature: str, *, access_caller: bool = ...
) -> Callable[[Callable[Parameters, Result]], HostFunction[Parameters, Result]]: ...
@typing_overload
def func(signature: Callable[Parameters, Result]) -> HostFunction[Parameters, Result]: ...


def func(signature: Any, *, access_caller: bool = False) -> Any:
    """Give a Python function a WebAssembly type: `@wasmforge.func("i32, i32 -> i32")`, or `@wasmforge.func` over a
    function with type hints.

    Of the hints, `wasmforge.i32`, `i64`, `f32`, `f64`, `v128`, `externref` and `funcref` mean themselves; `int` and
    `bool` are i32, `float` is f64, `bytes` is v128, `Func` is funcref, `object` and `Any` are externref; `None` is no
    result and `tuple[...]` several. A first parameter of type `Caller` gets the caller.

    Parameters:
        signature: the types of parameters and results, separated by commas, with `->` between them; or the function.
        access_caller: with a signature, pass a `Caller`, which it does not mention, as first argument.

    Returns:
        A `HostFunction`, or the decorator that makes one.

    Raises:
        TypeError: a type is unknown, or a hint is missing; the message says which.
    """
    if isinstance(signature, str):
        ty = parse_signature(signature)
        return lambda function: HostFunction(function, ty, access_caller)
    if not callable(signature):
        raise TypeError(f'expected a signature such as "i32 -> i32" or a function, got {type(signature).__name__}')
    return HostFunction(signature, *type_of_hints(signature))


def parse_signature(signature: str) -> FuncType:
    """The type that a text such as `"i32, f64 -> i32"` stands for. Raises TypeError for an unknown type."""
    params, _, results = signature.partition("->")
    return FuncType(_parse_types(params, signature), _parse_types(results, signature))


def _parse_types(text: str, signature: str) -> list[ValType]:
    text = text.strip().removeprefix("(").removesuffix(")").strip()
    if not text:
        return []
    found = []
    for name in text.split(","):
        ty = _BY_NAME.get(name.strip())
        if ty is None:
            raise TypeError(f"signature {signature!r}: expected one of {', '.join(_BY_NAME)}, got {name.strip()!r}")
        found.append(ty)
    return found


def type_of_hints(function: Callable[..., Any]) -> tuple[FuncType, bool]:
    """The type that a function's hints stand for, and whether its first parameter is a `Caller`. Raises TypeError for
    a function whose hints do not say."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as e:
        raise TypeError(
            f"{name}(): cannot resolve its type hints ({e}): import what they name when the program runs, "
            'or give a signature, @wasmforge.func("i32 -> i32")'
        ) from e
    params: list[ValType] = []
    access_caller = False
    for k, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"{name}(): WebAssembly passes positional arguments only, not {str(parameter)!r}")
        hint = hints.get(parameter.name, parameter.empty)
        if k == 0 and hint is Caller:
            access_caller = True
            continue
        if hint is parameter.empty:
            raise TypeError(
                f'{name}(): parameter {parameter.name!r} needs a type hint, or give a signature, "i32 -> i32"'
            )
        params.append(_type_of_hint(hint, f"{name}(): parameter {parameter.name!r}"))
    if "return" not in hints:
        raise TypeError(f"{name}(): the result needs a type hint, `-> None` if there is none")
    return FuncType(params, _results_of_hint(hints["return"], name)), access_caller


def _results_of_hint(hint: object, name: str) -> list[ValType]:
    if hint is None or hint is type(None):
        return []
    if get_origin(hint) is tuple:
        members = get_args(hint)
        if Ellipsis in members:
            raise TypeError(f"{name}(): the number of results must be known, not {hint}")
        return [_type_of_hint(member, f"{name}(): result {k}") for k, member in enumerate(members, 1)]
    return [_type_of_hint(hint, f"{name}(): the result")]


def _type_of_hint(hint: object, where: str) -> ValType:
    if get_origin(hint) is Annotated:
        for note in get_args(hint)[1:]:
            if isinstance(note, ValType):
                return note
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, python_types.UnionType):  # `Func | None`: references may be null
        members = [member for member in get_args(hint) if member is not type(None)]
        if members == [Func]:
            return ValType.funcref()
    found = _BY_HINT.get(hint) if isinstance(hint, type) or hint is Any else None
    if found is None:
        raise TypeError(f"{where}: no WebAssembly type for {hint!r}; use wasmforge.i32, i64, f32, f64, v128, ...")
    return found
