"""The words that an embedded model was trained with, and prompts as weights of these words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Vocabulary", "split_words"]

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def split_words(prompt: str) -> list[str]:
    """The lower-cased words of a prompt; a word is letters and digits, with apostrophes inside.

    >>> split_words("Woman’s hat: T-shirt, 100%")
    ["woman's", 'hat', 't', 'shirt', '100']
    """
    return _WORD.findall(prompt.lower().replace("’", "'"))


@dataclass(frozen=True)
class Vocabulary:
    """A list of words.

    Attributes:
        words: all different, as `split_words` gives them.
    """

    words: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def unknown(self, prompt: str) -> list[str]:
        """The words of a prompt that are not in the list, each once, in their order."""
        return list(dict.fromkeys(word for word in split_words(prompt) if word not in self._numbers))

    def row(self, prompt: str) -> Tensor:
        """The mean of the one-hot vectors of a prompt's known words; zeros where there are none.

        Args:
            prompt: any text.

        Returns:
            (V,), float32, its sum 1 or 0.
        """
        row = torch.zeros(len(self.words))
        known = [self._numbers[word] for word in split_words(prompt) if word in self._numbers]
        for number in known:
            row[number] += 1 / len(known)
        return row

    def rows(self, prompts: Sequence[str]) -> Tensor:
        """`row` of each prompt: (B, V)."""
        return torch.stack([self.row(prompt) for prompt in prompts])
