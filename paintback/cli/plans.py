"""`--dry-run`: what would be painted, at which scales and in how many steps, and about how long it takes here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from paintback.cli.output import Format, duration, emit, table

if TYPE_CHECKING:
    from paintback.batch.planning import Planned
    from paintback.images import Picture
    from paintback.images.masks import Mask
    from paintback.painting.layout import Plan
    from paintback.painting.request import Request
    from paintback.tasks.inpaint import Inpainter

__all__ = ["tell", "tell_all"]

SHOWN = 20  # pictures named in the text; JSON has all


def tell(inpainter: Inpainter, request: Request, picture: Picture, hole: Mask, form: Format) -> None:
    """Prints the plan of one request.

    Args:
        inpainter: with the request's model.
        request: what is asked.
        picture: as `batch.job.read` reads it.
        hole: likewise.
        form: of what is printed.
    """
    from paintback.batch.job import bare, of_seed, settled, shown

    request = settled(request, inpainter)
    plain = of_seed(bare(shown(request)), int(request.seed or 0))
    plan = inpainter.plan(picture, hole, request=plain)
    speed = inpainter.speed(plan, request.prompt, reference_images=plain.reference_images)
    seconds = None if speed is None else request.samples * plan.seconds(speed)
    data: dict[str, Any] = {
        **plan.to_json(),
        "samples": request.samples,
        "seconds": None if seconds is None else round(seconds, 1),
        "settings": request.to_settings(),
    }
    samples = "" if request.samples == 1 else f"{request.samples} samples, each: "
    took = "" if seconds is None else f"; about {duration(seconds)} here"
    emit(
        form,
        data,
        f"{table(_rows(plan))}\n{samples}{request.method}, {plan.steps} steps, {plan.evaluations:g} evaluations, "
        f"{plan.vjps:g} gradients{took}",
    )


def _rows(plan: Plan) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("region", "what", "at", "crop", "scale", "painted at", "steps", "evaluations")]
    for stage in plan.stages:
        box = stage.box
        rows.append(
            (
                str(stage.number + 1),
                stage.role,
                f"{box.left},{box.top}",
                f"{box.width} x {box.height}",
                f"1/{stage.factor:g}",
                f"{stage.size[1]} x {stage.size[0]}",
                str(stage.steps * plan.batches(stage)),
                f"{stage.evaluations * plan.draws:g}",
            )
        )
    return rows


def tell_all(planned: Iterable[Planned], form: Format) -> None:
    """Prints the plans of a batch, and what they come to.

    Args:
        planned: its pictures.
        form: of what is printed.
    """
    pictures: list[dict[str, Any]] = []
    evaluations, seconds, broken, done = 0.0, 0.0, 0, 0
    for one in planned:
        if one.done:
            done += 1
            pictures.append({"name": one.name, "done": True, "error": None})
            continue
        if one.plan is None:
            broken += 1
            pictures.append({"name": one.name, "error": one.error})
            continue
        evaluations += one.plan.evaluations
        seconds += one.seconds or 0.0
        pictures.append({"name": one.name, **one.plan.to_json(), "seconds": one.seconds, "error": None})
    data = {
        "pictures": pictures,
        "evaluations": evaluations,
        "seconds": seconds or None,
        "done": done,
        "failed": broken,
    }
    lines = [
        f"{row['name']}: {row['error']}"
        if row["error"]
        else f"{row['name']}  done before"
        if "done" in row
        else f"{row['name']}  {row['regions']} regions, {row['steps']} steps, {row['evaluations']:g} evaluations"
        for row in pictures[:SHOWN]
    ]
    lines += [f"and {len(pictures) - SHOWN} more"] * (len(pictures) > SHOWN)
    took = f"; about {duration(seconds)} here, one by one" if seconds else ""
    before = f"{done} done before, " if done else ""
    lines.append(
        f"{len(pictures) - broken - done} pictures, {broken} that cannot be, {before}{evaluations:g} evaluations{took}"
    )
    emit(form, data, "\n".join(lines))
