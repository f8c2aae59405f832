"""A store elsewhere: a directory, or whatever fsspec opens."""
