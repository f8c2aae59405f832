"""Bring what was fetched into a form of ours (internal)."""
