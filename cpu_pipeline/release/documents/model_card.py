"""The model card of an output: its README.md, with the header that the Hugging Face Hub reads.

https://huggingface.co/docs/hub/model-cards. `base_model_relation` is finetune, adapter, merge or quantized. Conversion
that keeps every weight is not one of them: the field is written where something was quantized, and left out elsewhere.
Stages describe their steps and measurements themselves; outside text is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from cpu_pipeline import backends
from cpu_pipeline.core.artifact import Card
from cpu_pipeline.core.markdown import code, escape, table
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Node
from cpu_pipeline.release.caveats import caveats
from cpu_pipeline.release.documents.markdown import blocks
from cpu_pipeline.release.documents.origins import Origin, maker, used
from cpu_pipeline.stages._base import Verdict

FILE = "README.md"
LIBRARIES = {"hf": "transformers"}
"""Format -> the Hub's name of the library that loads it, where it is not the format's own."""
_PLAIN = re.compile(r"[A-Za-z]([\w ./-]*\w)?")
"""Text that is text to every reader of YAML, unless it is a word of its own (`yes`, `null`)."""


def render(built: BuildResult, manifest: Mapping[str, Any], origins: Sequence[Origin], output: str) -> str:
    """Write the model card of one output, as Markdown with a YAML header.

    Args:
        built: the build.
        manifest: what `manifest.describe` returned for it.
        origins: everything that was fetched.
        output: the node whose artifact the card is about.
    """
    ancestors = built.plan.ancestors(output)
    made_of = [origin for origin in origins if origin.node in ancestors]
    gates = {name: built.plan.nodes[name] for name in built.verdicts}
    own = [gate for gate in gates.values() if _side(gate, "candidate") == output]
    # What looked at a step on the way looked at what this was made of.
    others = [gate for gate in gates.values() if _side(gate, "candidate") in ancestors - {output}]
    lines = ["---", _yaml(_header(built, manifest, made_of, own, output)), "---", ""]
    lines += [f"# {escape(manifest['name'])}: {escape(output)}", ""]
    if about := manifest["recipe"].get("about"):
        lines += [escape(about), ""]
    for caveat in caveats(manifest, output):
        lines += [f"**Warning:** {escape(caveat)}", ""]
    _, environments = used(built, ancestors)
    for environment in sorted(environments):
        if warning := manifest["environments"][environment]["warning"]:
            lines += [f"**Warning:** {escape(warning)}", ""]
    lines += _made(built, manifest, made_of, output)
    lines += ["## How good it is", "", *_judged(built, output, [*own, *others])]
    lines += _use(built, output)
    lines += _rebuild(manifest, output)
    return "\n".join(lines)


def _header(
    built: BuildResult, manifest: Mapping[str, Any], made_of: Sequence[Origin], gates: Sequence[Node], output: str
) -> dict[str, Any]:
    """Say what the Hub indexes; what is not known is left out."""
    plan = built.plan
    ancestors = plan.ancestors(output)
    artifact = built.artifacts[output]
    quantized = any(plan.nodes[name].stage.quantizes for name in ancestors)
    base = [o.name for o in made_of if o.want == "model" and o.commit]
    learned = [o.name for o in made_of if o.want == "data" and o.commit]
    task = plan.context.task
    header: dict[str, Any] = {}
    if base:
        header["base_model"] = base[0] if len(base) == 1 else base
        header |= {"base_model_relation": "quantized"} if quantized else {}
    header["library_name"] = LIBRARIES.get(artifact.format, artifact.format)
    header |= {"pipeline_tag": task.pipeline_tag} if task else {}
    header["tags"] = ["cpu-pipeline", "cpu", artifact.format, *(["quantized"] if quantized else [])]
    header |= {"datasets": learned} if learned else {}
    results = list(_results(built, manifest, gates))
    return header | ({"model-index": [{"name": f"{plan.name}-{output}", "results": results}]} if results else {})


def _results(built: BuildResult, manifest: Mapping[str, Any], gates: Sequence[Node]) -> Iterator[dict[str, Any]]:
    """Write what the gates measured as entries of `model-index`; in percent where the field prints it so."""
    task = built.plan.context.task
    if task is None:
        return
    for gate in gates:
        scores = gate.stage.scores(gate.stage.parse_facts(built.artifacts[gate.id].facts))
        order = [name for name in task.metrics if name in scores]  # the usual one first, as the Hub shows it
        for role in gate.data if scores else ():
            yield {
                "task": {"type": task.pipeline_tag},
                "dataset": _dataset(manifest["recipe"]["data"][role], role),
                "metrics": [
                    {"type": name, "value": round(scores[name] * 100, 4) if task.percent else round(scores[name], 6)}
                    for name in dict.fromkeys([*order, *scores])
                ],
            }


def _dataset(source: Mapping[str, Any], role: str) -> dict[str, Any]:
    if "hub" in source:
        fields = {key: source[key] for key in ("config", "split", "revision") if key in source}
        return {"type": source["hub"], "name": source["hub"], **fields}
    path = source.get("file", role)
    first = PurePosixPath(path if isinstance(path, str) else path[0])
    return {"type": first.stem, "name": f"{first.name} (local)"}


def _made(built: BuildResult, manifest: Mapping[str, Any], made_of: Sequence[Origin], output: str) -> list[str]:
    """Tell which steps made it, in their stages' words, and of what."""
    ancestors = built.plan.ancestors(output)
    steps = [n for n in built.plan.nodes.values() if n.id in ancestors and not n.stage.internal]
    by = escape(" ".join(filter(None, ("cpu-pipeline", maker(manifest)))))
    lines = [f"A model in the format {code(built.artifacts[output].format)}, made by {by} in these steps:", ""]
    for node in steps:
        sentence = (type(node.stage).__doc__ or "").strip().partition("\n")[0]
        lines.append(f"- {code(node.id)} ({code(node.use)}): {sentence}")
        if chosen := node.stage.model_dump(mode="json", exclude_defaults=True):
            lines.append("  Options: " + ", ".join(code(f"{key}: {value}") for key, value in chosen.items()) + ".")
    rows = [
        (code(o.node.removesuffix(":files")), code(o.name), code(o.commit) if o.commit else f"content {code(o.digest)}")
        for o in made_of
    ]
    return [*lines, "", "## Made of", *table(("what", "from", "commit"), rows)]


def _judged(built: BuildResult, output: str, gates: Sequence[Node]) -> Iterator[str]:
    """Write the verdicts of every check of this output and of its steps, with the figures beside the reference's."""
    if not any(_side(gate, "candidate") == output for gate in gates):
        yield from ("No check of the recipe looked at this output: nothing here is proved.", "")
    for gate in gates:
        candidate = _side(gate, "candidate")
        of = "" if candidate == output else f", of {code(candidate)}"
        reference = _side(gate, "reference")
        against = f", against {code(reference)}" if reference else ""
        yield from (f"### {code(gate.id)} ({code(gate.use)}){of}{against}", "")
        yield from (f"- {_outcome(verdict)}{escape(verdict.says)}" for verdict in built.verdicts[gate.id])
        details = gate.stage.details(gate.stage.parse_facts(built.artifacts[gate.id].facts))
        yield from ("", *blocks(details))
        machine = built.records[gate.id].ingredients.get("host")
        if isinstance(machine, Mapping) and "cpu" in machine:
            threads, cores = machine.get("threads", "?"), machine.get("cores", "?")
            yield f"Measured on {escape(machine['cpu'])}, {threads} of {cores} cores."
            yield ""


def _outcome(verdict: Verdict) -> str:
    """Mark what did not simply pass."""
    if verdict.warning:
        return "**Warning:** "
    return "" if verdict.passed else f"**{verdict.outcome}:** "


def _use(built: BuildResult, output: str) -> list[str]:
    artifact = built.artifacts[output]
    needs = Card.read(artifact.path, artifact.format).needs
    needs_text = (
        f"It needs a CPU with {', '.join(code(need.replace('|', ' or ')) for need in needs)}; "
        "without, it answers wrongly or not at all."
        if needs
        else "It asks for no instruction set of its own: any CPU that its runtime supports can run it."
    )
    usage = backends.get(artifact.format).usage(".", built.plan.context.task).strip()
    return ["## How to load", "", "In this folder:", "", *_fenced(usage, "python"), "", needs_text, ""]


def _rebuild(manifest: Mapping[str, Any], output: str) -> list[str]:
    recipe = f"{manifest['name']}.yaml"
    return [
        "## How to rebuild",
        "",
        f"Save this recipe as {code(recipe)}, beside the files that it names by path. A pipeline's file and what was "
        "changed for the build are worked into it:",
        "",
        *_fenced(_yaml(manifest["resolved"]), "yaml"),
        "",
        *_fenced(f"cpu-pipeline run {recipe}   # build, check, publish", "bash"),
        "",
        f"This is version {code(manifest['version'])}, output {code(output)} "
        f"(digest {code(manifest['outputs'][output]['digest'])}). Beside its folder lies what it was made of and with "
        "(`provenance.json`, `sbom.json`, `manifest.json`), and the report of the whole build (`report.md`).",
        "",
    ]  # fmt: skip


def _side(gate: Node, name: str) -> str | None:
    """Name the model that a gate holds as candidate or reference, whatever the graph put between."""
    first = next(iter(gate.inputs.values()), None) if name == "candidate" else None
    source = gate.inputs.get(name, first)
    return None if source is None else source.rpartition(":")[2]


def _fenced(text: str, language: str) -> list[str]:
    """Write a block of code that nothing inside can end."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 0)
    return [f"{fence}{language}", text, fence]


class _Dumper(yaml.SafeDumper):
    """Quotes every text that some reader might take for a number, a date or a word of YAML."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if _PLAIN.fullmatch(value) else '"')


_Dumper.add_representer(str, _text)


def _yaml(value: Mapping[str, Any]) -> str:
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=True).rstrip("\n")
