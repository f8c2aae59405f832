"""Carry a plan out: keys, the build loop, executors, workers."""
