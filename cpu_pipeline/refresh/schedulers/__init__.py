"""One file per scheduler: `files(order)` writes the jobs for that scheduler."""
