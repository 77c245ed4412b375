"""What one guest program gets from outside: arguments, environment, descriptors, clocks, random numbers. `WasiConfig`
or the command line fills one in; a store holds it; the functions of `preview1.py` work on it.

The default is nothing: no arguments, no environment, standard input at its end, output and errors discarded, no
directories.
"""

from __future__ import annotations

import os

from wasmforge.wasi.clocks import Clocks
from wasmforge.wasi.descriptors import ClosedInput, Descriptor, DescriptorTable, Sink
from wasmforge.wasi.native import NativeGuest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["WasiContext"]

_DESCRIPTORS_WITHOUT_LIMIT = 1 << 20


def _descriptor_limit() -> int:
    """Half of what the host process may open: the guest cannot starve the process that runs it."""
    soft = os.sysconf("SC_OPEN_MAX")  # as `resource.getrlimit`, a library that would have to be loaded
    if soft < 0:
        return _DESCRIPTORS_WITHOUT_LIMIT
    return min(max(soft // 2, 16), _DESCRIPTORS_WITHOUT_LIMIT)


class WasiContext:
    """The state of WASI for one store.

    Args:
        args: the program's name and its arguments.
        env: pairs of name and value.
        streams: standard input, output and error; None stands for closed input and discarded output.
    """

    __slots__ = ("_clocks", "_random", "args", "descriptors", "env", "native")

    def __init__(
        self,
        args: Iterable[str] = (),
        env: Iterable[tuple[str, str]] = (),
        streams: tuple[Descriptor | None, Descriptor | None, Descriptor | None] = (None, None, None),
    ) -> None:
        self.args = [_encode(argument) for argument in args]
        self.env = [_encode(f"{name}={value}") for name, value in env]
        self.native = NativeGuest()
        self.descriptors = DescriptorTable(_descriptor_limit(), self.native)
        self.descriptors.add(streams[0] or ClosedInput())
        self.descriptors.add(streams[1] or Sink())
        self.descriptors.add(streams[2] or Sink())
        self.clocks = Clocks()
        self.random = os.urandom

    @property
    def clocks(self) -> Clocks:
        """The clocks that the guest sees."""
        return self._clocks

    @clocks.setter
    def clocks(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self.native.set_clocks(clocks)

    @property
    def random(self) -> Callable[[int], bytes]:
        """Where random bytes come from: a callable that takes how many."""
        return self._random

    @random.setter
    def random(self, source: Callable[[int], bytes]) -> None:
        self._random = source
        self.native.set_random(source is os.urandom)

    def preopen(self, descriptor: Descriptor) -> None:
        """Gives the guest a directory, under the next free number; `descriptor.preopen_name` is its name."""
        descriptor.attach(self, self.descriptors.add(descriptor))

    def close(self) -> None:
        """Closes every descriptor; the guest cannot use any afterwards."""
        self.descriptors.close_all()


def _encode(text: str) -> bytes:
    """As a C string. Bytes of the host that are no UTF-8 pass unchanged, as they came in.

    Raises ValueError when the text contains a NUL, which would cut it short in the guest.
    """
    data = text.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise ValueError(f"arguments and environment variables cannot contain NUL characters: {text!r}")
    return data + b"\0"
