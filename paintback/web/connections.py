"""Connections under pressure: a limit on their number, and on the time that each may keep the server waiting.

A connection that sends nothing, or half a request's head, costs a file descriptor. Such ones are closed after a while,
and where there are as many connections as the process can hold, the oldest of them make room for a new one: those of
the address that has most, so that whoever opens hundreds shuts out nobody but himself. How long a body may take is
told in `security`, which sees it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

__all__ = ["BACKLOG", "limited", "most_connections"]

HEAD = 10.0  # seconds for the head of a request, and between two requests
STUCK = 60.0  # seconds that a client may take nothing of an answer
MOST = 1000  # connections
BACKLOG = 64  # that the system holds until they are taken, all at once
OTHERS = 64  # file descriptors for everything else: the database, pictures, torch
SWEEP = 1.0  # seconds


@dataclass
class _Connection:
    host: str
    transport: Any
    since: float  # it has been waited for
    stuck: float | None = None


def most_connections() -> int:
    """As many as there are file descriptors for; more of them are asked of the system first."""
    try:
        import resource
    except ImportError:  # Windows counts otherwise
        return 256
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + BACKLOG + OTHERS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST if soft == resource.RLIM_INFINITY else max(16, min(MOST, soft - BACKLOG - OTHERS))


def limited(most: int, *, head: float = HEAD, stuck: float = STUCK) -> type[asyncio.Protocol]:
    """The protocol of uvicorn with these limits, all its connections together.

    Args:
        most: connections.
        head: seconds for the head of a request, and between two requests.
        stuck: seconds that a client may take nothing of an answer.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    held: dict[Any, _Connection] = {}
    sweeping = False

    def busy(protocol: Any) -> bool:
        """Whether a request's head has come and its answer has not gone."""
        return protocol.cycle is not None and not protocol.cycle.response_complete

    def make_room() -> None:
        """Ends the one that has waited longest, of the address that has most; the new one where all others are busy."""
        waiting = [protocol for protocol in held if not busy(protocol)]
        hosts = Counter(held[protocol].host for protocol in waiting)
        greedy = max(hosts, key=lambda host: hosts[host])
        oldest = min((one for one in waiting if held[one].host == greedy), key=lambda one: held[one].since)
        held.pop(oldest).transport.abort()

    def sweep() -> None:
        nonlocal sweeping
        now = time.monotonic()
        for protocol, one in list(held.items()):
            if one.stuck is not None and now - one.stuck > stuck:
                one.transport.abort()
            elif busy(protocol):
                one.since = now
            elif now - one.since > head:
                one.transport.abort()
        sweeping = bool(held)
        if sweeping:
            asyncio.get_running_loop().call_later(SWEEP, sweep)

    class Limited(AutoHTTPProtocol):  # type: ignore[misc, valid-type, unused-ignore]
        def connection_made(self, transport: Any) -> None:
            nonlocal sweeping
            super().connection_made(transport)
            peer = transport.get_extra_info("peername")
            held[self] = _Connection(str(peer[0]) if peer else "", transport, time.monotonic())
            if len(held) > most:
                make_room()
            if not sweeping:
                sweeping = True
                asyncio.get_running_loop().call_later(SWEEP, sweep)

        def on_response_complete(self) -> None:
            if self in held:
                held[self].since = time.monotonic()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            held.pop(self, None)
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            if self in held:
                held[self].stuck = time.monotonic()
            super().pause_writing()

        def resume_writing(self) -> None:
            if self in held:
                held[self].stuck = None
            super().resume_writing()

    return Limited
