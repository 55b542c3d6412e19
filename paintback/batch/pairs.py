"""Which mask belongs to which picture: by their names, in one folder or in two."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from paintback.batch import files
from paintback.batch.job import is_mask_word
from paintback.batch.names import composed, relative, stem

__all__ = ["NAMED", "Masks", "pictures", "same"]

NAMED = re.compile(r"(?P<stem>.+)[_.\- ]masks?[_.\- ]?\d*", re.IGNORECASE)


def pictures() -> frozenset[str]:
    """Suffixes of the files that are taken; those that cannot be read are named when they are tried."""
    from paintback.images import formats

    return formats.PICTURES | formats.NAMED


def same(path: str) -> str:
    """What is equal for paths of one file: links resolved, as far as it is a file here."""
    return path if files.is_url(path) else os.path.realpath(files.local(path))


def named_after(name: str) -> str | None:
    """The stem that a mask's stem is made of, as `x_mask`, `x-mask` and `x.mask` are of `x`, also with digits.

    >>> [named_after(name) for name in ("x_mask", "deep/x-mask2", "x.mask", "x_mask001", "mask", "masked", "x_masked")]
    ['x', 'deep/x', 'x', 'x', None, None, None]
    """
    folder, slash, last = name.rpartition("/")
    found = NAMED.fullmatch(last)
    return folder + slash + found["stem"] if found else None


class Masks:
    """Finds the masks of pictures.

    Args:
        masks: a folder or glob of masks that pair by stem, one mask for all, "alpha", or None for masks that lie beside
            the pictures.
        source: what the pictures were found in; None where a manifest names them.

    Raises:
        ValueError: where there is no such folder.
    """

    def __init__(self, masks: str | None, source: files.Found | None = None) -> None:
        self.one: str | None = None
        self.given = masks
        self.beside = masks is None and source is not None
        self.by_stem: dict[str, list[str]] = {}
        self.used: set[str] = set()
        self.candidates: list[str] = []
        self.root = ""
        given = [] if source is None else source.wanted
        if masks is None:
            self.root, found = ("", []) if source is None else (source.root, given)
        elif is_mask_word(masks) or _is_one(masks):
            self.one = masks
            return
        else:
            if not (files.is_url(masks) or files.is_glob(masks) or files.local(masks).is_dir()):
                raise ValueError(
                    f"masks={masks!r} is no folder, glob or picture; give one of them, alpha or auto:WORDS."
                )
            listed = files.find(masks, pictures())
            self.root, found = listed.root, listed.wanted
        both = {same(path) for path in given}
        lasts = {_last(stem(path)) for path in given}
        bases = {_last(base) for path in given if (base := named_after(stem(path))) is not None}
        for path in found:
            whole = composed(stem(relative(path, self.root)))
            base = named_after(whole)
            if same(path) in both:  # a picture, if its name is no mask's, or if another one is named as its mask
                if base is None or (_last(base) not in lasts and _last(whole) in bases):
                    continue
                names = {base}
            else:
                names = {whole} if base is None else {whole, base}
            self.candidates.append(path)
            for name in names:
                for entry in {name, "*/" + _last(name)}:
                    self.by_stem.setdefault(entry, []).append(path)

    def take(self, found: Sequence[str]) -> list[str]:
        """Those of the pictures found that are no masks."""
        masks = {same(path) for path in (self.candidates if self.one is None or is_mask_word(self.one) else [self.one])}
        return [path for path in found if same(path) not in masks]

    def of(self, name: str) -> str | None:
        """The mask of a picture by its path in its folder, or None where there are no masks to pair.

        Raises:
            ValueError: if there is none, or more than one.
        """
        if self.one is not None or (self.given is None and not self.beside):
            return self.one
        own = composed(stem(name))
        for entry in (own, "*/" + _last(own)):
            found = self.by_stem.get(entry, [])
            if len(found) == 1:
                self.used.add(found[0])
                return found[0]
            if found:
                self.used.update(found)
                raise ValueError(f"{name!r} has {len(found)} masks ({', '.join(found)}); leave one.")
        last = _last(own)
        if self.beside:
            raise ValueError(f"{name!r} has no mask beside it; name one {last}_mask.png, or say where with --masks.")
        raise ValueError(f"{name!r} has no mask in {self.given!r}; name one {last}.png.")

    def unused(self) -> list[str]:
        """Masks that no picture took, once all pictures were asked for."""
        return [path for path in self.candidates if path not in self.used]


def _is_one(masks: str) -> bool:
    if not files.is_url(masks) and files.local(masks).exists():
        return files.local(masks).is_file()
    return PurePosixPath(masks).suffix.lower() in pictures() and not files.is_glob(masks)


def _last(path: str) -> str:
    return composed(PurePosixPath(path).name)
