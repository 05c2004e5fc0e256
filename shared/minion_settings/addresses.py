"""Where others answer, as settings name it; what can be no such place is refused at the start, not by a call."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

# gRPC's own kinds of names (dns:///host:port, ipv4:…, unix:…): what stands behind them is gRPC's to judge.
_TARGET = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):.+")
_PLACE = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]@]+):(?P<port>\d{1,5})")
_LAST_PORT = 65_535


def _is_target(address: str) -> str:
    if _TARGET.fullmatch(address):
        return address
    place = _PLACE.fullmatch(address)
    if place is None or not 0 < int(place["port"]) <= _LAST_PORT:
        raise ValueError("must be host:port, with no scheme, or another gRPC target such as dns:///host:port")
    return address


def _is_http(address: str) -> str:
    try:
        parts = urlsplit(address)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise ValueError("must be an address such as http://host:port, or one with https://")
    return address


# Where a service answers to gRPC: `host:port`, or another gRPC target.
Address = Annotated[str, AfterValidator(_is_target)]
# Where a server answers to HTTP, or to gRPC under such an address.
HttpAddress = Annotated[str, AfterValidator(_is_http)]
