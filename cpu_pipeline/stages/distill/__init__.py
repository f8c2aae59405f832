"""Stages that let a small model learn of a larger one."""
