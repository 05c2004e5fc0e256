"""What several settings must be together.

A relation is a method of a settings class that yields the faults between fields, a matter each:

```python
@relation
def _pool_has_room(self) -> Iterator[Fault]:
    \"\"\"Yields a minimum above the maximum.\"\"\"
    if self.pool_min_size > self.pool_max_size:
        yield Fault(self.variable("pool_min_size"), f"must be at most {self.variable('pool_max_size')}")
```

Each is asked by itself, so that one which can't be answered, because a field that it reads is wrong by itself, hides no
other. One that a subclass defines again, under the same name, stands in for its base's; two bases that know nothing of
each other may not use one name, because one of the two would never be asked.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

from minion_settings.faults import Fault

_Check = TypeVar("_Check", bound=Callable[[Any], Iterator[Fault]])
_MARK: Final = "__minion_relation__"


def relation(check: _Check) -> _Check:
    """Marks a method of a settings class as a relation."""
    setattr(check, _MARK, True)
    return check


def relations(settings: object, *, without: Collection[str] = ()) -> Iterator[Fault]:
    """Yields what the relations of the settings' class and of all its bases find, the bases' first.

    `without` are the fields that the settings lack: a relation ends where it reads one of them.
    """
    for name in _declarations(type(settings)):
        check = getattr(type(settings), name)
        try:
            yield from check(settings)
        except AttributeError as absent:
            if absent.name not in without:
                raise


def check_names(settings: type) -> None:
    """Raises TypeError where a relation of one base hides another's that it doesn't stand in for."""
    for name, declaring in _declarations(settings).items():
        last = declaring[-1]
        hidden = [base.__name__ for base in declaring if not issubclass(last, base)]
        if hidden:
            raise TypeError(f"{settings.__name__}: the relation {name} of {last.__name__} hides that of {hidden[0]}")


def _declarations(settings: type) -> Mapping[str, Sequence[type]]:
    """Maps each relation's name to the classes that declare it, the bases first; the last one's is asked."""
    found: dict[str, list[type]] = {}
    for declaring in reversed(settings.__mro__):
        for name, member in vars(declaring).items():
            if hasattr(member, _MARK):
                found.setdefault(name, []).append(declaring)
    return found
