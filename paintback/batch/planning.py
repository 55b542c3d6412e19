"""What a run would do, picture by picture, and about how long it takes here: for `paintback batch --dry-run`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paintback.batch.job import bare, load, of_seed, read, settled, shown
from paintback.batch.tasks import Task

if TYPE_CHECKING:
    from paintback.painting.layout import Plan, Speed
    from paintback.tasks.inpaint import Inpainter

__all__ = ["Planned", "plan_all"]


@dataclass(frozen=True)
class Planned:
    """One picture of a batch.

    Attributes:
        name: of the task.
        plan: what would be done, or None where it cannot be.
        seconds: that it takes by itself, at the speed measured at the first picture; None where that is not known.
        error: what is wrong with it.
        done: whether its result is there already.
    """

    name: str
    plan: Plan | None = None
    seconds: float | None = None
    error: str | None = None
    done: bool = False


def plan_all(tasks: Sequence[Task], done: Sequence[bool]) -> Iterator[Planned]:
    """Plans tasks one after another; each model is loaded once, in the order of the tasks.

    Args:
        tasks: of a batch.
        done: which of them are, and need no plan.

    Raises:
        ValueError: for a model or device that cannot be used.
    """
    loaded: dict[tuple[str | None, ...], tuple[Inpainter, list[Speed]]] = {}
    for task, is_done in zip(tasks, done, strict=True):
        if is_done:
            yield Planned(task.name, done=True)
            continue
        if task.request is None:
            yield Planned(task.name, error=task.error)
            continue
        own = task.request
        place = (own.model, own.device, own.dtype, own.offload, own.step_distilled)
        if place not in loaded:
            loaded[place] = load(task.request), []
        inpainter, speeds = loaded[place]
        try:
            request = settled(task.request, inpainter)
            plain = of_seed(bare(shown(request)), int(request.seed or 0))
            plan = inpainter.plan(*read(request), request=plain)
        except ValueError as error:
            yield Planned(task.name, error=str(error))
            continue
        told = plain.reference_images
        untimed = not speeds or (speeds[0].per_asked == 0 and any(stage.asked for stage in plan.stages))
        if untimed and (measured := inpainter.speed(plan, request.prompt, reference_images=told)) is not None:
            speeds[:] = [measured]
        yield Planned(task.name, plan, plan.seconds(speeds[0]) if speeds else None)
