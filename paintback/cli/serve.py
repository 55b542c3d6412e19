"""`paintback serve`: the page for the browser, and the HTTP API."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

import click

from paintback.cli.output import remark

__all__ = ["serve"]


def _state() -> Path:
    """Where programs of a user keep what they may forget only when told: the platform's folder."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "paintback"


def _bind(host: str, port: int) -> socket.socket:
    """The address, ours from now on: who opens it at once waits a moment and is not refused.

    Raises:
        ValueError: if it cannot be had.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise ValueError(f"--host {host!r} is no address; give one of this machine, such as 127.0.0.1.") from None
    sock = socket.socket(family, kind)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise ValueError(
            f"Port {port} of {host} is taken; stop what uses it, or give another --port (0 for any free one)."
            if error.errno == errno.EADDRINUSE
            else f"--host {host} --port {port} cannot be had ({error.strerror}); give another one."
        ) from None
    return sock


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8040, show_default=True, help="0 for any free one.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of jobs and pictures.  [default: the user's own]")
@click.option(
    "--model", "models", multiple=True, metavar="NAME=PATH", help="A model to offer besides the shipped ones."
)
@click.option("--workers", type=click.IntRange(1, 16), default=1, show_default=True, help="Jobs that run at once.")
@click.option("--device", help="cpu, cuda, mps.  [default: cuda where there is one]")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Of the networks.")
@click.option(
    "--offload",
    type=click.Choice(["none", "model", "group", "sequential"]),
    help="Which modules of pipelines wait in the host's memory.",
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads.")
@click.option("--token", envvar="PAINTBACK_TOKEN", help="What requests have to show.  [default: random; none at home]")
@click.option("--allow-host", "names", multiple=True, metavar="NAME", help="A name that this server goes by.")
@click.option("--max-megapixels", type=click.FloatRange(0.01), default=24.0, show_default=True, help="Of a picture.")
@click.option("--max-upload", type=click.FloatRange(0.01), default=64.0, show_default=True, help="MiB of a file.")
@click.option("--max-waiting", type=click.IntRange(1), default=200, show_default=True, help="Jobs in the queue.")
@click.option("--max-per-client", type=click.IntRange(1), default=64, show_default=True, help="Of one address.")
@click.option("--keep-days", type=click.FloatRange(0.01), default=30.0, show_default=True, help="Of finished jobs.")
def serve(
    host: str,
    port: int,
    data: Path | None,
    models: tuple[str, ...],
    workers: int,
    device: str | None,
    threads: int | None,
    token: str | None,
    names: tuple[str, ...],
    **most: Any,
) -> None:
    """Serve the page and the HTTP API, on this machine unless --host says otherwise.

    Bound elsewhere, every request needs the token; the address that is printed holds it. Jobs wait in --data and
    survive a restart. Ctrl-C ends the server; what was half done runs again at the next start.
    """
    try:
        import uvicorn

        from paintback.web.app import make_app
    except ImportError as error:
        raise ValueError(f"The page needs {error.name}; pip install 'paintback[web]'.") from None
    from paintback.web.config import LOOPBACK, Config, Limits, offers
    from paintback.web.connections import BACKLOG, limited, most_connections

    given: dict[str, str] = {}
    for pair in models:
        name, equals, source = pair.partition("=")
        if not equals or not name or not source:
            raise ValueError(f"--model takes NAME=PATH; got {pair!r}.")
        given[name] = source
    at_home = host in LOOPBACK
    if token is None and not at_home:
        token = secrets.token_urlsafe(24)
    limits = Limits(
        upload_bytes=int(most["max_upload"] * 2**20),
        pixels=int(most["max_megapixels"] * 1e6),
        waiting=most["max_waiting"],
        waiting_per_client=most["max_per_client"],
        days=most["keep_days"],
    )
    hosts = LOOPBACK | {name.lower() for name in names} | ({host.lower()} - {"0.0.0.0", "::"})
    own = frozenset(hosts)
    config = Config(
        data or _state(), offers(given), limits, own, token, workers, device, threads, most["dtype"], most["offload"]
    )
    sock = _bind(host, port)
    try:
        app = make_app(config)
    except BaseException:
        sock.close()
        raise
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=limited(most_connections()),
            ws="none",
            backlog=BACKLOG,
            log_level="error",
            timeout_graceful_shutdown=3,
            server_header=False,
        )
    )
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    click.echo(f"http://{shown}:{sock.getsockname()[1]}/" + (f"?token={token}" if token else ""))
    remark("serving; Ctrl-C ends it.")
    if token:
        remark("whoever has the token sees all jobs; give --data and --port of their own to people who must not.")
    if not at_home and not names:
        remark("other machines reach it by a name that --allow-host allows.")
    server.run(sockets=[sock])
