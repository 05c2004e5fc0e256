"""Named queries from `.sql` files.

```sql
-- name: list_messages
-- The messages of a session after a sequence, oldest first.
SELECT sequence, role FROM session.messages WHERE tenant_id = $1 AND session_id = $2;
```

A file is loaded once, at import; a nameless, undescribed, empty or doubled query is refused there.
"""

import re
from collections.abc import Iterator, Mapping
from importlib import resources

_NAME = re.compile(r"^-- name: *(\S+) *$", re.MULTILINE)
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")


class Query(str):
    """The text of a query that knows its name, for spans and messages.

    asyncpg takes nothing but an exact str: where it is called directly, give it `text`, as `Database` does.
    """

    __slots__ = ("description", "name", "text")

    name: str
    description: str
    text: str

    def __new__(cls, text: str, *, name: str, description: str) -> "Query":
        query = super().__new__(cls, text)
        query.name = name
        query.description = description
        query.text = text
        return query


class Queries(Mapping[str, Query]):
    """The queries of one file, as `queries["list_messages"]` or `queries.list_messages`."""

    def __init__(self, queries: Mapping[str, Query]) -> None:
        self._queries = dict(queries)

    def __getitem__(self, name: str) -> Query:
        return self._queries[name]

    def __getattr__(self, name: str) -> Query:
        try:
            return self._queries[name]
        except KeyError:
            raise AttributeError(f"there is no query named {name}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._queries)

    def __len__(self) -> int:
        return len(self._queries)


def load(package: str, file: str = "queries.sql") -> Queries:
    """Reads the named queries of a file in a package: `load(__package__)`. Raises ValueError when it is malformed."""
    return parse(resources.files(package).joinpath(file).read_text(encoding="utf-8"), where=f"{package}/{file}")


def parse(text: str, *, where: str) -> Queries:
    """Takes a file's text apart; `where` names it in errors."""
    marks = list(_NAME.finditer(text))
    preamble = text[: marks[0].start()] if marks else text
    if any(line.strip() and not line.startswith("--") for line in preamble.splitlines()):
        raise ValueError(f"{where} has SQL before its first '-- name:' line")
    queries: dict[str, Query] = {}
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        name = mark.group(1)
        if not _IDENTIFIER.fullmatch(name) or hasattr(Queries, name):
            raise ValueError(f"{where}: {name!r} is no name for a query")
        if name in queries:
            raise ValueError(f"{where}: {name} stands twice")
        lines = text[mark.end() : following.start() if following else None].strip().splitlines()
        count = next((index for index, line in enumerate(lines) if not line.startswith("--")), len(lines))
        description = " ".join(line.removeprefix("--").strip() for line in lines[:count])
        body = "\n".join(lines[count:]).strip().removesuffix(";")
        if not description or not body:
            raise ValueError(f"{where}: {name} lacks its {'SQL' if description else 'line of description'}")
        queries[name] = Query(body, name=name, description=description)
    return Queries(queries)
