"""Puts the nouns' RPCs together into the one service of the contract."""

from minion.memory.v1.memory_service_pb2_grpc import MemoryServiceServicer

from minion_memory.consolidation.service import Consolidation
from minion_memory.consolidation.servicer import ConsolidationRpcs
from minion_memory.extraction.service import Extraction
from minion_memory.extraction.servicer import ExtractionRpcs
from minion_memory.memories.service import Memories
from minion_memory.memories.servicer import MemoryRpcs
from minion_memory.portability.service import Portability
from minion_memory.portability.servicer import PortabilityRpcs
from minion_memory.retrieval.service import Retrieval
from minion_memory.retrieval.servicer import RetrievalRpcs
from minion_memory.revisions.service import Revisions
from minion_memory.revisions.servicer import RevisionRpcs
from minion_memory.subjects.service import Subjects
from minion_memory.subjects.servicer import SubjectRpcs


class MemoryServicer(
    MemoryRpcs,
    RetrievalRpcs,
    RevisionRpcs,
    PortabilityRpcs,
    SubjectRpcs,
    ExtractionRpcs,
    ConsolidationRpcs,
    MemoryServiceServicer,
):
    """Serves minion.memory.v1.MemoryService."""

    def __init__(
        self,
        *,
        memories: Memories,
        retrieval: Retrieval,
        revisions: Revisions,
        portability: Portability,
        subjects: Subjects,
        extraction: Extraction,
        consolidation: Consolidation,
    ) -> None:
        self._memories = memories
        self._retrieval = retrieval
        self._revisions = revisions
        self._portability = portability
        self._subjects = subjects
        self._extraction = extraction
        self._consolidation = consolidation
