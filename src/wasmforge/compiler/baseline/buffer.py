"""`Buffer`, where machine code grows. Uncompiled it is a bytearray with two more names; compiled by mypyc it is mypyc's
own writer (package librt), whose `append` is a store into memory instead of a method call.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from librt.strings import BytesWriter as Buffer
else:

    class Buffer(bytearray):
        __slots__ = ()

        def getvalue(self):
            return bytes(self)

        def truncate(self, size):
            del self[size:]

        write = bytearray.extend


__all__ = ["Buffer"]
