"""Static embeddings for cpu-pipeline: one file each for a stage, a task, a backend and a source."""
