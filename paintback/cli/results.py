"""Where a command writes: checked before the work, which may take hours, and not after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import click

__all__ = ["check_results", "dry_option", "numbered", "overwrite_option"]

overwrite_option = click.option("--overwrite", is_flag=True, help="Write over the input, where the result is named so.")

dry_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and about how long it takes.")


def numbered(out: Path, samples: int) -> list[Path]:
    """The names of samples: OUT itself, or OUT-1, OUT-2, ...

    Raises:
        ValueError: where OUT is a folder without a name, as "." and "/" are.
    """
    if not out.name:
        raise ValueError(f"{str(out)!r} is a folder; give the name of a file in it.")
    return [out] if samples == 1 else [out.with_name(f"{out.stem}-{k}{out.suffix}") for k in range(1, samples + 1)]


def check_results(paths: Sequence[Path], inputs: Iterable[str | Path | None], *, overwrite: bool = False) -> None:
    """Refuses results that would be written over what they are made from, or that cannot be written at all.

    Args:
        paths: of the results.
        inputs: paths of what is read; None and what is no file here do not count.
        overwrite: the user said that an input may be written over.

    Raises:
        ValueError: naming the path.
    """
    from paintback.images.encoding import check_place

    read = [Path(path) for path in inputs if path is not None and Path(path).exists()]
    for path in paths:
        check_place(path)
        if path.exists() and not overwrite and any(path.samefile(one) for one in read):
            raise ValueError(
                f"{str(path)!r} is what is read, and would be written over; give another name, or say --overwrite."
            )
