"""What the YAML of recipes and pipelines may say. Data only: no interpolation, no inheritance, no code."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cpu_pipeline.stages._base import ROLES as ROLES
from cpu_pipeline.stages._base import Role
from cpu_pipeline.stages._base import Waiver as Waiver

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
"""A step's or pipeline's name."""
Trigger = Literal["model", "data", "recipe", "toolchain"]
"""What a refresh may react to."""
RESERVED = ("model", "tokenizer", "teacher", "data", *ROLES)
"""Names that steps cannot have, because the recipe's own sources have them."""


class Written(BaseModel):
    """Base of everything written in YAML: unknown keys are errors."""

    model_config = ConfigDict(
        defer_build=True, frozen=True, extra="forbid", validate_by_alias=True, validate_by_name=True
    )


class Step(Written):
    """One stage as a pipeline writes it down."""

    id: Name
    """Name of this step inside the pipeline."""
    use: str
    """Stage to run, such as `quantize.onnx`."""
    sources: dict[str, str] = Field(default_factory=dict, alias="from")
    """Input name -> step id (or `model`, `teacher`), where an input is not simply the previous model."""
    options: dict[str, Any] = Field(default_factory=dict, alias="with")
    """Options of that stage."""
    waive: dict[str, Any] | None = None
    """Of a gate: let it pass though it failed, until a day and for a reason: {until: 2026-12-31, reason: ...}."""
    timeout: float | None = Field(None, gt=0)
    """Seconds after which the step is stopped as hung."""


class Pipeline(Written):
    """A reusable graph of stages, free of any model, task or data."""

    about: str
    """What comes out, and for whom, in one sentence."""
    stages: list[Step] = Field(min_length=1)
    """Steps in order; each takes the previous model unless `from` names another."""


class Target(Written):
    """The machine the artifacts are for, where it is not this one."""

    isa: Literal["avx2", "avx512", "avx512_vnni", "avx_vnni", "amx", "neon"] | None = None
    """Newest instruction set that may be relied on; decides reduce_range and overflow fixes of int8."""
    threads: int | None = Field(default=None, ge=1)
    """Threads that latency is measured with; this machine's cores unless given."""


class Refresh(Written):
    """When and from where this recipe is refreshed; `run` does not look at it."""

    follow: str | None = None
    """Branch that every `revision` in the recipe follows; `lock --upgrade` and `refresh` alone move them."""
    cron: str | None = None
    """Schedule, as five cron fields."""
    on: list[Trigger] = Field(default_factory=list)
    """What a refresh reacts to; everything when empty."""
    keep: int | None = Field(None, ge=1)
    """How many versions to keep; the best one, with which refreshes are compared, stays besides."""


class Use(Written):
    """A task with its options."""

    use: str
    """Task, such as `question-answering`."""
    options: dict[str, Any] = Field(default_factory=dict, alias="with")
    """Options of that task."""


class Recipe(Written):
    """One model, one task, its data, and the pipeline to send them through."""

    about: str | None = None
    """What this recipe is for, in one sentence."""
    model: dict[str, Any]
    """Where the model comes from: `hub` at a full `revision`, or `folder`."""
    tokenizer: dict[str, Any] | None = None
    """Where the tokenizer comes from, when not with the model."""
    teacher: dict[str, Any] | None = None
    """A second model that stages can name as `teacher`."""
    task: Use
    """What the model does: a task's name, or `{use: name, with: {...}}`."""
    data: dict[Role, dict[str, Any]] = Field(default_factory=dict)
    """Rows for each role; no two roles may share a row. Gates alone see `validation`."""
    pipeline: Name | None = None
    """A file in pipelines/, without `.yaml`."""
    stages: list[Step] | None = None
    """Or the steps themselves, when no pipeline fits."""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict, alias="with")
    """Step id -> options that differ from the pipeline's, merged over them key by key."""
    outputs: list[str] | None = None
    """Steps to put into artifacts/; the models that no other step builds on unless given."""
    unchecked: dict[str, Annotated[str, Field(min_length=1, pattern=r"\S")]] = Field(default_factory=dict)
    """Output -> why it is put into service though no gate judges its answers against the float model."""
    target: Target = Target(isa=None, threads=None)
    """The machine the artifacts are for, where it is not this one."""
    allow: list[Literal["pickle", "auto_map", "unused_weights"]] = Field(default_factory=list)
    """Risks taken on purpose: weights in pickle form (weights_only), a config.json that names code (ignored),
    weights that config.json has no place for (left out)."""
    refresh: Refresh | None = None
    """When and from where this recipe is refreshed; `run` does not look at it."""
    tune: dict[str, Any] | None = None
    """Reserved for runtime tuning; a recipe that has it is refused until a stage can do it."""
