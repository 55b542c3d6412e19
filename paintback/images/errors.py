"""What goes wrong with pictures, each told in one sentence: what was given, what was expected, what to do."""


class PictureError(ValueError):
    """A picture or mask cannot be used as given."""


class MissingPicture(PictureError, FileNotFoundError):  # noqa: N818 - named like what it says
    """The file is not there; also a FileNotFoundError, for callers that look for one."""

    # OSError formats its arguments in its own way; one plain sentence is wanted here.
    def __str__(self) -> str:
        """Return the sentence."""
        return str(self.args[0]) if self.args else "the file does not exist"
