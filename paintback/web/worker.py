"""The worker: a thread that takes the oldest job, paints its samples one after another, and keeps each at once.

It outlives everything but the server: one job's failure is told to its owner, and where the disk is full it holds what
it has until there is room.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from paintback.stopping import Stopped, stoppable
from paintback.web.config import Config
from paintback.web.preview import Progress, plan, spread
from paintback.web.store import NoRoomError, State, Store

if TYPE_CHECKING:
    from paintback.batch.job import Job
    from paintback.images import Picture
    from paintback.images.masks import Mask
    from paintback.tasks.inpaint import Inpainter, Output

__all__ = ["Worker", "describe", "job_of"]

LOADED = 2  # models that a worker keeps
IDLE = 5.0  # seconds between looks at the queue that nobody asked for
FULL = 1.0  # seconds between attempts to write on a full disk
SURE = 2.0  # times the time limit that a job must be expected to take to be given up at its first steps
EARLY = 10.0  # seconds of painting, after which its speed is taken for known

_T = TypeVar("_T")
log = logging.getLogger(__name__)


class _LateError(Exception):
    """A job takes longer than it may; the message says what is known."""


class _LeftError(Exception):
    """The server goes down; the job waits again."""


def job_of(store: Store, request: dict[str, Any], config: Config) -> Job:
    """The job that a request asks for, its ids turned into files.

    Args:
        store: where the pictures are.
        request: of a `JobRequest` that was checked.
        config: names the models.

    Raises:
        ValueError: for a picture or model that is gone.
    """
    from paintback.batch.job import ALPHA, Job

    def path(picture: str) -> str:
        if store.picture(picture) is None:
            raise ValueError("The picture is not here any more; send it again.")
        return str(store.path(picture))

    mask = request["mask"]
    offer = config.models.get(request["model"])
    if offer is None:
        raise ValueError(f"The model {request['model']!r} is not offered any more; choose another one.")
    names = Job.__dataclass_fields__
    given = {key: value for key, value in request.items() if key in names and key not in ("sha256", "versions")}
    return Job(
        **{
            **given,
            "photo": path(request["photo"]),
            "mask": mask if mask in (None, ALPHA) else path(mask),
            "model": offer.source,
            "outpaint": tuple(request["outpaint"]),
            "device": config.device,
            "dtype": None,
            "threads": config.threads,
        }
    )


class Worker(threading.Thread):
    """Paints until it is closed.

    Args:
        store: the queue.
        config: the models and limits.
        progress: see below.
        ready: called before the first job; returns when torch is imported, which two threads must not do at once.

    Attributes:
        progress: of the jobs that run now, by id; shared by all workers.
    """

    def __init__(
        self, store: Store, config: Config, progress: dict[str, Progress], ready: Callable[[], object]
    ) -> None:
        super().__init__(name="paintback-worker", daemon=True)
        self._ready = ready
        self.store, self.config, self.progress = store, config, progress
        self._wake, self._closing = threading.Event(), False
        self._loaded: OrderedDict[str, Inpainter] = OrderedDict()

    def wake(self) -> None:
        """There is a new job, or one is to stop."""
        self._wake.set()

    def close(self, timeout: float = 10.0) -> None:
        """Leaves the running job, which waits again, and ends."""
        self._closing = True
        self._wake.set()
        self.join(timeout)

    def _asked(self, job: str) -> bool:
        """Whether a job is to go no further; asked before every evaluation."""
        return self._closing or self.store.stopping(job)

    def run(self) -> None:
        """The thread's work."""
        while not self._closing:
            self._wake.clear()
            try:
                self._ready()
                row = self.store.claim()
            except Exception as error:  # a full disk, or what nobody thought of: the queue goes on when it can
                if not isinstance(error, NoRoomError):
                    log.exception("The queue could not be read; it is tried again.")
                self._wake.wait(FULL)
                continue
            if row is None:
                self._wake.wait(IDLE)
                continue
            try:
                self._run_to_end(row)
            except _LeftError:  # the next start finds it waiting, or running and lets it wait again
                pass
            except Exception:
                log.exception("The end of a job could not be written down.")
            finally:
                self.progress.pop(row["id"], None)

    def _run_to_end(self, row: dict[str, Any]) -> None:
        ended: tuple[State, str | None, tuple[str, float] | None]
        try:
            ended = self._run_job(row)
        except _LeftError:
            raise
        except Exception as error:  # one job's failure is told to its owner and the next one runs
            ended = "failed", self._explain(error), None
        self._when_there_is_room(lambda: self.store.finish(row["id"], *ended), self.progress.get(row["id"]))

    def _when_there_is_room(
        self, work: Callable[[], _T], progress: Progress | None, given_up: Callable[[], bool] = lambda: False
    ) -> _T:
        """Does what writes, again and again while the disk is full.

        Raises:
            _LeftError: if the server goes down meanwhile.
            NoRoomError: if it is given up.
        """
        while True:
            try:
                done = work()
            except NoRoomError as error:
                if self._closing:
                    raise _LeftError from error
                if given_up():
                    raise
                if progress is not None and progress.note is None:
                    progress.say(f"{error} What is painted is kept until then.")
                self._wake.wait(FULL)
                self._wake.clear()
            else:
                if progress is not None and progress.note is not None:
                    progress.say(None)
                return done

    def _run_job(self, row: dict[str, Any]) -> tuple[State, str | None, tuple[str, float] | None]:
        """Paints what is missing of a job; returns how it ended.

        Raises:
            _LeftError: if the server goes down.
        """
        from paintback.batch.job import completed, prepare, weights_digest

        identifier, request = row["id"], row["request"]
        progress = self.progress[identifier] = Progress(request["samples"])
        job = job_of(self.store, request, self.config)
        picture, mask = prepare(job)
        inpainter = self._load(job)
        given = {name: self._about(request[name]).get("sha256") for name in ("photo", "mask")}
        job = completed(job, inpainter, {**given, "weights": weights_digest(job.model)})
        stages = plan(inpainter, job, mask)
        made = {output["number"]: output for output in row["outputs"]}
        for number in range(1, request["samples"] + 1):
            if number in made:
                continue
            if self._asked(identifier):
                break
            progress.begin_sample(number, stages)
            one = replace(job, seed=request["seed"] + number - 1)
            try:
                output = self._paint(inpainter, one, identifier, picture, mask, progress)
            except Stopped:  # before there was anything to show
                break
            if self._closing:  # half done: it runs again
                break
            try:
                self._keep(identifier, number, request, one, picture, output, progress)
            except NoRoomError:  # stopped while it waited for room
                break
            if output.stopped:
                break
        if self._closing and not self.store.stopping(identifier):
            with suppress(NoRoomError):
                self.store.release(identifier)
            raise _LeftError
        return "stopped" if self.store.stopping(identifier) else "done", None, self._spread(identifier, mask, progress)

    def _load(self, job: Job) -> Inpainter:
        from paintback.batch.job import load

        if job.model not in self._loaded:
            while len(self._loaded) >= LOADED:
                self._loaded.popitem(last=False)
            self._loaded[job.model] = load(job)
        self._loaded.move_to_end(job.model)
        return self._loaded[job.model]

    def _paint(
        self, inpainter: Inpainter, job: Job, identifier: str, picture: Picture, mask: Mask, progress: Progress
    ) -> Output[list[Picture]]:
        import torch

        from paintback.batch.job import chosen_method

        most = self.config.limits.seconds

        def over() -> bool:
            return progress.elapsed() > most or self._asked(identifier)

        def step(inpainter: Inpainter, index: int, t: float, state: dict[str, Any]) -> None:
            progress.took_step(inpainter, index, state["x0"])
            whole = progress.seconds + (progress.left or 0)
            if progress.painted() > min(EARLY, most / 20) and whole > SURE * most:
                raise _LateError(
                    f"It would take {spoken(whole)}, and a job may take {spoken(most)} here; ask for fewer steps or "
                    "samples, a faster method, or a smaller picture."
                )
            inpainter.interrupt = over()

        inpainter.set_progress_bar_config(disable=True)
        late = f"It took longer than {spoken(most)} and was stopped; ask for less."
        try:
            with stoppable(over):
                output = inpainter(
                    image=picture,
                    mask_image=mask,
                    prompt=job.prompt,
                    negative_prompt=job.negative_prompt,
                    method=chosen_method(job),
                    num_inference_steps=job.steps,
                    guidance_scale=job.guidance,
                    generator=[torch.Generator().manual_seed(job.seed)],
                    mask_blur=job.blur,
                    height=job.height,
                    width=job.width,
                    output_type="picture",
                    callback_on_step_end=step,
                )
        except Stopped:
            if self._asked(identifier):
                raise
            raise _LateError(late) from None
        if output.stopped and not self._asked(identifier):
            raise _LateError(late)
        return output

    def _keep(
        self,
        identifier: str,
        number: int,
        request: dict[str, Any],
        job: Job,
        picture: Picture,
        output: Output[list[Picture]],
        progress: Progress,
    ) -> None:
        """Writes a sample with its settings. They name files as people do, and the page's own ids besides."""
        from paintback.images.encoding import encode

        made = output.images[0]
        photo = Path(self._about(request["photo"]).get("name", "picture.png"))
        mask = request["mask"]
        settings = {
            **replace(job, steps=output.settings["num_inference_steps"]).to_settings(),
            "photo": photo.name,
            "mask": mask if mask in (None, "alpha") else self._about(mask).get("name", "mask.png"),
            "model": request["model"],
            "web": {"photo": request["photo"], "mask": mask},
        }
        name = f"{photo.stem}-{job.method}-{job.seed}.png"
        data = encode(made, Path("result.png"), settings)
        about = {
            "evaluations": output.evaluations,
            "vjps": output.vjps,
            "seconds": round(output.seconds, 3),
            "peak_memory_bytes": output.peak_memory_bytes,
            "stopped": output.stopped,
        }

        def keep() -> None:
            kept = self.store.add_picture(
                data, kind="output", name=name, size=made.size, media="image/png", about=describe(made)
            )
            try:
                self.store.add_output(identifier, number, kept, job.seed, about)
            except NoRoomError:
                self.store.discard(kept)
                raise

        self._when_there_is_room(keep, progress, lambda: self.store.stopping(identifier))

    def _spread(self, identifier: str, mask: Mask, progress: Progress) -> tuple[str, float] | None:
        from paintback.images import read_picture
        from paintback.images.encoding import encode

        row = self.store.job(identifier)
        outputs = [] if row is None else [one for one in row["outputs"] if not one["stopped"]]
        if len(outputs) < 2:
            return None
        made, largest = spread([read_picture(self.store.path(one["picture"])) for one in outputs], mask)
        data = encode(made, Path("spread.png"))

        def keep() -> str:
            return self.store.add_picture(data, kind="spread", name="spread.png", size=made.size, media="image/png")

        try:
            return self._when_there_is_room(keep, progress, lambda: self.store.stopping(identifier)), largest
        except NoRoomError:
            return None

    def _about(self, picture: str | None) -> dict[str, Any]:
        row = None if picture is None else self.store.picture(picture)
        return {} if row is None else {**row["about"], "name": row["name"]}

    def _explain(self, error: Exception) -> str:
        if isinstance(error, _LateError):
            return str(error)
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return "Out of memory; make the picture or the hole smaller."
        text = " ".join(str(error).split()).replace(str(self.store.files), "").replace(str(self.store.folder), "")
        return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text or 'no message'}"


def spoken(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def describe(picture: Picture) -> dict[str, Any]:
    """What the page wants to know of a picture."""
    return {
        "grey": picture.grey,
        "transparent": picture.alpha is not None,
        "bits": 8 * picture.pixels.dtype.itemsize,
    }
