"""The one idiom for a record: a class that names its fields, with their types and defaults.

    class Place(Record):
        directory: str
        name: str = "CAM"

gives `Place("/srv", name="A")`, comparison by type and values, a hash, a repr that can be read,
`replaced(name="B")` and `as_dict()`. A record is frozen; `class Meter(Record, frozen=False)` can be changed and
has no hash. Neither has attributes beside its fields; what is annotated as a ClassVar is the class's own. mypy checks
the fields as those of a dataclass (PEP 681); dataclasses do the same, but take 13 ms to import (FACTS 5), and this
module has to cost next to nothing.
"""

from __future__ import annotations

from _operator import attrgetter  # what `operator` gives, without its module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda record: record


_MISSING = ...


class _RecordType(type):
    """Gives each annotated field a slot, and takes its default out of the class."""

    _template: dict[str, object]
    _slots: tuple[Callable[[object, object], None], ...]
    _values: Callable[[object], tuple[object, ...]]

    def __new__(
        meta, name: str, bases: tuple[type, ...], namespace: dict[str, Any], *, frozen: bool = True
    ) -> _RecordType:
        annotations = namespace.get("__annotations__", {})
        own = [field for field, kind in annotations.items() if "ClassVar" not in str(kind)]
        template: dict[str, object] = {}
        for base in bases:
            template.update(getattr(base, "_template", {}))
        namespace["__slots__"] = tuple(field for field in own if field not in template)
        template.update({field: namespace.pop(field, _MISSING) for field in own})
        for field, default in template.items():
            if getattr(default, "__hash__", None) is None:
                raise TypeError(f"{name}.{field}: all records would share the default {default!r}; pass it to each")
        namespace["_template"] = template
        if not frozen:
            namespace.update(__setattr__=object.__setattr__, __hash__=None)
        made = super().__new__(meta, name, bases, namespace)
        made._slots = tuple(getattr(made, field).__set__ for field in template)
        made._values = staticmethod(_getter([*template]))
        return made

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **_: bool) -> None:
        super().__init__(name, bases, namespace)

    def defaults(cls) -> dict[str, Any]:
        """Each field's default, in the fields' order; `...` where it has none."""
        return dict(cls._template)


def _getter(fields: list[str]) -> Callable[[object], tuple[object, ...]]:
    """What gives the values of so many fields at once; for less than two fields attrgetter() gives no tuple."""
    if len(fields) > 1:
        return attrgetter(*fields)
    return lambda record: tuple(getattr(record, name) for name in fields)


@dataclass_transform(frozen_default=True)
class Record(metaclass=_RecordType):
    """The base of all records."""

    if TYPE_CHECKING:
        _template: dict[str, object]  # each field's default, or _MISSING
        _slots: tuple[Callable[[object, object], None], ...]
        _values: Callable[[object], tuple[object, ...]]

    def __init__(self, *args: object, **values: object) -> None:
        """Fields in their order, by name, or both. Raises TypeError that names what is missing or unknown."""
        if values or len(args) != len(self._slots):
            args = self._complete(args, values)
        for set_slot, value in zip(self._slots, args, strict=True):
            set_slot(self, value)

    def _complete(self, args: tuple[object, ...], values: dict[str, object]) -> tuple[object, ...]:
        """A value for each field, in their order."""
        if not args:
            known = {**self._template, **values}
            given = tuple(known.values())
            if len(known) == len(self._slots) and _MISSING not in given:
                return given
        placed = dict(zip(self._template, args, strict=False))
        known = {**self._template, **placed, **values}
        problems = [f"no value for {name}" for name, value in known.items() if value is _MISSING]
        problems += [f"no field {name}" for name in values if name not in self._template]
        problems += [f"{name} is given twice" for name in placed if name in values]
        if len(args) > len(placed):
            problems.append(f"{len(args)} values for {len(placed)} fields")
        if problems:
            raise TypeError(f"{type(self).__name__}: {'; '.join(problems)}")
        return tuple(known.values())

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """For copy and pickle, which would set the fields of a frozen record."""
        return type(self), self._values(self)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, in their order."""
        return dict(zip(self._template, self._values(self), strict=True))

    def replaced(self, **changes: object) -> Self:
        """A copy with other values for some fields."""
        known = {**self.as_dict(), **changes}
        return type(self)(*known.values()) if len(known) == len(self._slots) else type(self)(**known)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._values(self) == self._values(other)

    def __hash__(self) -> int:
        return hash(self._values(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.as_dict().items())})"
