"""Who may talk to the server: checked before any route is looked at.

- Host: a page of somebody else whose name was pointed at this machine (DNS rebinding) calls it by its own name.
- Origin: a page of somebody else may send requests here, but the browser says from where.
- Token: asked for wherever the server is bound to more than the loopback. `/?token=...` turns it into a cookie that
  scripts cannot read and other sites cannot send; programs send `Authorization: Bearer ...`.
- Time: a body that comes too slowly is not waited for, so that nobody holds the server by sending nothing.
- Length: a body that is too long is refused as soon as that is known, whatever route reads it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

__all__ = ["Guard"]

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:(?P<port>[0-9]{1,5}))?")
COOKIE = "paintback-token"  # and the port: a browser sends a host's cookies to all of its ports
PATIENCE = 20.0  # seconds without a byte of a body
SLOWEST = 16 * 1024  # bytes a second, after as many seconds
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Guard:
    """An ASGI application around another one.

    Args:
        app: the one within.
        hosts: names that a request may call this server by.
        token: what a request has to show, or None.
        patience: seconds that a body may keep the server waiting.
        most: bytes of a body, or None.
        uploads: path of the route that counts them itself.
    """

    def __init__(
        self,
        app: App,
        hosts: frozenset[str],
        token: str | None,
        patience: float = PATIENCE,
        most: int | None = None,
        uploads: str = "",
    ) -> None:
        self.app, self.hosts, self.token, self.patience = app, hosts, token, patience
        self.most, self.uploads = most, uploads

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        headers: dict[bytes, bytes] = dict(scope["headers"])
        refusal = self._refusal(scope, headers)
        if refusal is None and self.token is not None:
            given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
            if scope["path"] == "/" and given and self._same(given):
                cookie = f"{_cookie(headers)}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                await _reply(sending, 303, "", ((b"location", b"/"), (b"set-cookie", cookie.encode())))
                return
            if not self._shown(headers):
                refusal = 401, "This server asks for its token; open the address that `paintback serve` printed."
        if refusal is not None:
            more = ((b"www-authenticate", b"Bearer"),) if refusal[0] == 401 else ()
            await _reply(sending, *refusal, (*more, (b"connection", b"close")))
            return
        with suppress(ClientDisconnect):  # nobody is there to be answered
            most = None if scope["path"] == self.uploads else self.most
            await self.app(scope, self._limited(receive, most), sending)

    def _limited(self, receive: Any, most: int | None) -> Any:
        """`receive` with limits on the time and the bytes that the body takes."""
        began, size, whole = time.monotonic(), 0, False

        async def receiving() -> MutableMapping[str, Any]:
            nonlocal size, whole
            if whole:  # what comes now is the end of the connection
                message: MutableMapping[str, Any] = await receive()
                return message
            late = began + self.patience + size / SLOWEST - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, min(self.patience, late)))
            except asyncio.TimeoutError:
                text = f"The body came too slowly, {size} bytes in {time.monotonic() - began:.0f} s; send it again."
                raise HTTPException(408, text, {"connection": "close"}) from None
            size += len(message.get("body", b""))
            if most is not None and size > most:
                text = f"The body is longer than {most} bytes, which is all that it may be"
                raise HTTPException(413, f"{text}; send pictures to {self.uploads}.", {"connection": "close"})
            whole = not message.get("more_body", False)
            return message

        return receiving

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        parts = HOST.fullmatch(host)
        if parts is None or parts["name"].strip("[]") not in self.hosts or int(parts["port"] or 0) > 65535:
            return 421, "This server does not go by that name; start it with --allow-host NAME."
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() not in (f"http://{host}", f"https://{host}"):
            return 403, "Another site's page may not use this server."
        if headers.get(b"sec-fetch-site") == b"cross-site" and scope["path"].startswith("/api/"):
            return 403, "Another site's page may not use this server."
        return None

    def _shown(self, headers: dict[bytes, bytes]) -> bool:
        kind, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if kind.lower() == "bearer" and self._same(value.strip()):
            return True
        try:
            cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(_cookie(headers))
        except CookieError:
            return False
        return cookie is not None and self._same(cookie.value)

    def _same(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())


def _cookie(headers: dict[bytes, bytes]) -> str:
    parts = HOST.fullmatch(headers.get(b"host", b"").decode("latin-1").lower())
    return COOKIE if parts is None or not parts["port"] else f"{COOKIE}-{parts['port']}"


async def _reply(send: Any, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = json.dumps({"detail": text}).encode() if text else b""
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
