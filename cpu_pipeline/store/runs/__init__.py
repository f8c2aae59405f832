"""The outcome of each run: written, read, indexed."""
