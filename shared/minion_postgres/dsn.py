"""Connection strings: who connects where, with which password."""

from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, quote, unquote, unquote_plus, urlsplit, urlunsplit

_SCHEMES = ("postgresql", "postgres")


@dataclass(frozen=True, slots=True)
class Target:
    """What a connection string says, apart from its options."""

    user: str | None
    password: str | None
    place: str  # "host:port/database" or "/socket/folder/database": for messages, holds no secret
    database: str | None


def parse(dsn: str) -> Target:
    """Takes a connection string apart. Raises ValueError when it is none."""
    parts = urlsplit(dsn)
    if parts.scheme not in _SCHEMES:
        raise ValueError("must look like postgresql://host:5432/database")
    if parts.fragment or _is_cut_short(parts):
        # What the password's beginning stands in would be taken for the hosts, which are no secret.
        raise ValueError("has a '/', '?' or '#' in its user or password: write it as %2F, %3F or %23")
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    database = unquote(parts.path.removeprefix("/")) or query.get("database") or query.get("dbname")
    return Target(
        user=unquote(user) or query.get("user"),
        password=unquote(password) or query.get("password"),
        place=f"{hosts or query.get('host', 'localhost')}/{database or ''}",
        database=database,
    )


def with_credentials(dsn: str, user: str, password: str | None) -> str:
    """Fills in the user where the string names none, and the password where it has none."""
    target = parse(dsn)
    parts = urlsplit(dsn)
    user = target.user or user
    password = target.password or password
    hosts = parts.netloc.rpartition("@")[2]
    secret = f":{quote(password, safe='')}" if password else ""
    return urlunsplit(parts._replace(netloc=f"{quote(user, safe='')}{secret}@{hosts}"))


def with_database(dsn: str, database: str) -> str:
    """Points the string at another database of the same server."""
    return urlunsplit(urlsplit(dsn)._replace(path="/" + quote(database, safe="")))


def as_other_user(dsn: str, user: str, password: str | None) -> str:
    """Replaces the user; the password that the string holds is not the other user's, so it goes."""
    parts = urlsplit(dsn)
    hosts = parts.netloc.rpartition("@")[2]
    # Both may stand among the options as well.
    options = [option for option in parts.query.split("&") if _name(option) not in ("user", "password")]
    return with_credentials(urlunsplit(parts._replace(netloc=hosts, query="&".join(options))), user, password)


def _is_cut_short(parts: SplitResult) -> bool:
    """Tells whether a user and password end the hosts' part early: what ends them comes in a later one."""
    if "@" in parts.netloc or ":" not in parts.netloc:
        return False
    options = [option for option in parts.query.split("&") if "=" not in option]
    return any("@" in part for part in (parts.path, *options))


def _name(option: str) -> str:
    return unquote_plus(option.partition("=")[0])
