"""Measuring: metrics, suites, and the commands that make every number in the documentation."""
