"""Training: an embedded prior, and what else a model needs to be shipped."""
