"""The worker: a thread that takes the oldest job, paints its samples one after another, and keeps each at once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paintback.web.config import Config
from paintback.web.preview import Progress, plan, spread
from paintback.web.store import Store

if TYPE_CHECKING:
    from paintback.batch.job import Job
    from paintback.images import Picture
    from paintback.images.masks import Mask
    from paintback.inpainter import Inpainter, Output

__all__ = ["Worker", "describe", "job_of"]

LOADED = 2  # models that a worker keeps
PURGE = 600.0  # seconds


class _LateError(Exception):
    """A job took longer than it may."""


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
        self._job: str | None = None
        self._inpainter: Inpainter | None = None
        self._loaded: OrderedDict[str, Inpainter] = OrderedDict()
        self._purged = 0.0

    def wake(self) -> None:
        """There is a new job, or one is to stop."""
        if self._job is not None and self._inpainter is not None and self.store.stopping(self._job):
            self._inpainter.interrupt = True
        self._wake.set()

    def close(self, timeout: float = 10.0) -> None:
        """Leaves the running job, which waits again, and ends."""
        self._closing = True
        if self._inpainter is not None:
            self._inpainter.interrupt = True
        self._wake.set()
        self.join(timeout)

    def _left(self) -> bool:
        """Whether the server is going down; asked anew, since another thread says so."""
        return self._closing

    def run(self) -> None:
        """The thread's work."""
        self._ready()
        while not self._closing:
            self._wake.clear()
            if time.monotonic() - self._purged > PURGE or not self._purged:
                self.store.purge(self.config.limits.days, self.config.limits.stored_bytes)
                self._purged = time.monotonic()
            row = self.store.claim()
            if row is None:
                self._wake.wait(5.0)
                continue
            self._job = row["id"]
            try:
                self._run_job(row)
            except Exception as error:  # one job's failure is told to its owner and the next one runs
                self.store.finish(row["id"], "failed", self._explain(error))
            finally:
                self._job = self._inpainter = None
                self.progress.pop(row["id"], None)

    def _run_job(self, row: dict[str, Any]) -> None:
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
        self._inpainter, inpainter.interrupt = inpainter, False
        for number in range(1, request["samples"] + 1):
            if number in made:
                continue
            if self._closing or self.store.stopping(identifier):
                break
            progress.begin_sample(number, stages)
            seed = request["seed"] + number - 1
            output = self._paint(replace(job, seed=seed), picture, mask, progress)
            if self._left():  # half done: it runs again
                break
            self._keep(identifier, number, request, replace(job, seed=seed), picture, output)
            if output.stopped:
                break
        if self.store.stopping(identifier):
            self.store.finish(identifier, "stopped", None, self._spread(identifier, mask))
        elif self._closing:
            self.store.release(identifier)
        else:
            self.store.finish(identifier, "done", None, self._spread(identifier, mask))

    def _load(self, job: Job) -> Inpainter:
        from paintback.batch.job import load

        if job.model not in self._loaded:
            while len(self._loaded) >= LOADED:
                self._loaded.popitem(last=False)
            self._loaded[job.model] = load(job)
        self._loaded.move_to_end(job.model)
        return self._loaded[job.model]

    def _paint(self, job: Job, picture: Picture, mask: Mask, progress: Progress) -> Output:
        import torch

        from paintback.batch.job import chosen_method

        inpainter = self._inpainter
        assert inpainter is not None
        late = False

        def step(inpainter: Inpainter, index: int, t: float, state: dict[str, Any]) -> None:
            nonlocal late
            progress.took_step(inpainter, index, state["x0"])
            late = progress.seconds > self.config.limits.seconds
            if late or self._closing or self.store.stopping(self._job or ""):
                inpainter.interrupt = True

        inpainter.set_progress_bar_config(disable=True)
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
        if late:
            raise _LateError
        return output

    def _keep(
        self, identifier: str, number: int, request: dict[str, Any], job: Job, picture: Picture, output: Output
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
        kept = self.store.add_picture(
            data, kind="output", name=name, size=made.size, media="image/png", about=describe(made)
        )
        about = {
            "evaluations": output.evaluations,
            "vjps": output.vjps,
            "seconds": round(output.seconds, 3),
            "peak_memory_bytes": output.peak_memory_bytes,
            "stopped": output.stopped,
        }
        self.store.add_output(identifier, number, kept, job.seed, about)

    def _spread(self, identifier: str, mask: Mask) -> tuple[str, float] | None:
        from paintback.images import read_picture
        from paintback.images.encoding import encode

        row = self.store.job(identifier)
        outputs = [] if row is None else [one for one in row["outputs"] if not one["stopped"]]
        if len(outputs) < 2:
            return None
        made, largest = spread([read_picture(self.store.path(one["picture"])) for one in outputs], mask)
        data = encode(made, Path("spread.png"))
        kept = self.store.add_picture(data, kind="spread", name="spread.png", size=made.size, media="image/png")
        return kept, largest

    def _about(self, picture: str | None) -> dict[str, Any]:
        row = None if picture is None else self.store.picture(picture)
        return {} if row is None else {**row["about"], "name": row["name"]}

    def _explain(self, error: Exception) -> str:
        if isinstance(error, _LateError):
            return f"It took longer than {self.config.limits.seconds:g} s and was stopped; ask for less."
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return "Out of memory; make the picture or the hole smaller."
        text = " ".join(str(error).split()).replace(str(self.store.files), "").replace(str(self.store.folder), "")
        return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text or 'no message'}"


def describe(picture: Picture) -> dict[str, Any]:
    """What the page wants to know of a picture."""
    return {
        "grey": picture.grey,
        "transparent": picture.alpha is not None,
        "bits": 8 * picture.pixels.dtype.itemsize,
    }
