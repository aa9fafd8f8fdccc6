"""A small app as a user would write one: models that keep evidence, and a tasks.py."""
