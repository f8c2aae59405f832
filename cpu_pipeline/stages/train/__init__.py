"""Stages that train a checkpoint."""
