"""The worker: a thread that takes the oldest job, paints its samples one after another, and keeps each at once.

It outlives everything but the server: one job's failure is told to its owner, and where the disk is full it holds what
it has until there is room.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from paintback.painting.quality import draws
from paintback.painting.request import ALPHA, Request
from paintback.stopping import Stopped, stoppable
from paintback.web.config import Config
from paintback.web.preview import Progress, cost, spread
from paintback.web.schemas import OTHERS
from paintback.web.store import NoRoomError, State, Store

if TYPE_CHECKING:
    from paintback.images import Picture
    from paintback.images.masks import Mask
    from paintback.tasks.inpaint import Inpainter, Output

__all__ = ["Worker", "describe", "one_of", "read", "wish"]

FIRST = "photo"  # loaded before anybody asks: what a job without a model is painted with
LOADED = 2  # models that a worker keeps
IDLE = 5.0  # seconds between looks at the queue that nobody asked for
FULL = 1.0  # seconds between attempts to write on a full disk
SURE = 2.0  # times the time limit that a job must be expected to take to be given up at its first steps
LEARNT = 1.0  # seconds of a sample, from which on it tells the model's speed rather than that of the rest
EARLY = 10.0  # seconds of painting, after which its speed is taken for known

_T = TypeVar("_T")
log = logging.getLogger(__name__)


class _LateError(ValueError):
    """A job takes longer than it may; the message says what is known."""


class _LeftError(Exception):
    """The server goes down; the job waits again."""


def wish(store: Store, request: dict[str, Any], config: Config) -> Request:
    """What a job asks for, its ids turned into files.

    Args:
        store: where the pictures are.
        request: of a `JobRequest` that was checked.
        config: names the models.

    Raises:
        ValueError: for a picture or model that is gone.
    """

    def path(picture: str) -> str:
        if store.picture(picture) is None:
            raise ValueError("The picture is not here any more; send it again.")
        return str(store.path(picture))

    mask = request["mask"]
    if request["model"] not in config.models:
        raise ValueError(f"The model {request['model']!r} is not offered any more; choose another one.")
    known = {name: value for name, value in request.items() if name in Request.model_fields and name not in OTHERS}
    files: dict[str, Any] = {"photo": path(request["photo"]), "mask": mask if mask in (None, ALPHA) else path(mask)}
    files["reference_images"] = [path(one) for one in request.get("reference_images") or ()]
    return Request.parse({**known, **files})


def read(request: Request, reader: Callable[[str], Picture] | None = None) -> tuple[Picture, Mask, Request]:
    """The picture and the hole as they are painted, and the request without what has been done to them.

    Args:
        request: with files.
        reader: reads the picture; None for `read_picture`.

    Raises:
        ValueError: for files that cannot be used, or a mask that leaves nothing to do.
    """
    from paintback.batch.job import bare, shown
    from paintback.images import read_picture
    from paintback.painting.sheet import prepare

    request.check_files()
    picture, hole = prepare((reader or read_picture)(str(request.photo)), request.mask, request)
    return picture, hole, bare(shown(request))


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
        self._wake, self._closing, self._prepared = threading.Event(), False, False
        self._loaded: OrderedDict[str, Inpainter] = OrderedDict()
        self._using = threading.Lock()  # of pipelines: they are asked for plans while nothing else is done with them
        self._wanted: str | None = FIRST if FIRST in config.models else next(iter(config.models), None)

    def want(self, model: str) -> None:
        """Somebody will ask for this model soon; it is loaded where nothing else is to be done."""
        self._wanted = model
        self._wake.set()

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
                self._prepare()
                row = self.store.claim()
            except Exception as error:  # a full disk, or what nobody thought of: the queue goes on when it can
                if not isinstance(error, NoRoomError):
                    log.exception("The queue could not be read; it is tried again.")
                self._wake.wait(FULL)
                continue
            if row is None:
                with self._using:
                    self._warm()
                self._wake.wait(IDLE)
                continue
            try:
                with self._using:
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

    def _prepare(self) -> None:
        """Imports torch, before anybody waits for it."""
        if self._prepared:
            return
        self._ready()
        import torch

        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        self._prepared = True

    def _warm(self) -> None:
        """Loads the model that will be asked for, and times it where that was never done: a second or two."""
        model, self._wanted = self._wanted, None
        if model is None:
            return
        try:
            inpainter = self.load(model)
            if self.planner(model) is not None and self.store.speed(model) is None:
                self._time(model, inpainter)
        except ValueError:  # a model that cannot be loaded is told to whoever asks for it
            pass
        except Exception:
            log.exception("The model %r could not be made ready.", model)

    def _time(self, model: str, inpainter: Inpainter) -> None:
        """Learns what a pixel costs from a small hole in an empty picture."""
        import numpy as np

        hole = np.zeros((128, 128), bool)
        hole[48:80, 48:80] = True
        plan = inpainter.plan(np.full((128, 128, 3), 0.5, np.float32), hole, request=Request(model=model))
        speed = inpainter.speed(plan)
        if speed is not None:
            self._learn(model, plan.seconds(speed) / cost(plan))

    @contextmanager
    def planning(self, model: str) -> Iterator[Inpainter | None]:
        """The loaded model for a plan: one of pixels at any time, a pipeline while nothing is painted."""
        inpainter, free = self.planner(model), False
        if inpainter is None and model in self._loaded and (free := self._using.acquire(blocking=False)):
            inpainter = self._loaded.get(model)
        try:
            yield inpainter
        finally:
            if free:
                self._using.release()

    def planner(self, model: str) -> Inpainter | None:
        """The loaded model, where another thread may ask it for plans: one of pixels."""
        from paintback.models.catalogue import find

        return self._loaded.get(model) if find(self.config.models[model].source) is not None else None

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
        identifier, asked = row["id"], row["request"]
        progress = self.progress[identifier] = Progress(asked["samples"])
        request = wish(self.store, asked, self.config)
        picture, hole, bare = read(request)
        inpainter = self.load(request.model, request.step_distilled)
        request = self._complete(request, inpainter, asked)
        bare = one_of(bare, 1)
        plan = inpainter.plan(picture, hole, request=bare)
        left = asked["samples"] - len(row["outputs"])
        self._refuse_late(request, cost(plan) * left)
        made = {output["number"]: output for output in row["outputs"]}
        for number in range(1, asked["samples"] + 1):
            if number in made:
                continue
            if self._asked(identifier):
                break
            progress.begin_sample(number, plan)
            one = one_of(request, number)
            try:
                output = self._paint(inpainter, one_of(bare, number), identifier, picture, hole, progress)
            except Stopped:  # before there was anything to show
                break
            if self._closing:  # half done: it runs again
                break
            if not output.stopped and output.seconds > LEARNT:
                self._learn(request.model, output.seconds / cost(plan), request.method)
            try:
                self._keep(identifier, number, asked, one, output, progress)
            except NoRoomError:  # stopped while it waited for room
                break
            if output.stopped:
                break
        if self._closing and not self.store.stopping(identifier):
            with suppress(NoRoomError):
                self.store.release(identifier)
            raise _LeftError
        return "stopped" if self.store.stopping(identifier) else "done", None, self._spread(identifier, hole, progress)

    def load(self, model: str, step_distilled: str | None = None) -> Inpainter:
        """The model of an offer; the last ones stay loaded, where there is room for them beside it.

        Args:
            model: its name.
            step_distilled: "yes" or "no" of a pipeline, which is not loaded again for that; None to go by its name.
        """
        import torch

        from paintback.models.catalogue import is_here, is_pipeline
        from paintback.resources import in_room
        from paintback.tasks.inpaint import Inpainter

        if model not in self._loaded:
            try:
                device = None if self.config.device is None else torch.device(self.config.device)
            except RuntimeError:
                raise ValueError(
                    f"There is no device {self.config.device!r}; start the server with cpu, cuda, cuda:1 or mps."
                ) from None
            source, offload = self.config.models[model].source, self.config.offload
            pipeline = is_pipeline(source)  # others have nothing to offload

            def load() -> Inpainter:
                return Inpainter.from_pretrained(
                    source,
                    device=device,
                    torch_dtype=None if self.config.dtype is None else getattr(torch, self.config.dtype),
                    offload=offload if pipeline else None,
                )

            self._loaded[model] = in_room(load, self._loaded, LOADED - 1, here=is_here(source))
        self._loaded.move_to_end(model)
        inpainter = self._loaded[model]
        if step_distilled is None or inpainter.model.step_distilled == (step_distilled == "yes"):
            return inpainter
        return inpainter.told(step_distilled=step_distilled == "yes")

    def _complete(self, request: Request, inpainter: Inpainter, asked: dict[str, Any]) -> Request:
        """The request with what a PNG carries besides: where it ran, with what versions, on which files."""
        import torch

        from paintback import __version__
        from paintback.batch.job import weights_digest

        shown = {f"reference_{k}": one for k, one in enumerate(asked.get("reference_images") or (), 1)}
        files = {"photo": asked["photo"], "mask": asked["mask"], **shown}
        given = {name: self._about(picture).get("sha256") for name, picture in files.items()}
        given["weights"] = weights_digest(self.config.models[request.model].source)
        return request.with_(
            device=str(inpainter.model.device),
            threads=torch.get_num_threads(),
            sha256={name: value for name, value in given.items() if value is not None},
            versions={"paintback": __version__, "torch": torch.__version__},
        )

    def _refuse_late(self, request: Request, pixels: float) -> None:
        """Refuses what is known to take much longer than a job may.

        Args:
            request: whose model and method are known.
            pixels: what the job costs, see `cost`.

        Raises:
            ValueError: saying how long it would take.
        """
        speed, most = self.store.speed(request.model, request.method), self.config.limits.seconds
        if speed is not None and speed * pixels > SURE * most:
            raise _LateError(too_long(speed * pixels, most))

    def check_time(self, bare: Request, picture: Picture, hole: Mask, samples: int) -> None:
        """Refuses a job beforehand, where the model is loaded, is one of pixels, and its speed is known.

        Args:
            bare: see `read`.
            picture: likewise.
            hole: likewise.
            samples: of the job.

        Raises:
            ValueError: saying how long it would take.
        """
        inpainter = self.planner(bare.model)
        if inpainter is not None:
            self._refuse_late(bare, samples * cost(inpainter.plan(picture, hole, request=one_of(bare, 1))))

    def _learn(self, model: str, seconds: float, method: str | None = None) -> None:
        """Remembers what a pixel took."""
        with suppress(NoRoomError):
            self.store.learn(model, seconds, method)

    def _paint(
        self, inpainter: Inpainter, request: Request, identifier: str, picture: Picture, hole: Mask, progress: Progress
    ) -> Output[list[Picture]]:
        most = self.config.limits.seconds

        def over() -> bool:
            return progress.painted() > most or self._asked(identifier)

        def step(inpainter: Inpainter, index: int, t: float, state: dict[str, Any]) -> None:
            progress.took_step(inpainter, index, state["x0"])
            whole = progress.painted() + (progress.left or 0)
            if progress.painted() > min(EARLY, most / 20) and whole > SURE * most:
                raise _LateError(too_long(whole, most))
            inpainter.interrupt = over()

        inpainter.set_progress_bar_config(disable=True)
        late = f"It took longer than {spoken(most)} and was stopped; ask for less."
        try:
            with stoppable(over):
                output = inpainter(picture, hole, request=request, output_type="picture", callback_on_step_end=step)
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
        asked: dict[str, Any],
        request: Request,
        output: Output[list[Picture]],
        progress: Progress,
    ) -> None:
        """Writes a sample with its settings. They name files as people do, and the page's own ids besides."""
        from paintback.images.encoding import encode

        made = output.images[0]
        photo = Path(self._about(asked["photo"]).get("name", "picture.png"))
        mask, shown = asked["mask"], asked.get("reference_images") or []
        settings = {
            **request.to_settings(),
            "steps": output.settings["num_inference_steps"],
            "photo": photo.name,
            "mask": mask if mask in (None, ALPHA) else self._about(mask).get("name", "mask.png"),
            "reference_images": [self._about(one).get("name", "reference.png") for one in shown] or None,
            "web": {"photo": asked["photo"], "mask": mask, **({"reference_images": shown} if shown else {})},
        }
        name = f"{_short(photo.stem)}-{request.method}-{request.seed}.png"
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
                self.store.add_output(identifier, number, kept, request.seed or 0, about)
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
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return "Out of memory; make the picture or the hole smaller."
        text = " ".join(str(error).split()).replace(str(self.store.files), "").replace(str(self.store.folder), "")
        return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text or 'no message'}"


def _short(stem: str) -> str:
    """A file's name without what earlier results added to it."""
    from paintback import methods

    names = "|".join([*methods.names(), "trained"])
    return re.sub(rf"(-({names})-[0-9]+)+$", "", stem)[:60] or "picture"


def one_of(request: Request, number: int) -> Request:
    """What makes one sample of a job alone, from 1: its seed, and as many draws as the job has for each."""
    quality = "good" if request.quality == "best" and draws(request) == 1 else request.quality
    return request.with_(samples=1, seed=(request.seed or 0) + number - 1, quality=quality)


def too_long(seconds: float, most: float) -> str:
    """What is said of a job that cannot end in time."""
    return (
        f"It would take {spoken(seconds)}, and a job may take {spoken(most)} here; ask for fewer steps or samples, a "
        "faster method, or a smaller picture."
    )


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
