"""Rewrite the graph; the answers stay the same."""
