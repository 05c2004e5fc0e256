"""How what searches brought is written down."""

from uuid import uuid4

from minion_memory.retrieval.domain import AccessLog
from minion_memory.retrieval.store import RetrievalStore, SearchLimits
from minion_memory.retrieval.worker import AccessWriter
from minion_telemetry import Telemetry
from minion_testing.postgres import ClonedDatabase, ServiceDatabaseSettings
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


async def test_no_statement_writes_more_than_its_part(postgres: ClonedDatabase) -> None:
    exporter = InMemorySpanExporter()
    settings = ServiceDatabaseSettings.load({}, database_url=postgres.dsn("memory"))
    telemetry = Telemetry.start("memory", settings, span_exporters=[exporter])
    accesses = AccessLog(20_000)
    accesses.note(uuid4(), [uuid4() for _ in range(10_001)])
    async with await postgres.connect("memory", telemetry=telemetry) as database:
        with telemetry.tracer.start_as_current_span("flush"):
            await AccessWriter(RetrievalStore(database, SearchLimits(1, 1, 1)), accesses, seconds=60).flush()
    telemetry.shutdown()
    written = [span.name for span in exporter.get_finished_spans() if span.name == "memory.note_accesses"]
    assert len(written) == 3
    assert accesses.take() == []
