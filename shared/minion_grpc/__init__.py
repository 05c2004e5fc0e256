"""Serving and calling: one server interceptor, one client interceptor, one error table, one way to start and stop."""

from minion_grpc.certificates import TlsFiles
from minion_grpc.channel import connect
from minion_grpc.interceptor import EXEMPT_PREFIXES
from minion_grpc.peer_errors import peer_call, translate
from minion_grpc.run import run
from minion_grpc.server import Server
from minion_grpc.settings import ServerSettings
from minion_grpc.wire import request_digest

__all__ = [
    "EXEMPT_PREFIXES",
    "Server",
    "ServerSettings",
    "TlsFiles",
    "connect",
    "peer_call",
    "request_digest",
    "run",
    "translate",
]
