"""Build CPU-ready artifacts from Hugging Face models, as recipes say.

    from cpu_pipeline import load_recipe, plan, build

mirrors the command line, with typed results. Nothing heavy is imported until a stage runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpu_pipeline.api import Outcome, build, load_recipe, plan
    from cpu_pipeline.core.errors import PipelineError

    __version__: str

__all__ = ["Outcome", "PipelineError", "__version__", "build", "load_recipe", "plan"]


def __getattr__(name: str) -> Any:
    if name in ("Outcome", "build", "load_recipe", "plan"):
        from cpu_pipeline import api

        return getattr(api, name)
    if name == "PipelineError":
        from cpu_pipeline.core.errors import PipelineError

        return PipelineError
    if name == "__version__":
        from importlib.metadata import version

        return version("cpu-pipeline")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
