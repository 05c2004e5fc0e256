"""Named queries, connection strings, and the settings made of them."""

from typing import ClassVar

import pytest
from minion_postgres import DatabaseSettings, Query, dsn, feed, idempotency, queries, roles
from minion_settings import SettingsError

GOOD = """-- The queries of a test.

-- name: first
-- Does one thing,
-- said in two lines.
SELECT 1;

-- name: second
-- Does another.
SELECT 2 -- a comment inside
  FROM things;
"""


class SessionSettings(DatabaseSettings):
    """The session service."""

    service: ClassVar[str] = "session"


def test_queries_know_their_names() -> None:
    loaded = queries.parse(GOOD, where="test")
    assert list(loaded) == ["first", "second"]
    assert loaded["first"] is loaded.first
    assert loaded.first == "SELECT 1"
    assert type(loaded.first.text) is str
    assert (loaded.first.name, loaded.first.description) == ("first", "Does one thing, said in two lines.")
    assert loaded.second == "SELECT 2 -- a comment inside\n  FROM things"
    assert isinstance(loaded.second, Query)
    with pytest.raises(AttributeError, match="no query named third"):
        _ = loaded.third


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- name: a\n-- A.\nSELECT 1;\n-- name: a\n-- A.\nSELECT 1;", "a stands twice"),
        ("-- name: a\nSELECT 1;", "lacks its line of description"),
        ("-- name: a\n-- A.\n", "lacks its SQL"),
        ("SELECT 1;\n-- name: a\n-- A.\nSELECT 1;", "SQL before its first"),
        ("-- name: get\n-- Hides Mapping.get.\nSELECT 1;", "no name for a query"),
        ("-- name: A-b\n-- A.\nSELECT 1;", "no name for a query"),
    ],
)
def test_malformed_queries_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        queries.parse(text, where="test")


@pytest.mark.parametrize(
    ("given", "filled"),
    [
        ("postgresql://h:5/d", "postgresql://u:p%40@h:5/d"),
        ("postgresql://x@h/d?sslmode=require", "postgresql://x:p%40@h/d?sslmode=require"),
        ("postgresql://x:y@h1,h2/d", "postgresql://x:y@h1,h2/d"),
        ("postgresql:///d?host=/run&port=7", "postgresql://u:p%40@/d?host=/run&port=7"),
    ],
)
def test_credentials_are_filled_in_where_they_lack(given: str, filled: str) -> None:
    assert dsn.with_credentials(given, "u", "p@") == filled


def test_a_target_names_its_place_without_secrets() -> None:
    target = dsn.parse("postgres://u%40x:p%2F@h:5432/d")
    assert (target.user, target.password, target.place, target.database) == ("u@x", "p/", "h:5432/d", "d")
    assert dsn.parse("postgresql:///d?host=/run/pg").place == "/run/pg/d"
    assert dsn.with_database("postgresql://u:p@h/d?a=b", "other") == "postgresql://u:p@h/other?a=b"


def test_the_services_roles_are_filled_in() -> None:
    settings = SessionSettings.load(
        {
            "MINION_DATABASE_URL": "postgresql://db/minion",
            "MINION_SESSION_DATABASE_PASSWORD": "app",
            "MINION_SESSION_OWNER_DATABASE_PASSWORD": "own",
        }
    )
    assert settings.app_dsn == "postgresql://minion_session_app:app@db/minion"
    assert settings.owner_dsn == "postgresql://minion_session_owner:own@db/minion"


def test_the_apps_password_is_never_the_owners() -> None:
    settings = SessionSettings.load({"MINION_DATABASE_URL": "postgresql://minion_session_app:secret@db/minion"})
    assert settings.owner_dsn == "postgresql://minion_session_owner@db/minion"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("options", ["user=minion_session_app&password=secret", "password=secret&%75ser=app"])
def test_the_apps_name_and_password_among_the_options_are_never_the_owners(options: str) -> None:
    settings = SessionSettings.load(
        {
            "MINION_DATABASE_URL": f"postgresql://db/minion?{options}&sslmode=require",
            "MINION_SESSION_OWNER_DATABASE_PASSWORD": "own",
        }
    )
    assert settings.owner_dsn == "postgresql://minion_session_owner:own@db/minion?sslmode=require"


@pytest.mark.parametrize("password", ["12/hunter", "12?hunter", "12#hunter", "/hunter", "?a=b&hunter"])
def test_a_password_that_ends_the_address_early_is_refused_and_not_shown(password: str) -> None:
    with pytest.raises(SettingsError, match="write it as %2F, %3F or %23") as caught:
        SessionSettings.load({"MINION_DATABASE_URL": f"postgresql://user:{password}@db/minion"})
    assert "hunter" not in str(caught.value)
    with pytest.raises(ValueError, match="write it as") as refused:
        dsn.parse(f"postgresql://user:{password}@db/minion")
    assert "hunter" not in str(refused.value)


def test_an_at_of_the_database_or_among_the_options_is_no_users() -> None:
    assert dsn.parse("postgresql://h/d@e").place == "h/d@e"
    assert dsn.parse("postgresql://h/d?user=u&password=p@ss") == dsn.Target("u", "p@ss", "h/d", "d")


def test_a_password_with_no_user_is_that_of_every_role() -> None:
    settings = SessionSettings.load({"MINION_DATABASE_URL": "postgresql://:shared@db/minion"})
    assert settings.app_dsn == "postgresql://minion_session_app:shared@db/minion"
    assert settings.owner_dsn == "postgresql://minion_session_owner:shared@db/minion"


def test_an_owners_url_of_its_own_wins() -> None:
    settings = SessionSettings.load(
        {"MINION_DATABASE_URL": "postgresql://pooler/minion", "MINION_OWNER_DATABASE_URL": "postgresql://db/minion"}
    )
    assert settings.owner_dsn == "postgresql://minion_session_owner@db/minion"


def test_a_url_that_is_none_is_a_fault_that_does_not_show_it() -> None:
    with pytest.raises(SettingsError, match="must look like postgresql://") as caught:
        SessionSettings.load({"MINION_DATABASE_URL": "mysql://u:hunter2@h/d"})
    assert "hunter2" not in str(caught.value)


def test_snippets_are_filled_in() -> None:
    texts = [idempotency.table_sql("memory"), idempotency.functions_sql("memory"), feed.table_sql("memory", "news")]
    texts.append(feed.functions_sql("memory", "news"))
    assert not any("{" in text for text in texts)
    assert "CREATE TABLE memory.idempotency_keys" in texts[0]
    assert "memory.read_news" in texts[3]
    assert roles("memory").owner in texts[2]
