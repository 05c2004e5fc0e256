"""What the app role may do and see, and which indexes its queries use."""

from array import array
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import orjson
import pytest
import pytest_asyncio
from minion_memory.memories.store import packed, prepare
from minion_postgres import SCHEMAS, Connection, Database
from minion_testing.postgres import ClonedDatabase

from tests.minion_memory.stage import Stub, batch, connected, placed, scattered, towards

_TENANT_TABLES = (
    "erased_subjects",
    "memories",
    "memory_vectors",
    "scope_counts",
    "idempotency_keys",
    "memory_revisions",
    "memory_access",
    "unembedded_memories",
    "memory_labels",
    "tenant_models",
    "reembeddings",
    "watched_sessions",
    "extraction_jobs",
)


def wish(agent_id: str) -> str:
    """What asks for the one memory of a scope that fits best."""
    return orjson.dumps(
        {"agent_id": agent_id, "user_id": "ann", "said": "", "most": 1, "weights": [1] * 10, "half_life": "1 day"}
    ).decode()


def _count(table: str) -> str:
    return f"SELECT count(*) FROM memory.{table}"  # noqa: S608 - a name of ours


@pytest_asyncio.fixture(loop_scope="session")
async def app(postgres: ClonedDatabase) -> AsyncIterator[Database]:
    """A pool as the app role."""
    async with await postgres.connect("memory") as database:
        yield database


@pytest_asyncio.fixture(loop_scope="session")
async def connection(postgres: ClonedDatabase) -> AsyncIterator[Connection]:
    """One connection as the app role that speaks pgvector."""
    opened = await connected(postgres.dsn("memory"))
    await prepare(opened)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def scope(memories: Stub) -> str:
    """The agent of a scope of 60 memories."""
    agent_id = str(uuid4())
    await memories.StoreMemories(
        batch(*[placed(scattered(number), agent_id=agent_id, key=str(number)) for number in range(60)])
    )
    return agent_id


@pytest.mark.parametrize("table", _TENANT_TABLES)
async def test_without_a_tenant_no_row_is_seen(app: Database, scope: str, table: str) -> None:
    assert scope
    assert await app.fetch_value(_count(table)) == 0


@pytest.mark.parametrize("table", _TENANT_TABLES[1:4])
async def test_another_tenant_sees_no_row(app: Database, scope: str, tenant_id: UUID, table: str) -> None:
    assert scope
    async with app.transaction(tenant_id) as own:
        assert await own.fetch_value(_count(table)) > 0
    async with app.transaction(uuid4()) as foreign:
        assert await foreign.fetch_value(_count(table)) == 0


async def test_a_row_of_another_tenant_is_not_written(app: Database, tenant_id: UUID) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
        async with app.transaction(tenant_id) as transaction:
            await transaction.execute(
                "INSERT INTO memory.scope_counts (tenant_id, agent_id, user_id) VALUES ($1, $1, 'u')", uuid4()
            )


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM memory.memory_vectors_1",
        "UPDATE memory.memories SET key = 'other'",
        "UPDATE memory.memories SET user_id = 'other'",
        "DELETE FROM memory.scope_counts",
        "INSERT INTO memory.embedding_models (name, provider, dimension) VALUES ('a/b', 'a', 3)",
        "SELECT memory.install_embedding_models()",
        "TRUNCATE memory.memories",
        "UPDATE memory.memories SET revision = 1",
        "UPDATE memory.memory_revisions SET content = 'other'",
        "CREATE TABLE memory.own (id int)",
        "CREATE TEMPORARY TABLE own (id int)",
    ],
)
async def test_app_role_is_refused(app: Database, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(statement)


@pytest.mark.parametrize("schema", [schema for schema in SCHEMAS if schema != "memory"])
async def test_app_role_is_refused_in_other_schemas(app: Database, schema: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.fetch(f"TABLE {schema}.schema_migrations")


async def test_every_tenant_table_is_guarded(postgres: ClonedDatabase) -> None:
    connection = await asyncpg.connect(postgres.admin_dsn)
    rows = await connection.fetch(
        """SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity AS guarded,
                  (SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
                    WHERE i.indrelid = c.oid AND i.indisprimary) AS leads
             FROM pg_class c WHERE c.relnamespace = 'memory'::regnamespace AND c.relkind IN ('r', 'p')"""
    )
    await connection.close()
    tables = {row["name"]: (row["guarded"], row["leads"]) for row in rows}
    # Of the whole deployment, with no tenant's data in them.
    assert {tables.pop(name)[0] for name in ("embedding_models", "schema_migrations", "session_feed")} == {False}
    assert set(tables.values()) == {(True, "tenant_id")}
    assert set(tables) == {*_TENANT_TABLES, "memory_vectors_1", "memory_vectors_2"}


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ((False, False, False, False, False, False, False), "memories_newest"),
        ((True, False, False, False, False, False, False), "memories_newest_of_agent"),
        ((False, True, False, False, False, False, True), "memories_newest_of_user"),
        ((True, True, True, False, False, False, False), "memories_newest_of_scope"),
        ((False, False, True, True, False, False, False), "memories_newest_of_session"),
        ((True, True, True, False, True, False, False), "memories_newest_of_scope"),
        ((True, True, True, True, True, True, False), "memory_labels_pkey"),
    ],
)
async def test_list_reads_by_an_index_of_its_own(
    app: Database, scope: str, tenant_id: UUID, filters: tuple[bool, ...], index: str
) -> None:
    async with app.transaction(tenant_id) as transaction:
        query = await transaction.fetch_value("SELECT memory.list_query($1, $2, $3, $4, $5, $6, $7)", *filters)
        values = {
            "$13": "now()",
            "$12": "'chat'",
            "$11": "'kind'",
            "$10": "'{}'::jsonb",
            "$9": f"'{scope}'::uuid",
            "$8": "1000000",
            "$7": "10",
            "$6": "'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid",
            "$5": "'infinity'::timestamptz",
            "$4": "'fact'",
            "$3": "'ann'",
            "$2": f"'{scope}'::uuid",
            "$1": f"'{tenant_id}'::uuid",
        }
        for parameter, value in values.items():
            query = query.replace(parameter, value)
        await transaction.execute("SET LOCAL enable_seqscan = off")
        await transaction.execute("SET LOCAL enable_sort = off")
        plan = "\n".join(row[0] for row in await transaction.fetch(f"EXPLAIN {query}"))
    assert f"using {index} on" in plan


async def test_walk_uses_the_hnsw_index(connection: Connection, scope: str, tenant_id: UUID) -> None:
    async with connection.transaction():
        await connection.execute("SELECT set_config('minion.tenant', $1, true)", str(tenant_id))
        query = await connection.fetchval("SELECT memory.walk_query(1::smallint, 384)")
        values = {
            "$1": f"'{tenant_id}'::uuid",
            "$2": f"'{scope}'::uuid",
            "$3": "'ann'",
            "$4": "NULL::text[]",
            "$5": f"'{towards(0)}'::vector",
            "$6": "10",
        }
        for parameter, value in values.items():
            query = query.replace(parameter, value)
        await connection.execute("SET LOCAL enable_sort = off")
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {query}"))
    assert "Index Scan using memory_vectors_1_hnsw on memory_vectors_1" in plan
    assert "Sort" not in plan


@pytest.mark.parametrize(
    ("exact_limit", "plan", "index"),
    [(20_000, "exact", "memory_vectors_1_tenant_id_agent_id_user_id_type_idx"), (10, "hnsw", "memory_vectors_1_hnsw")],
)
async def test_search_scans_the_index_of_its_plan(
    connection: Connection,
    scope: str,
    tenant_id: UUID,
    exact_limit: int,
    plan: str,
    index: str,
) -> None:
    async def scans() -> int:
        # Counted within the transaction, so no other test's scan is in it.
        return int(
            await connection.fetchval("SELECT pg_stat_get_xact_numscans(to_regclass('memory.' || $1::text))", index)
        )

    async with connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        before = await scans()
        rows = await connection.fetch(
            "SELECT plan"
            "  FROM memory.retrieve_memories($1, $2, 1::smallint, $3::float4[]::vector, 5, $4, 80, 20000, 1000)",
            tenant_id,
            wish(scope),
            towards(0),
            exact_limit,
        )
        assert [row["plan"] for row in rows] == [plan]
        assert await scans() == before + 1


async def test_store_looks_up_by_key_and_reads_no_other_memory(
    connection: Connection, scope: str, tenant_id: UUID
) -> None:
    said = {
        "agent_id": scope,
        "user_id": "ann",
        "type": "fact",
        "content": "Tea.",
        "speaker": "",
        "importance": 0.5,
        "confidence": 1,
        "trust": "user",
        "labels": {},
        "metadata": {},
        "source_sequences": [],
        "source_quote": "",
        "model_id": 1,
        "vector_given": True,
    }
    items = [{**said, "memory_id": str(uuid4()), "key": f"new {number}"} for number in range(5)]
    async with connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        await connection.fetchval(
            "SELECT memory.store_memories($1, NULL, NULL, $2::jsonb, $3::vector[])",
            tenant_id,
            orjson.dumps(items).decode(),
            [packed(array("f", towards(number))) for number in range(5)],
        )
        # Counted within the transaction, so no other test's reads are in it.
        read = await connection.fetchval(
            "SELECT pg_stat_get_xact_tuples_fetched('memory.memories'::regclass)"
            "     + pg_stat_get_xact_tuples_returned('memory.memories'::regclass)"
        )
    assert read <= 5


async def test_settings_of_a_walk_end_with_it(connection: Connection, scope: str, tenant_id: UUID) -> None:
    walked = await connection.fetchval(
        "SELECT plan FROM memory.retrieve_memories($1, $2, 1::smallint, $3::float4[]::vector, 5, 10, 80, 20000, 1000)",
        tenant_id,
        wish(scope),
        towards(0),
    )
    assert walked == "hnsw"
    settings = await connection.fetchrow(
        "SELECT current_setting('enable_sort') AS sorting, current_setting('hnsw.iterative_scan') AS walk,"
        " nullif(current_setting('minion.tenant'), '') AS tenant"
    )
    assert settings is not None
    assert tuple(settings) == ("on", "off", None)
