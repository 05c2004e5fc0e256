"""Channels to other services."""

import json
from collections.abc import Iterable
from dataclasses import replace

import grpc
from minion_auth import ServiceTokens
from minion_telemetry import Telemetry

from minion_grpc.certificates import Certificates, RenewedCertificates, TlsFiles, system_ca
from minion_grpc.outgoing import Outgoing
from minion_grpc.renewal import RenewedChannel

KEEPALIVE_MILLISECONDS = 60_000
KEEPALIVE_TIMEOUT_MILLISECONDS = 20_000
# The time that an attempt to connect has.
ATTEMPT_SECONDS = 2.0


def connect(
    address: str,
    *,
    telemetry: Telemetry,
    tls: TlsFiles | None,
    tokens: ServiceTokens | None = None,
    credential: str | None = None,
    retryable: Iterable[str] = (),
    max_message_bytes: int = 4 * 1024 * 1024,
    instrumented: bool = False,
) -> grpc.aio.Channel:
    """Opens a channel that balances over all replicas behind `address` and carries trace, deadline and identity on.

    Call it on the event loop. It connects by itself when first used, and again after a loss.
    Over TLS nothing is sent before the peer has shown a certificate of its name, and renewed files are taken up by the
    calls that begin after them.

    Args:
        address: `host:port`, or any gRPC target; a name with several addresses is balanced round robin.
        tls: the files of TLS (for services their settings' `peer_files`); None speaks plain text. It has no default, so
            that nobody sends credentials in the clear by leaving it out.
        tokens: makes each call as this service, for the caller in hand.
        credential: makes each call with this API key or operator key instead.
        retryable: full names (`/minion.session.v1.SessionService/GetSession`) of methods that are tried again when the
            peer is UNAVAILABLE: only ones that read, or whose requests always carry a `request_id`.
        max_message_bytes: the largest response that is taken.
        instrumented: leaves the calls' spans to OpenTelemetry's own interceptors, which cost more: for callers that
            are no services.

    Raises:
        CertificatesInvalid: the TLS files can't be used.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MILLISECONDS),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_metadata_size", 16 * 1024),
        # A peer that restarts is found again within a second, not after the default's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        # The time that an attempt has, whatever its name: TLS over a distance takes more than a pause between two.
        ("grpc.min_reconnect_backoff_ms", round(ATTEMPT_SECONDS * 1_000)),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.service_config", _service_config(retryable)),
        # Channels to one address would share connections and their state otherwise, and with it one lost balance.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    outgoing = Outgoing(telemetry, tokens, credential, address=address, instrumented=instrumented)
    interceptors = outgoing.interceptors()
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)

    def open_(found: Certificates) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(found.ca, found.key, found.certificate)
        return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)

    files = tls if tls.ca is not None else replace(tls, ca=system_ca())
    return RenewedChannel(RenewedCertificates(files, f"calls to {address}"), open_)


def _service_config(retryable: Iterable[str]) -> str:
    names = []
    for full_name in sorted(set(retryable)):
        service, _, method = full_name.lstrip("/").partition("/")
        names.append({"service": service, "method": method})
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if names:
        config["methodConfig"] = [
            {
                "name": names,
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2.5,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
        # While more than half of the calls fail, nothing is tried again: a struggling peer gets no second load.
        config["retryThrottling"] = {"maxTokens": 100, "tokenRatio": 0.5}
    return json.dumps(config)
