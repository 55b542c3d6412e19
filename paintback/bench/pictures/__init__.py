"""The image benchmark: all methods on the same pictures and masks, at equal cost, under one protocol.

`suite` says what is measured, `cases` makes the pictures and masks of it, `protocol` what two numbers must share to be
compared, `worker` paints with one method in a process of its own, `runner` calls it for all and can be killed at any
moment, `scoring` measures what was painted, `tuning` searches the methods' fields, `summary` and `report` show it.
"""
