"""Collect a store's garbage as the command does: what its roots name stays."""

from __future__ import annotations

from cpu_pipeline.release import references
from cpu_pipeline.store.gc import Removal, collect
from cpu_pipeline.store.local import Store


def gc(store: Store, keep_days: float = 30, dry_run: bool = False) -> list[Removal]:
    """Remove what is not needed any more."""
    return collect(store, references.reader(store), keep_days, dry_run=dry_run)
