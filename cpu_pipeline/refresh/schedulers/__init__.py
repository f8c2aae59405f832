"""One file per scheduler: `files(order)` says what is to be run in that scheduler's own words."""
