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
other.
"""

from collections.abc import Callable, Collection, Iterator
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
    for declaring in reversed(type(settings).__mro__):
        for check in vars(declaring).values():
            if not hasattr(check, _MARK):
                continue
            try:
                yield from check(settings)
            except AttributeError as absent:
                if absent.name not in without:
                    raise
