"""From a person's wish to a method's `step`: the request, the one plan, and the ways in which models paint."""
