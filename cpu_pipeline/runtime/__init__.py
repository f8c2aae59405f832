"""Run a finished model on rows: batches, comparison of outputs, intervals. Needs no torch."""
