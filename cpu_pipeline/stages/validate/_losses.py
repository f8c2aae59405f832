"""By how much the answer to one row is worse than that of the reference: `runtime.losses`, under its name here."""

from __future__ import annotations

from cpu_pipeline.runtime.losses import loss

__all__ = ["loss"]
