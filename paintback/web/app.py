"""The HTTP API and the page, as a FastAPI application."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import ValidationError
from pydantic_core import from_json

from paintback import __version__
from paintback.images.errors import PictureError
from paintback.painting.request import ALPHA, MASK_KINDS, sentence
from paintback.web import schemas, tools
from paintback.web.config import Config
from paintback.web.preview import Progress, cost
from paintback.web.schemas import ID, JobRequest, JobView, Options, PictureView, Problem
from paintback.web.security import Guard
from paintback.web.store import FINISHED, NoRoomError, QueueFullError, Store, writing
from paintback.web.tools import FindRequest, PlanView, Reader
from paintback.web.worker import Worker, describe, one_of, read, wish

if TYPE_CHECKING:
    from paintback.images import Picture
    from paintback.images.masks import Mask

__all__ = ["make_app"]

STATIC = FilePath(__file__).parent / "static"
EXAMPLES = FilePath(__file__).parent.parent / "examples"
MEDIA = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".jpg": "image/jpeg",
         ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml", ".png": "image/png"}  # fmt: skip
SIGNATURES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp", b"GIF8": "image/gif",
              b"BM": "image/bmp", b"II": "image/tiff", b"MM": "image/tiff",
              b"P": "image/x-portable-anymap"}  # fmt: skip
PICTURES = ("image/png", "image/jpeg", "image/webp", "image/tiff", "image/bmp", "image/gif", "image/avif", "image/heic",
            "image/x-portable-anymap")  # fmt: skip
EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["job", "progress", "preview"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer"},
    },
}
JOB = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/JobRequest"}}}}
TOGETHER = 2  # pictures that are decoded at once
PULSE = 15.0  # seconds between signs of life on a quiet stream
TICK = 0.1  # seconds between looks at a running job
PURGE = 600.0  # seconds between looks at what is old

log = logging.getLogger(__name__)

PictureId = Annotated[str, Path(pattern=ID, description="Id of a picture.")]
JobId = Annotated[str, Path(pattern=ID, description="Id of a job.")]


def make_app(config: Config) -> FastAPI:
    """The application, with its worker running between startup and shutdown.

    Args:
        config: see there.

    Raises:
        ValueError: if the data folder is in use.
    """
    api = _Api(config)
    app = FastAPI(
        title="Paintback",
        version=__version__,
        description=__doc__,
        lifespan=api.lifespan,
        docs_url=None,  # these two load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        separate_input_output_schemas=False,
        responses={
            401: {"model": Problem, "description": "The token is missing."},
            403: {"model": Problem, "description": "Another site's page asks."},
            421: {"model": Problem, "description": "The server does not go by that name."},
            422: {"model": Problem, "description": "The request is not understood."},
        },
    )
    app.state.store = api.store
    most = config.limits.body_bytes
    app.add_middleware(Guard, hosts=config.hosts, token=config.token, most=most, uploads="/api/pictures")
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(NoRoomError, _no_room)
    app.add_exception_handler(Exception, _broken)
    app.add_exception_handler(405, _not_allowed)
    missing: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "There is none of that id."}}
    many: dict[int | str, dict[str, Any]] = {429: {"model": Problem, "description": "As many as allowed already."}}
    slow: dict[int | str, dict[str, Any]] = {408: {"model": Problem, "description": "The body came too slowly."}}
    long: dict[int | str, dict[str, Any]] = {413: {"model": Problem, "description": "The body is too long."}}
    no_room: dict[int | str, dict[str, Any]] = {507: {"model": Problem, "description": "The server has no room."}}
    unfit: dict[int | str, dict[str, Any]] = {
        409: {"model": Problem, "description": "It does not go together: picture, mask, model, method and its fields."}
    }
    binary = {"schema": {"type": "string", "format": "binary"}}
    file: dict[int | str, dict[str, Any]] = {200: {"content": dict.fromkeys(PICTURES, binary)}, **missing}
    app.add_api_route("/api/options", api.options, tags=["page"], summary="What there is to choose from")
    app.add_api_route(
        "/api/pictures",
        api.upload,
        methods=["POST"],
        status_code=201,
        tags=["pictures"],
        summary="Send a picture or a mask, as the body",
        responses={
            413: {"model": Problem, "description": "Too large a file, or too many pixels."},
            415: {"model": Problem, "description": "No picture, or a damaged one."},
            **slow,
            **no_room,
        },
        openapi_extra={"requestBody": {"required": True, "content": dict.fromkeys(PICTURES, binary)}},
    )
    app.add_api_route("/api/pictures/{picture}", api.picture, tags=["pictures"], summary="A picture's file",
                      response_class=FileResponse, responses=file)  # fmt: skip
    app.add_api_route("/api/pictures/{picture}/about", api.about, tags=["pictures"], summary="Its size and settings",
                      responses=missing)  # fmt: skip
    view: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": binary}}, **missing}
    app.add_api_route("/api/pictures/{picture}/view", api.view, tags=["pictures"], response_class=Response,
                      summary="As browsers can show it: upright, 8 bits, PNG", responses=view)  # fmt: skip
    unfit_mask: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "It is no such mask."}}
    app.add_api_route("/api/pictures/{picture}/mask", api.mask, tags=["pictures"], response_class=Response,
                      summary="As a mask: white is repainted", responses={**view, **unfit_mask})  # fmt: skip
    unfound: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "It is not there."}}
    app.add_api_route("/api/pictures/{picture}/small", api.small, tags=["pictures"], response_class=Response,
                      summary="For a list: 320 pixels, WebP",
                      responses={200: {"content": {"image/webp": binary}}, **missing})  # fmt: skip
    app.add_api_route("/api/pictures/{picture}/find", api.find, methods=["POST"], tags=["pictures"],
                      response_class=Response, summary="Find what is to be repainted",
                      responses={**view, **slow, **long, **unfound})  # fmt: skip
    app.add_api_route("/api/models/{model}/load", api.load, methods=["POST"], status_code=202, tags=["page"],
                      response_class=Response, summary="Load a model beforehand", responses=missing)  # fmt: skip
    app.add_api_route("/api/plans", api.plan, methods=["POST"], tags=["jobs"],
                      summary="What a job would take, without asking for it",
                      responses={**missing, **slow, **unfit, **long}, openapi_extra={"requestBody": JOB})  # fmt: skip
    app.add_api_route("/api/archive", api.archive, tags=["jobs"], response_class=StreamingResponse,
                      summary="The results of several jobs, as a ZIP file",
                      responses={200: {"content": {"application/zip": binary}}, **missing})  # fmt: skip
    app.add_api_route("/api/jobs", api.add_job, methods=["POST"], status_code=201, tags=["jobs"], summary="Ask for one",
                      responses={**missing, **slow, **unfit, **long, **many, **no_room},
                      openapi_extra={"requestBody": JOB})  # fmt: skip
    app.add_api_route("/api/jobs", api.jobs, tags=["jobs"], summary="The newest, or those before one")
    app.add_api_route("/api/jobs/{job}", api.job, tags=["jobs"], summary="One job, its results and how far it is",
                      responses=missing)  # fmt: skip
    app.add_api_route("/api/jobs/{job}", api.remove, methods=["DELETE"], status_code=204, tags=["jobs"],
                      summary="Forget a finished job and its results",
                      responses={**missing, **no_room, 409: {"model": Problem, "description": "It runs."}})  # fmt: skip
    app.add_api_route("/api/jobs/{job}/stop", api.stop, methods=["POST"], tags=["jobs"], summary="Stop it",
                      responses={**missing, **no_room})  # fmt: skip
    app.add_api_route(
        "/api/jobs/{job}/events",
        api.events,
        tags=["jobs"],
        summary="Follow it: server-sent events",
        description="Events `job` (a JobView), `progress` (a ProgressView) and `preview` ({box: [left, top, width, "
        "height], image: a data URL}); the stream ends with the job.",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {"schema": EVENT}}}, **missing, **many},
    )
    for path, (data, media) in _static_files().items():
        app.add_api_route(path, _static(data, media), include_in_schema=False)
    return app


class _Api:
    """The routes of one server.

    Args:
        config: see there.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.store = Store(config.data)
        self.progress: dict[str, Progress] = {}
        self.workers = [Worker(self.store, config, self.progress, self._choices) for _ in range(config.workers)]
        self.streams: Counter[str] = Counter()
        self.closing = False
        self._decoding = CapacityLimiter(TOGETHER)  # of threads of their own, so that all others stay free
        self._reader = Reader()
        self._options: Options | None = None
        self._options_lock = threading.Lock()

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """The workers run as long as the server does."""
        ahead = threading.Thread(target=self._choices, daemon=True)  # torch takes seconds to import; the page does not
        ahead.start()
        for worker in self.workers:
            worker.start()
        purging = asyncio.create_task(self._purge())
        try:
            yield
        finally:
            self.closing = True
            purging.cancel()
            for worker in self.workers:
                await to_thread.run_sync(worker.close)
            await to_thread.run_sync(ahead.join)  # an interpreter that ends in the midst of an import is aborted
            self.store.close()

    async def _purge(self) -> None:
        while True:
            try:
                await to_thread.run_sync(self.store.purge, self.config.limits.days, self.config.limits.stored_bytes)
            except Exception as error:
                if not isinstance(error, NoRoomError):
                    log.exception("What is old could not be removed; it is tried again.")
            await asyncio.sleep(PURGE)

    def _choices(self) -> Options:
        with self._options_lock:
            if self._options is None:
                self._options = schemas.options(self.config)
            return self._options

    def options(self) -> Options:
        """What there is to choose from: models, methods with their fields, limits."""
        return self._choices()

    # pictures

    async def upload(
        self,
        request: Request,
        name: Annotated[str, Query(max_length=300, description="What people call it.")] = "picture",
    ) -> PictureView:
        """Keeps a picture or a mask: PNG, JPEG, WebP, TIFF, BMP or GIF, as the body of the request.

        A PNG that Paintback wrote comes back with the settings in it.
        """
        most = self.config.limits.upload_bytes
        large = f"{name!r} is larger than {most / 2**20:g} MiB, which is all this server takes; send a smaller file."
        self._check_room()
        path = self.store.files / f"{secrets.token_hex(16)}.part"
        with writing():
            try:
                with path.open("xb") as file:
                    async for block in _body(request, most, large):
                        file.write(block)
                kept = FilePath(name.replace("\\", "/")).name or "picture"
                return await to_thread.run_sync(self._take, path, kept, limiter=self._decoding)
            finally:
                path.unlink(missing_ok=True)

    def _check_room(self) -> None:
        """Keeps what is left of the disk for results.

        Raises:
            NoRoomError: where that is little.
        """
        if self.store.spare_bytes() < self.config.limits.spare_bytes:
            raise NoRoomError("The server's disk is nearly full; make room on it and try again.")
        if self.store.stored_bytes() > 2 * self.config.limits.stored_bytes:
            raise NoRoomError("The server keeps as many pictures as it may; try again later.")

    def _take(self, path: FilePath, name: str) -> PictureView:
        from paintback.images import read_picture, read_settings

        limits = self.config.limits
        wide = max(_sides(path))
        if wide > limits.side:
            raise HTTPException(
                413, f"{name!r} is {wide} pixels long, expected at most {limits.side}; cut it in parts."
            )
        try:
            picture = read_picture(path, max_pixels=limits.pixels)
        except PictureError as error:
            text = str(error).replace(repr(str(path)), repr(name))
            large = f"at most {limits.pixels};" in text
            text = text.replace("make it smaller, or raise max_pixels if you trust the file.", "make it smaller.")
            raise HTTPException(413 if large else 415, text) from None
        try:
            settings = read_settings(path)
        except PictureError:
            settings = None
        with path.open("rb") as file:
            head = file.read(64)
            file.seek(0)
            sha = hashlib.sha256(file.read()).hexdigest()
        media = _media(head)
        about = {**describe(picture), "sha256": sha, "settings": settings}
        new = self.store.add_picture(path, kind="upload", name=name, size=picture.size, media=media, about=about)
        return self._picture_view(new)

    def _row(self, picture: str) -> dict[str, Any]:
        row = self.store.picture(picture)
        if row is None:
            raise HTTPException(404, "There is no picture of that id.")
        return row

    def _picture_view(self, picture: str) -> PictureView:
        row = self._row(picture)
        about = {"grey": False, "transparent": True, "bits": 8, **row["about"]}
        given = {name: row.get(name, about.get(name)) for name in PictureView.model_fields}
        return PictureView.model_validate(given)

    def picture(self, picture: PictureId) -> FileResponse:
        """The file as it was sent or made."""
        row = self._row(picture)
        headers = {"cache-control": "private, max-age=86400, immutable"}
        return FileResponse(self.store.path(row["id"]), media_type=row["media"], filename=row["name"], headers=headers,
                            content_disposition_type="inline")  # fmt: skip

    def about(self, picture: PictureId) -> PictureView:
        """What is known of a picture."""
        return self._picture_view(picture)

    async def view(self, picture: PictureId) -> Response:
        """The picture as a browser can show it, whatever its format."""
        row = self._row(picture)
        data = await to_thread.run_sync(_shown, self.store.path(row["id"]), limiter=self._decoding)
        return Response(data, media_type="image/png", headers={"cache-control": "private, max-age=86400"})

    async def mask(
        self, picture: PictureId, mask_is: Annotated[str | None, Query(pattern=MASK_KINDS)] = None
    ) -> Response:
        """The picture as a mask, white where it is to be repainted; the header `x-remark` says what was taken."""
        row = self._row(picture)
        try:
            data, remark = await to_thread.run_sync(
                _as_mask, self.store.path(row["id"]), mask_is, limiter=self._decoding
            )
        except PictureError as error:
            raise HTTPException(409, str(error)) from None
        headers = {"x-remark": quote(remark)} if remark else {}
        return Response(data, media_type="image/png", headers=headers)

    async def small(self, picture: PictureId) -> Response:
        """The picture small."""
        path = self.store.path(self._row(picture)["id"])
        data, media = await to_thread.run_sync(tools.small, path, limiter=self._decoding)
        headers = {"cache-control": "private, max-age=86400, immutable"}
        return Response(data, media_type=media, headers=headers)

    async def find(self, picture: PictureId, asked: FindRequest) -> Response:
        """A mask of what is found in the picture, white where it is to be repainted."""
        from paintback.images import read_mask

        path = self.store.path(self._row(picture)["id"])
        mask = None if asked.mask is None else self.store.path(self._row(asked.mask)["id"])

        def work() -> bytes:
            return tools.find(self._reader(path), asked, None if mask is None else read_mask(mask))

        try:
            data = await to_thread.run_sync(work, limiter=self._decoding)
        except PictureError as error:
            raise HTTPException(409, str(error)[:1].upper() + str(error)[1:]) from None
        return Response(data, media_type="image/png")

    # jobs

    def load(self, model: Annotated[str, Path(max_length=300, description="A name of the list.")]) -> Response:
        """Loads a model, where the server has nothing else to do."""
        if model not in self.config.models:
            raise HTTPException(404, f"There is no model {model!r} here.")
        for worker in self.workers:
            worker.want(model)
        return Response(status_code=202)

    async def plan(self, request: Request) -> PlanView:
        """What a job would take: its evaluations, and its seconds by the speed that was measured on this machine."""
        return await to_thread.run_sync(self._plan, await request.body(), limiter=self._decoding)

    def _plan(self, data: bytes) -> PlanView:
        from paintback.models.catalogue import find

        try:
            job = self._complete(self._parse(data))
            picture, hole, bare = self._read(job)
            timed = find(self.config.models[job.model].source) is not None  # a pipeline's speed is known once it ran
            speed, ahead = self.store.speed(job.model, job.method), self.store.alive()
            with self.workers[0].planning(job.model) if self.workers else nullcontext() as inpainter:
                if inpainter is None:  # what a pipeline does only it can say, and it may be at work
                    loading = timed or (speed is not None and not ahead)
                    return PlanView(seconds=None, evaluations=None, vjps=None, steps=None, loading=loading, ahead=ahead)
                one = inpainter.plan(picture, hole, request=one_of(bare, 1))
        except ValueError as error:
            raise HTTPException(409, str(error).replace(str(self.store.files), "")) from None
        return PlanView(
            seconds=None if speed is None else round(job.samples * speed * cost(one), 2),
            evaluations=job.samples * one.evaluations,
            vjps=job.samples * one.vjps,
            steps=job.samples * one.steps,
            loading=timed and speed is None,
            ahead=ahead,
        )

    def archive(
        self, jobs: Annotated[str, Query(max_length=40_000, pattern=r"^[0-9a-f]{32}(,[0-9a-f]{32})*$")]
    ) -> StreamingResponse:
        """The results of jobs, named by commas between their ids, as one file."""
        pictures = [output["picture"] for job in jobs.split(",") for output in self._job_row(job)["outputs"]]
        files = [(self._row(picture)["name"], self.store.path(picture)) for picture in pictures]
        headers = {"content-disposition": 'attachment; filename="paintback.zip"'}
        return StreamingResponse(tools.archive(files), media_type="application/zip", headers=headers)

    async def add_job(self, request: Request) -> JobView:
        """Puts a job into the queue. What is left open is filled in and comes back: method, fields, steps, seed."""
        return await to_thread.run_sync(self._take_job, await request.body(), _client(request), limiter=self._decoding)

    def _parse(self, data: bytes) -> JobRequest:
        """A job's JSON, whose pictures are here."""
        try:
            said = from_json(data, allow_inf_nan=False)
            if not isinstance(said, dict):
                raise HTTPException(422, "The job is no JSON object; send one with photo and mask.")
            job = JobRequest.model_validate(said)
        except ValidationError as error:
            raise HTTPException(422, sentence(error, JobRequest)) from None
        except ValueError as error:
            raise HTTPException(422, f"The job is not JSON ({error}); send an object with photo and mask.") from None
        for picture in (job.photo, None if job.mask == ALPHA else job.mask, *(job.reference_images or ())):
            if picture is not None:
                self._row(picture)
        return job

    def _take_job(self, data: bytes, client: str) -> JobView:
        job = self._parse(data)
        self._check_room()
        try:
            complete = self._complete(job)
            picture, hole, bare = self._read(complete)  # before anybody waits for them
            if self.workers:
                self.workers[0].check_time(bare, picture, hole, complete.samples)
            new = self.store.add_job(
                complete.model_dump(mode="json"),
                client,
                most=self.config.limits.waiting,
                most_per_client=self.config.limits.waiting_per_client,
            )
        except QueueFullError as error:
            raise HTTPException(429, str(error)) from None
        except ValueError as error:
            raise HTTPException(409, str(error).replace(str(self.store.files), "")) from None
        for worker in self.workers:
            worker.wake()
        return self.job(new)

    def _complete(self, job: JobRequest) -> JobRequest:
        """The request with everything filled in that was left open.

        Raises:
            ValueError: for a model, method or field that there is not, or more than this server gives.
        """
        from paintback.models.catalogue import TRAINED, recommended
        from paintback.painting.quality import draws, parsed, resolve

        choices, limits = self._choices(), self.config.limits
        model = next((model for model in choices.models if model.name == job.model), None)
        if model is None:
            raise ValueError(
                f"There is no model {job.model!r} here; choose one of {', '.join(one.name for one in choices.models)}."
            )
        if job.step_distilled is not None and "step_distilled" in model.without:
            raise ValueError(f"The model {model.name!r} is none whose steps are asked about; leave step_distilled out.")
        if job.reference_images and "reference_images" in model.without:
            raise ValueError(f"The model {model.name!r} goes by no reference pictures; leave reference_images out.")
        own = recommended(self.config.models[model.name].source, job.step_distilled)
        name = job.method or own.method
        if model.trained != (name == TRAINED):
            raise ValueError(
                f"The model {model.name!r} takes the mask itself; leave the method out."
                if model.trained
                else f"The model {model.name!r} is not run as {name!r}; choose a method of the list."
            )
        if not model.takes_text and (job.prompt or job.negative_prompt):
            raise ValueError(f"The model {model.name!r} reads no text; leave the prompt out.")
        seed = secrets.randbelow(2**31) if job.seed is None else job.seed
        for what, value, most in (
            ("samples", job.samples, limits.samples),
            ("average", draws(job), schemas.MOST_DRAWS),
            ("steps", max(job.steps or 1, job.listed or 1), schemas.MOST),
            ("height and width", max(job.height or 1, job.width or 1), schemas.LARGEST_SIDE),
        ):
            if value > most:
                raise ValueError(f"{what} is at most {most} here; got {value}.")
        fields = job.fields if model.trained else schemas.check_fields(choices.methods, name, job.fields)
        if job.thin_method is not None:
            schemas.check_fields(choices.methods, *parsed(job.thin_method))
        whole = job.with_(
            seed=seed, fields=fields, prompt=job.prompt or None, negative_prompt=job.negative_prompt or None
        )
        return resolve(whole, own)

    def _read(self, job: JobRequest) -> tuple[Picture, Mask, JobRequest]:
        """The picture, the hole and the request as `read` has them, unless the canvas would be too large.

        Raises:
            ValueError: for such a canvas, or a mask that does not fit.
        """
        row = self._row(str(job.photo))
        left, top, right, bottom = job.outpaint
        width, height, limits = row["width"] + left + right, row["height"] + top + bottom, self.config.limits
        if width * height > limits.pixels:
            raise ValueError(f"With what is added it has more than {limits.pixels} pixels; add less.")
        if max(width, height) > limits.side:
            raise ValueError(f"With what is added it is more than {limits.side} pixels long; add less.")
        if job.mask is None and not any(job.outpaint):
            raise ValueError("There is neither a mask nor anything to add around the picture; give one of them.")
        return read(wish(self.store, job.model_dump(mode="json"), self.config), self._reader)

    def _job_row(self, job: str) -> dict[str, Any]:
        row = self.store.job(job)
        if row is None:
            raise HTTPException(404, "There is no job of that id.")
        return row

    def job(self, job: JobId) -> JobView:
        """A job as it is now."""
        return schemas.job_view(self._job_row(job), self.progress.get(job))

    def jobs(
        self,
        before: Annotated[str | None, Query(pattern=ID, description="Only those asked for before this one.")] = None,
        most: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> list[JobView]:
        """The newest jobs, newest first."""
        return [schemas.job_view(row, self.progress.get(row["id"])) for row in self.store.jobs(most, before)]

    def stop(self, job: JobId) -> JobView:
        """Stops a job: one that waits never runs, one that runs keeps the last prediction. An ended one stays."""
        self._job_row(job)
        self.store.stop(job)
        for worker in self.workers:
            worker.wake()
        return self.job(job)

    def remove(self, job: JobId) -> Response:
        """Removes a job with its results; the pictures that were sent stay until they are old."""
        self._job_row(job)
        if not self.store.remove_job(job):
            raise HTTPException(409, "The job has not ended; stop it first.")
        return Response(status_code=204)

    async def events(self, request: Request, job: JobId) -> StreamingResponse:
        """The events of one job until it has ended."""
        self._job_row(job)
        client = _client(request)
        if self.streams[client] >= self.config.limits.streams_per_client:
            raise HTTPException(429, "You follow as many jobs as one client may; close another page.")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._follow(job, client), media_type="text/event-stream", headers=headers)

    async def _follow(self, job: str, client: str) -> AsyncIterator[str]:
        self.streams[client] += 1
        try:
            seen, steps, views, quiet = -1, -1, -1, time.monotonic()
            yield "retry: 1000\n\n"
            while not self.closing:
                version, progress = self.store.version, self.progress.get(job)
                if progress is not None and progress.version != steps:
                    steps, quiet = progress.version, time.monotonic()
                    names = schemas.ProgressView.model_fields
                    yield _event("progress", {name: getattr(progress, name) for name in names})
                    view = progress.view
                    if view is not None and progress.view_version != views:
                        views = progress.view_version
                        yield _event("preview", {"box": view.box, "image": view.image})
                if version != seen:
                    seen, quiet = version, time.monotonic()
                    row = self.store.job(job)
                    if row is None:
                        return
                    yield _event("job", schemas.job_view(row, progress).model_dump(mode="json"))
                    if row["state"] in FINISHED:
                        return
                if time.monotonic() - quiet > PULSE:
                    quiet = time.monotonic()
                    yield ": still here\n\n"
                await asyncio.sleep(TICK)
        finally:
            self.streams[client] -= 1


def _event(name: str, data: Any) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


async def _body(request: Request, most: int, large: str) -> AsyncIterator[bytes]:
    """A request's body in blocks; one that is too long is refused as soon as that is known.

    Raises:
        HTTPException: with `large`.
    """
    declared, size = request.headers.get("content-length", "0"), 0
    if declared.isdecimal() and int(declared) > most:
        raise HTTPException(413, large)
    async for block in request.stream():
        size += len(block)
        if size > most:
            raise HTTPException(413, large)
        yield block


def _sides(path: FilePath) -> tuple[int, int]:
    """Width and height as the head of a file tells them; zeros where it does not, which `read_picture` explains."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")) as head:
            return head.size
    except Exception:  # damaged files raise whatever comes
        return 0, 0


def _shown(path: FilePath) -> bytes:
    import io

    from paintback.images import read_picture, to_pil

    buffer = io.BytesIO()
    to_pil(read_picture(path).to_uint8()).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _as_mask(path: FilePath, mask_is: str | None) -> tuple[bytes, str]:
    import io

    from PIL import Image

    from paintback.images import read_mask

    said: list[str] = []
    mask = read_mask(path, mask_is=mask_is, say=said.append)
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue(), " ".join(said).replace(repr(str(path)), "the mask")


def _client(request: Request) -> str:
    return request.client.host if request.client is not None else ""


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """The first of pydantic's complaints, as a sentence."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:] if part != "__root__")
    return JSONResponse({"detail": f"{where or 'The request'}: {first['msg']}."}, 422)


async def _no_room(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 507)


async def _broken(request: Request, error: Exception) -> JSONResponse:
    """What nobody thought of; Starlette logs it."""
    return JSONResponse({"detail": "Something went wrong within the server; what it printed says more."}, 500)


async def _not_allowed(request: Request, error: Exception) -> JSONResponse:
    """All methods of a path, which several routes may share."""
    allowed = set()
    for route in request.app.routes:
        if route.path_regex.match(request.url.path):
            allowed |= route.methods
    text = f"{request.method} is not for this address; use {' or '.join(sorted(allowed))}."
    return JSONResponse({"detail": text}, 405, {"allow": ", ".join(sorted(allowed))})


def _static_files() -> dict[str, tuple[bytes, str]]:
    """All that the page consists of, read once: a request's path is looked up here and never on the disk."""
    files = {f"/static/{path.name}": path for path in sorted(STATIC.iterdir()) if path.suffix in MEDIA}
    files |= {f"/examples/{path.name}": path for path in sorted(EXAMPLES.iterdir()) if path.suffix in MEDIA}
    files["/"] = STATIC / "index.html"
    files["/favicon.ico"] = STATIC / "icon.svg"
    return {name: (path.read_bytes(), MEDIA[path.suffix]) for name, path in files.items()}


def _media(head: bytes) -> str:
    """The media type of a picture that was read, by how its file begins."""
    if head[4:8] == b"ftyp":
        return "image/avif" if b"avif" in head or b"avis" in head else "image/heic"
    return next(kind for start, kind in SIGNATURES.items() if head.startswith(start))


def _static(data: bytes, media: str) -> Callable[[Request], Response]:
    tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'

    def answer(request: Request) -> Response:
        headers = {"cache-control": "no-cache", "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=media, headers=headers)

    return answer
