"""The old home of `paintback.Policy`, which documents named."""

from paintback.painting.layout import Policy

__all__ = ["Policy"]
