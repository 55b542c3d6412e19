"""Who may talk to the server: checked before any route is looked at.

- Host: a page of somebody else whose name was pointed at this machine (DNS rebinding) calls it by its own name.
- Origin: a page of somebody else may send requests here, but the browser says from where.
- Token: asked for wherever the server is bound to more than the loopback. `/?token=...` turns it into a cookie that
  scripts cannot read and other sites cannot send; programs send `Authorization: Bearer ...`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

__all__ = ["Guard"]

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
COOKIE = "paintback-token"
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
    """

    def __init__(self, app: App, hosts: frozenset[str], token: str | None) -> None:
        self.app, self.hosts, self.token = app, hosts, token

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
                cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
                await _reply(sending, 303, "", ((b"location", b"/"), (b"set-cookie", cookie.encode())))
                return
            if not self._shown(headers):
                refusal = 401, "This server asks for its token; open the address that `paintback serve` printed."
        if refusal is not None:
            more = ((b"www-authenticate", b"Bearer"),) if refusal[0] == 401 else ()
            await _reply(sending, *refusal, more)
            return
        await self.app(scope, receive, sending)

    def _refusal(self, scope: Scope, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if _name(host) not in self.hosts:
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
            cookie = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._same(cookie.value)

    def _same(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())


def _name(host: str) -> str:
    """The host of `host:port`, without the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


async def _reply(send: Any, status: int, text: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    body = json.dumps({"detail": text}).encode() if text else b""
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})
