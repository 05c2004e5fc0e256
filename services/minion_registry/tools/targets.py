"""Reads where tools answer: the form of addresses and URLs. What they lead to is looked at when a tool is called."""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Any, Final
from urllib.parse import urlsplit

from minion.registry.v1 import tool_pb2
from minion_errors import Violations

from minion_registry.tools.domain import GrpcTarget, HttpMethod, HttpTarget, McpTarget

_URL_CHARACTERS = 2_000
_ADDRESS_CHARACTERS = 300
_NAME_CHARACTERS = 200
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?", re.IGNORECASE | re.ASCII)
_ADDRESS: Final = re.compile(r"(\[(?P<six>[^\[\]]*)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
# White space, control characters, and what a URL may hold in escaped form alone.
_UNSAFE: Final = re.compile(r"[^!#-;=?-\[\]_a-z~]|\\", re.IGNORECASE | re.ASCII)

_METHODS = {
    tool_pb2.HTTP_METHOD_UNSPECIFIED: HttpMethod.POST,
    tool_pb2.HTTP_METHOD_GET: HttpMethod.GET,
    tool_pb2.HTTP_METHOD_POST: HttpMethod.POST,
    tool_pb2.HTTP_METHOD_PUT: HttpMethod.PUT,
    tool_pb2.HTTP_METHOD_DELETE: HttpMethod.DELETE,
}
_METHODS_TO_PROTO = {method: value for value, method in _METHODS.items() if value}


def grpc_from_proto(violations: Violations, tool: tool_pb2.Tool) -> GrpcTarget | None:
    """Reads a gRPC tool's target."""
    if not tool.HasField("grpc"):
        return None
    address = tool.grpc.address
    match = _ADDRESS.fullmatch(address) if len(address) <= _ADDRESS_CHARACTERS else None
    if match is None or not _is_host(match["six"], match["host"]) or not 1 <= int(match["port"]) <= 65_535:
        violations.add("tool.grpc.address", "must be host:port, at most 300 characters")
    return GrpcTarget(address, tool.grpc.tls, _name(violations, "tool.grpc.tool_name", tool.grpc.tool_name))


def http_from_proto(violations: Violations, tool: tool_pb2.Tool) -> HttpTarget | None:
    """Reads an HTTP tool's target."""
    if not tool.HasField("http"):
        return None
    if tool.http.method not in _METHODS:
        violations.add("tool.http.method", "must be GET, POST, PUT or DELETE")
    method = _METHODS.get(tool.http.method, HttpMethod.POST)
    return HttpTarget(_url(violations, "tool.http.url", tool.http.url), method)


def mcp_from_proto(violations: Violations, tool: tool_pb2.Tool) -> McpTarget | None:
    """Reads an MCP tool's target."""
    if not tool.HasField("mcp"):
        return None
    url = _url(violations, "tool.mcp.url", tool.mcp.url)
    return McpTarget(url, _name(violations, "tool.mcp.tool_name", tool.mcp.tool_name))


def grpc_to_proto(target: GrpcTarget | None) -> tool_pb2.GrpcTarget | None:
    """Writes a gRPC tool's target."""
    if target is None:
        return None
    return tool_pb2.GrpcTarget(address=target.address, tls=target.tls, tool_name=target.tool_name)


def http_to_proto(target: HttpTarget | None) -> tool_pb2.HttpTarget | None:
    """Writes an HTTP tool's target."""
    if target is None:
        return None
    return tool_pb2.HttpTarget(url=target.url, method=_METHODS_TO_PROTO[target.method])


def mcp_to_proto(target: McpTarget | None) -> tool_pb2.McpTarget | None:
    """Writes an MCP tool's target."""
    if target is None:
        return None
    return tool_pb2.McpTarget(url=target.url, tool_name=target.tool_name)


def _name(violations: Violations, field: str, name: str) -> str:
    return violations.length(field, name, maximum=_NAME_CHARACTERS)


def _url(violations: Violations, field: str, url: str) -> str:
    if not _is_url(url):
        violations.add(
            field, "must be an http or https URL with a host, no user and no fragment, at most 2,000 characters"
        )
    return url


def _is_url(url: str) -> bool:
    if len(url) > _URL_CHARACTERS or _UNSAFE.search(url) or "#" in url:
        return False
    try:
        parts: Any = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or "@" in parts.netloc or port == 0 or parts.netloc.endswith(":"):
        return False
    return _is_host(host, None) if "[" in parts.netloc else _is_host(None, host)


def _is_host(six: str | None, host: str | None) -> bool:
    if six is None:
        return bool(host and _HOST.fullmatch(host))
    try:
        IPv6Address(six)
    except AddressValueError:
        return False
    return "%" not in six
