"""The command `paintback`: one small file per group of commands."""
