"""Our own studies: what the documentation's pages of findings were made with. README.md says which command makes which.

They use the package and are no part of it: the wheel leaves them out, and nothing in `paintback` imports them.
"""
