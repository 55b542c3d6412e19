"""What goes wrong with pictures, and what is worth saying of them, each told in one sentence.

An error says what was given, what was expected and what to do. A remark says what was done where a person might have
meant something else; it is a Python warning unless the caller takes the sentences by `say=`.
"""

import warnings
from collections.abc import Callable

Say = Callable[[str], object]


class PictureError(ValueError):
    """A picture or mask cannot be used as given."""


class MissingPicture(PictureError, FileNotFoundError):  # noqa: N818 - named like what it says
    """The file is not there; also a FileNotFoundError, for callers that look for one."""

    # OSError formats its arguments in its own way; one plain sentence is wanted here.
    def __str__(self) -> str:
        """Return the sentence."""
        return str(self.args[0]) if self.args else "the file does not exist"


class Remark(UserWarning):
    """Something was done with a file that a person might have meant differently, or that a format cannot hold."""


def remark(text: str) -> None:
    """Says a sentence as a warning; Python shows the same one once."""
    warnings.warn(text, Remark, stacklevel=3)
