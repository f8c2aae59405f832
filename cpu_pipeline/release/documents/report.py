"""The report of a version, in Markdown: what was checked, what came out, how to load it; outside text is escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpu_pipeline import backends
from cpu_pipeline.core.markdown import code, escape, table
from cpu_pipeline.core.text import size
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import NOT_MODELS


def render(built: BuildResult, manifest: Mapping[str, Any]) -> str:
    """Write the report of a build that passed."""
    plan, recipe = built.plan, built.plan.recipe
    lines = [f"# {escape(plan.name)} {manifest['version']}", ""]
    if recipe.about:
        lines += [escape(recipe.about), ""]
    for environment in manifest["environments"].values():
        if environment["warning"]:
            lines += [f"**Warning:** {escape(environment['warning'])}", ""]
    lines += _made_of(manifest)
    lines += ["## Checks", ""]
    lines += _checks(built) if built.verdicts else ["This recipe has no check: nothing here is proved.", ""]
    lines += _side_by_side(built)
    for node_id, found in built.artifacts.items():
        lines_of_stage = plan.nodes[node_id].stage.tells(found.facts)
        if lines_of_stage:
            lines += [f"### {code(node_id)}: {escape(plan.nodes[node_id].use)}", "", *lines_of_stage, ""]
    lines += ["## Steps"]
    lines += table(
        ("step", "stage", "format", "size", "seconds", "peak memory", "digest"),
        (
            (code(name), code(step["use"]), step["format"], _size_of(built, name), _seconds(step), _peak(step),
             code(step["digest"][:12]))
            for name, step in manifest["steps"].items()
        ),
    )  # fmt: skip
    lines += ["## Made with"]
    packages = manifest["packages"].items()
    lines += table(("package", "version"), ((escape(name), escape(version)) for name, version in packages))
    for name, environment in manifest["environments"].items():
        lines += [f"In the environment {code(name)} (pins {code(environment['pins'][:12])}): "
                  + ", ".join(escape(f"{p} {v}") for p, v in environment["packages"].items()) + ".", ""]  # fmt: skip
    machine = manifest["host"]
    lines += [f"Machine: {escape(machine['cpu'])}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
              f"instruction sets {code(' '.join(machine['isa']))}.", ""]  # fmt: skip
    lines += ["## How to load", ""]
    for name in plan.outputs:
        artifact = built.artifacts[name]
        lines += [f"{code(name)} ({artifact.format}):", "", "```python"]
        lines += [backends.get(artifact.format).usage(name, plan.context.task).strip(), "```", ""]
    return "\n".join(lines)


def _made_of(manifest: Mapping[str, Any]) -> list[str]:
    recipe = manifest["recipe"]
    rows = []
    for role in ("model", "tokenizer", "teacher"):
        if role in recipe:
            rows.append((role, *_place(recipe[role])))
    for role, source in recipe.get("data", {}).items():
        step = manifest["steps"].get(f"data.{role}", {})
        count = step.get("facts", {}).get("rows", "?")
        origin, commit = _place(source)
        rows.append((f"data.{role}", f"{origin} ({count} rows)", commit))
    return ["## Made of", *table(("what", "from", "commit"), rows)]


def _place(source: Mapping[str, Any]) -> tuple[str, str]:
    origin = source.get("hub") or source.get("folder") or source.get("file")
    return code(origin), code(source["revision"]) if "revision" in source else "local, by content"


def _checks(built: BuildResult) -> list[str]:
    rows = []
    for node_id, verdicts in built.verdicts.items():
        candidate = next(iter(built.plan.nodes[node_id].inputs.values()), "").split(":")[-1]
        rows += [
            (code(node_id), code(candidate), escape(v.check), "passed" if v.passed else "**failed**", escape(v.says))
            for v in verdicts
        ]
    return table(("check", "of", "what", "verdict", "says"), rows)


def _side_by_side(built: BuildResult) -> list[str]:
    """Put everything that was measured of each model into one row, the references first."""
    plan = built.plan
    rows: dict[str, dict[str, str]] = {}
    for side in ("reference", "candidate"):
        for gate, node in plan.nodes.items():
            if gate in built.verdicts and side in node.inputs:
                model = node.inputs[side].split(":")[-1]
                cells = node.stage.cells(built.artifacts[gate].facts, side)
                # A reference is measured beside each candidate; the first time stands for all.
                rows[model] = (
                    {**cells, **rows.get(model, {})} if side == "reference" else {**rows.get(model, {}), **cells}
                )
    rows = {model: cells for model, cells in rows.items() if cells}
    columns = list(dict.fromkeys(column for cells in rows.values() for column in cells))
    if len(rows) < 2:
        return []
    return [
        "## Side by side",
        *table(
            ("model", "format", "size", *columns),
            (
                (
                    code(model),
                    built.artifacts[model].format,
                    _size_of(built, model),
                    *(cells.get(c, "") for c in columns),
                )
                for model, cells in rows.items()
            ),
        ),
    ]


def _size_of(built: BuildResult, name: str) -> str:
    artifact = built.artifacts[name]
    return "" if artifact.format in NOT_MODELS else size(built.records[name].size)


def _seconds(step: Mapping[str, Any]) -> str:
    return f"{step['run']['seconds']:.1f}" if "seconds" in step["run"] else ""


def _peak(step: Mapping[str, Any]) -> str:
    return size(step["run"]["peak_memory"]) if "peak_memory" in step["run"] else ""
