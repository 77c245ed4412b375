"""`record`, which makes a class with annotated fields a plain record (constructor, equality, hash, `repr`, slots), and
the bases `Enum`, `IntEnum` and `NamedTuple`. Rooms whose classes a process needs that only maps an image and calls
it use these instead of the standard library's.

To a type checker they are those of `dataclasses`, `enum` and `typing`. At run time they do the same for what this
project uses of those, without the imports: `dataclasses` brings `inspect` and twenty more modules (10 to 19 ms),
`enum` takes 4 ms, `typing` 9, and such a process should take 22 ms in all.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass as record
    from dataclasses import field
    from enum import Enum, IntEnum
    from typing import NamedTuple
else:
    from _operator import attrgetter, itemgetter  # the C half; the Python half takes 0.2 ms

    class _Factory:
        __slots__ = ("make",)

        def __init__(self, make):
            self.make = make

    def field(*, default_factory):
        """A field whose default is made anew for each record."""
        return _Factory(default_factory)

    _REQUIRED = object()

    def record(*, frozen=False, slots=True):
        """A class decorator. Fields are the annotations of the class itself; those with a default come last.

        `frozen` records cannot be changed, and can be hashed. `slots` is there for the type checker: it must be true.
        """
        if not slots:
            raise TypeError("records have slots")

        def decorate(cls):
            namespace = dict(cls.__dict__)
            names = tuple(namespace.get("__annotations__", ()))
            defaults = tuple(namespace.pop(name, _REQUIRED) for name in names)
            for name in ("__dict__", "__weakref__"):
                namespace.pop(name, None)
            namespace["__slots__"] = names
            namespace["__match_args__"] = names
            new = type(cls)(cls.__name__, cls.__bases__, namespace)
            # The slots' own setters, since those of a frozen record's attributes are closed.
            setters = tuple(new.__dict__[name].__set__ for name in names)
            new.__init__ = _constructor(cls.__qualname__, names, setters, defaults)
            values = attrgetter(*names)
            new.__eq__ = lambda self, other: (
                values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented
            )
            new.__hash__ = (lambda self: hash(values(self))) if frozen else None
            new.__repr__ = lambda self: (
                f"{cls.__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"
            )
            # Pickling through the constructor: the default would assign to a frozen record.
            new.__reduce__ = lambda self: (new, tuple(getattr(self, name) for name in names))
            if frozen:
                new.__setattr__ = _refuse_to_set
                new.__delattr__ = _refuse_to_delete
            return new

        return decorate

    def _constructor(qualname, names, setters, defaults):
        total = len(names)
        required = sum(default is _REQUIRED for default in defaults)

        def complete(args, kwargs):
            values = list(args)
            for name, default in zip(names[len(args) :], defaults[len(args) :], strict=True):
                value = kwargs.pop(name, default)
                if value is _REQUIRED:
                    raise TypeError(f"{qualname}() needs {required} arguments; {name!r} is missing")
                values.append(value.make() if isinstance(value, _Factory) else value)
            if kwargs or len(args) > total:
                wrong = f"unknown argument {next(iter(kwargs))!r}" if kwargs else f"at most {total} arguments"
                raise TypeError(f"{qualname}(): {wrong}")
            return values

        return _INITIALIZERS.get(total, _initialize_any)(total, complete, *setters)

    def _initialize_any(total, complete, *setters):
        def __init__(self, *args, **kwargs):  # noqa: N807
            if len(args) != total or kwargs:
                args = complete(args, kwargs)
            for set_field, value in zip(setters, args, strict=True):
                set_field(self, value)

        return __init__

    # The same without the loop, in half of the time: the decoder makes sixty thousand records for a CPython.

    def _initialize_2(total, complete, set_a, set_b):
        def __init__(self, *args, **kwargs):  # noqa: N807
            a, b = complete(args, kwargs) if kwargs or len(args) != total else args
            set_a(self, a)
            set_b(self, b)

        return __init__

    def _initialize_4(total, complete, set_a, set_b, set_c, set_d):
        def __init__(self, *args, **kwargs):  # noqa: N807
            a, b, c, d = complete(args, kwargs) if kwargs or len(args) != total else args
            set_a(self, a)
            set_b(self, b)
            set_c(self, c)
            set_d(self, d)

        return __init__

    def _initialize_5(total, complete, set_a, set_b, set_c, set_d, set_e):
        def __init__(self, *args, **kwargs):  # noqa: N807
            a, b, c, d, e = complete(args, kwargs) if kwargs or len(args) != total else args
            set_a(self, a)
            set_b(self, b)
            set_c(self, c)
            set_d(self, d)
            set_e(self, e)

        return __init__

    _INITIALIZERS = {2: _initialize_2, 4: _initialize_4, 5: _initialize_5}

    def _refuse_to_set(self, name, value):
        raise AttributeError(f"cannot assign to field {name!r} of a frozen {type(self).__qualname__}")

    def _refuse_to_delete(self, name):
        raise AttributeError(f"cannot delete field {name!r} of a frozen {type(self).__qualname__}")

    class _EnumType(type):
        """The class of enumerations: the public names of a class body become its members."""

        def __new__(cls, name, bases, namespace):
            values = {
                key: value
                for key, value in namespace.items()
                if not key.startswith("_") and not callable(value) and not hasattr(value, "__get__")
            }
            enumeration = super().__new__(cls, name, bases, {k: v for k, v in namespace.items() if k not in values})
            enumeration._by_value = {}
            for key, value in values.items():
                member = int.__new__(enumeration, value) if int in enumeration.__mro__ else object.__new__(enumeration)
                member.name = key
                member.value = value
                enumeration._by_value[value] = member
                setattr(enumeration, key, member)
            return enumeration

        def __call__(cls, value, names=None):
            if names is not None:  # the standard library's way to make an enumeration without a class statement
                raise TypeError(f"{cls.__qualname__} has members already")
            try:
                return cls._by_value[value]
            except KeyError:
                raise ValueError(f"{value!r} is not a valid {cls.__qualname__}") from None

        def __getitem__(cls, name):
            member = cls.__dict__.get(name)
            if member.__class__ is not cls:
                raise KeyError(name)
            return member

        @property
        def __members__(cls):
            return {member.name: member for member in cls}

        def __iter__(cls):
            return iter(cls._by_value.values())

        def __len__(cls):
            return len(cls._by_value)

        def __contains__(cls, member):
            return member in cls._by_value or any(member is other for other in cls)

    class Enum(metaclass=_EnumType):
        """Members are singletons with a `name` and a `value`."""

        def __repr__(self):
            return f"<{self}: {self.value!r}>"

        def __str__(self):
            return f"{type(self).__qualname__}.{self.name}"

        def __reduce__(self):
            return type(self), (self.value,)

    class IntEnum(int, metaclass=_EnumType):
        """Members are integers too."""

        def __repr__(self):
            return f"<{type(self).__qualname__}.{self.name}: {self.value!r}>"

        __str__ = int.__repr__

        def __reduce__(self):
            return type(self), (self.value,)

    class _NamedTupleType(type):
        """The class of named tuples: the annotations of a class body become names of the elements."""

        def __new__(cls, name, bases, namespace):
            names = tuple(namespace.get("__annotations__", ()))
            for i, element in enumerate(names):
                if element in namespace:
                    raise TypeError(f"{name}.{element}: named tuples have no defaults here")
                namespace[element] = property(itemgetter(i))
            namespace["__slots__"] = ()
            namespace["_fields"] = namespace["__match_args__"] = names
            return super().__new__(cls, name, bases, namespace)

    class NamedTuple(tuple, metaclass=_NamedTupleType):
        """A tuple whose elements have names."""

        def __new__(cls, *args, **kwargs):
            if kwargs:
                args = (*args, *(kwargs.pop(name) for name in cls._fields[len(args) :]))
            if kwargs or len(args) != len(cls._fields):
                raise TypeError(f"{cls.__qualname__}() takes {', '.join(cls._fields)}")
            return tuple.__new__(cls, args)

        def __repr__(self):
            elements = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
            return f"{type(self).__qualname__}({elements})"

        def __reduce__(self):
            return type(self), tuple(self)


__all__ = ["Enum", "IntEnum", "NamedTuple", "field", "record"]
