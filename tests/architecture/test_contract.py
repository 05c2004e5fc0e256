"""The contract keeps its own conventions, and every RPC of it has a test."""

import re

import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from minion_auth import RULES, CallerKind

from tests.architecture.contract import ROOT, methods, reasons

_READS = ("Check", "Get", "List", "Search", "Export", "Resolve", "Watch", "Verify", "Validate")
# Mutations that take no request_id, and why they are safe to retry without one.
_KEYED_OTHERWISE = {
    "RecordActivities": "each activity_id is its own key",
    "PutBlob": "the same bytes in the same session are stored once",
    "BeginTurn": "its source (run and step) is its key, for ever",
    "CleanupExpiredSessions": "what was told and deleted is not there to be told and deleted again",
    "EndTurn": "releasing what isn't held changes nothing",
    "ImportMemories": "agent, user and key are each memory's own key",
    "Complete": "stores nothing; a retry asks and pays again, as its comment says",
    "StreamComplete": "stores nothing; a retry asks and pays again, as its comment says",
    "Embed": "stores nothing",
    "RegisterEmbeddingModel": "the model's name is its key",
    "SetDefaultEmbeddingModel": "choosing the same again changes nothing",
}

# Services that are agreed on and not served yet, and by whom they will be.
_NOT_SERVED = {"minion.activity.v1.EvaluationService": "the activity service, with evaluations"}

# What no client sees: a fault of starting up, and why an attempt of a dead replica has no answer.
_LOCAL_REASONS = {
    "PORT_UNAVAILABLE",
    "REPLICA_LOST",
    "SCHEMA_FOREIGN",
    "SCHEMA_NOT_MIGRATED",
    "SCHEMA_OUTDATED",
    "TLS_FILES_INVALID",
}


def _tests_text() -> str:
    here = ROOT / "tests" / "architecture"
    return "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if here not in path.parents)


def rule_of(method: MethodDescriptor) -> str:
    """Gives the name under which the table of permissions has a method."""
    return f"/{method.containing_service.full_name}/{method.name}"


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
def test_every_rpc_has_requests_and_responses_of_its_own(method: MethodDescriptor) -> None:
    assert method.input_type.name == f"{method.name}Request"
    assert method.output_type.name == f"{method.name}Response"


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
def test_every_mutation_takes_a_request_id(method: MethodDescriptor) -> None:
    if method.name.startswith(_READS) or method.name in _KEYED_OTHERWISE:
        return
    assert "request_id" in method.input_type.fields_by_name


@pytest.mark.parametrize(
    "method", [method for method in methods() if method.name.startswith("List")], ids=lambda method: method.full_name
)
def test_every_list_is_paged(method: MethodDescriptor) -> None:
    assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
    first = method.output_type.fields[0]
    assert first.is_repeated
    assert "next_page_token" in method.output_type.fields_by_name


@pytest.mark.parametrize(
    "method",
    # What operators do with tenants, and what services ask about them, names one; a tenant's calls never do.
    [method for method in methods() if CallerKind.TENANT in RULES[rule_of(method)].callers],
    ids=lambda method: method.full_name,
)
def test_no_request_of_a_tenant_names_the_tenant(method: MethodDescriptor) -> None:
    fields: list[FieldDescriptor] = list(method.input_type.fields)
    assert not [field.name for field in fields if field.name == "tenant_id"]


def test_every_service_is_served_or_known_not_to_be() -> None:
    mains = {path.parent.name.removeprefix("minion_"): path.read_text() for path in ROOT.glob("services/*/__main__.py")}
    unserved = set()
    for service in {method.containing_service for method in methods()}:
        owner = service.full_name.split(".")[1]
        if f'services_by_name["{service.name}"]' not in mains[owner]:
            unserved.add(service.full_name)
    assert unserved == set(_NOT_SERVED)


def test_every_rpc_is_called_by_a_test() -> None:
    text = _tests_text()
    untested = [method.full_name for method in methods() if not re.search(rf"[./]{method.name}\b", text)]
    assert untested == []


def test_every_reason_raised_stands_in_the_contract() -> None:
    known = reasons()
    raised: dict[str, str] = {}
    for source in ("services", "shared"):
        for path in (ROOT / source).rglob("*.py"):
            # The command line's own faults are printed, not sent.
            if path.relative_to(ROOT / source).parts[0] in ("minion", "minion_cli"):
                continue
            for reason in re.findall(r"reason=\"([A-Z][A-Z_]+)\"", path.read_text()):
                raised[reason] = str(path.relative_to(ROOT))
    assert {reason: path for reason, path in raised.items() if reason not in known | _LOCAL_REASONS} == {}
    assert raised
