"""The sources and the build of a version, as an in-toto statement with SLSA provenance; written and checked.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md and https://slsa.dev/provenance/v1; what the
parameters of a recipe's build mean is in docs/provenance.md. All of it follows from the manifest and from digests of
what was fetched: no clock is looked at, and the same store gives the same bytes on one machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from cpu_pipeline.core.artifact import digest_json, digest_listing
from cpu_pipeline.engine.packages import ABSENT
from cpu_pipeline.release.documents.origins import Origin, maker, pypi, resolve, times

FILE = "provenance.json"
MANIFEST = "manifest.json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILDER = "pkg:pypi/cpu-pipeline"
BUILD_TYPE = f"{BUILDER}?recipe-build=1#docs/provenance.md"
"""Names what `cpu-pipeline run RECIPE` does: a package URL that leads to where it is written down."""

Manifest = Mapping[str, Any]


def make_statement(manifest: Manifest, origins: Iterable[Origin]) -> dict[str, Any]:
    """Write the statement about a version.

    Args:
        manifest: the version's, with `files` as far as they are written.
        origins: everything that was fetched.
    """
    files: Mapping[str, Any] = {name: said for name, said in manifest["files"].items() if name != FILE}
    outputs = tuple(f"{name}/" for name in manifest["outputs"])
    ours = {name: sha for name, (_, sha) in files.items() if name.startswith(outputs)}
    rest = {name: sha for name, (_, sha) in files.items() if name not in ours}
    stamps = [said.strftime("%Y-%m-%dT%H:%M:%SZ") for said in times(manifest) or ()]
    return {
        "_type": STATEMENT,
        "subject": _resources(ours),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                # Manifests from before there were `resolved` and `isa` lack them, and have statements to match.
                "externalParameters": {k: manifest[k] for k in ("name", "recipe", "resolved") if k in manifest},
                "internalParameters": {
                    "steps": {
                        name: {k: step[k] for k in ("use", "inputs", "options", "key", "digest", "format")}
                        for name, step in manifest["steps"].items()
                    },
                    "environments": {name: said["pins"] for name, said in manifest["environments"].items()},
                    "isa": manifest.get("isa", manifest["host"]["isa"]),
                },
                "resolvedDependencies": [*_fetched(origins), *_packages(manifest)],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"cpu-pipeline": maker(manifest) or "unknown"}},
                "metadata": dict(zip(("startedOn", "finishedOn"), stamps, strict=False)),
                "byproducts": [
                    *_resources(rest),
                    # The manifest lists this statement by digest, and can be in it only without that line.
                    {"name": MANIFEST, "digest": {"canonicalJson": digest_json({**manifest, "files": files})}},
                ],
            },
        },
    }


def dump_statement(statement: Mapping[str, Any]) -> str:
    """Write a statement as the text of its file."""
    return json.dumps(statement, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _resources(files: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"name": name, "digest": {"sha256": sha}} for name, sha in sorted(files.items())]


def _fetched(origins: Iterable[Origin]) -> Iterator[dict[str, Any]]:
    for origin in origins:
        if origin.page is not None:
            uri = f"git+{origin.page}@{origin.commit}"
            yield {"name": origin.node, "uri": uri, "digest": {"gitCommit": origin.commit}}
        for name, (_, sha) in sorted(origin.files.items()):
            resource: dict[str, Any] = {"name": f"{origin.node}/{name}", "digest": {"sha256": sha}}
            yield resource if (address := origin.address(name)) is None else {**resource, "uri": address}


def _packages(manifest: Manifest) -> list[dict[str, Any]]:
    """List packages, the environments' ones with the environment they were in."""
    # Of a plug-in its code counts, and is known by digest; whether it came from an index is not known.
    code = {name: {"digest": {"pluginCode": said["code"]}} for name, said in manifest.get("plugins", {}).items()}
    found: list[dict[str, Any]] = [
        {"uri": pypi(name, said), **code.get(name, {})}
        for name, said in sorted(manifest["packages"].items())
        if said != ABSENT
    ]
    for environment, said in sorted(manifest["environments"].items()):
        found += [
            {"uri": pypi(name, version), "annotations": {"environment": environment}}
            for name, version in sorted(said["packages"].items())
        ]
    return found


class _Resource(BaseModel):
    """https://github.com/in-toto/attestation/blob/main/spec/v1/resource_descriptor.md."""

    name: str = ""
    uri: str = ""
    digest: dict[str, str] = {}


class _Definition(BaseModel):
    build_type: str = Field(alias="buildType")
    external: dict[str, Any] = Field(alias="externalParameters")
    internal: dict[str, Any] = Field(alias="internalParameters")
    dependencies: list[_Resource] = Field(alias="resolvedDependencies")


class _Builder(BaseModel):
    id: str = Field(min_length=1)


class _Metadata(BaseModel):
    began: AwareDatetime | None = Field(None, alias="startedOn")
    ended: AwareDatetime | None = Field(None, alias="finishedOn")


class _RunDetails(BaseModel):
    builder: _Builder
    metadata: _Metadata
    byproducts: list[_Resource]


class _Predicate(BaseModel):
    definition: _Definition = Field(alias="buildDefinition")
    run: _RunDetails = Field(alias="runDetails")


class _Statement(BaseModel):
    """What every statement must have; as the standard requires, unknown fields are left alone."""

    type: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[_Resource] = Field(min_length=1)
    predicate_type: Literal["https://slsa.dev/provenance/v1"] = Field(alias="predicateType")
    predicate: _Predicate


def check_statement(text: str, manifest: Manifest) -> list[str]:
    """Say everything in which a statement is not well-formed, or not about this version; nothing when all is well."""
    try:
        document = json.loads(text)
        statement = _Statement.model_validate(document)
    except (ValueError, RecursionError) as error:
        why = error.errors()[0] if isinstance(error, ValidationError) else None
        return [f"{shown('.'.join(map(str, why['loc'])))}: {why['msg']}" if why else f"it is not JSON: {error}"]
    expected = make_statement(manifest, [])
    problems = list(_subjects(document["subject"], expected["subject"]))
    ours, theirs = document["predicate"], expected["predicate"]
    for part, keys in (
        ("buildDefinition", ("buildType", "externalParameters", "internalParameters")),
        ("runDetails", ("builder", "metadata", "byproducts")),
    ):
        problems += [f"`{key}` is not what {MANIFEST} says" for key in keys if ours[part][key] != theirs[part][key]]
    return problems + list(_dependencies(statement.predicate.definition.dependencies, manifest))


def _subjects(subjects: list[Any], expected: list[Any]) -> Iterator[str]:
    ours, theirs = ({subject.get("name"): subject.get("digest") for subject in side} for side in (subjects, expected))
    for name in sorted(map(str, ours.keys() ^ theirs.keys())):
        yield f"its subjects {'lack' if name in theirs else 'have'} {shown(name)}"
    for name in sorted(str(name) for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]):
        yield f"its subject {shown(name)} has another digest than the file"
    if len(subjects) != len(ours):
        yield "it names a subject twice"


def _dependencies(resources: list[_Resource], manifest: Manifest) -> Iterator[str]:
    """Compare packages, commits and fetched files with the manifest."""
    packages = [(one.uri, one.digest) for one in resources if one.uri.startswith("pkg:pypi/")]
    listed = [(one["uri"], one.get("digest", {})) for one in _packages(manifest)]
    if sorted(packages, key=str) != sorted(listed, key=str):
        yield f"its packages are not those of {MANIFEST}"
    recipe = manifest["recipe"]
    data = recipe.get("data")
    sources = [recipe.get(role) for role in ("model", "tokenizer", "teacher")]
    sources += data.values() if isinstance(data, Mapping) else ()
    wanted = {
        (str(source["hub"]), str(source["revision"]))
        for source in sources
        if isinstance(source, Mapping) and {"hub", "revision"} <= source.keys()
    }
    commits = {(resource.uri, resource.digest["gitCommit"]) for resource in resources if "gitCommit" in resource.digest}
    for hub, revision in sorted(wanted):
        if not any(uri.endswith(f"/{hub}@{revision}") and commit == revision for uri, commit in commits):
            yield f"its dependencies lack {shown(hub)} at {shown(revision)}"
    for uri, _ in sorted(commits):
        if not any(uri.endswith(f"/{hub}@{revision}") for hub, revision in wanted):
            yield f"its dependencies have {shown(uri)}, which the recipe does not name"
    pages = {
        resource.name: (resource.uri.removeprefix("git+").rpartition("@")[0], resource.digest["gitCommit"])
        for resource in resources
        if "gitCommit" in resource.digest
    }
    for name, step in manifest["steps"].items():
        if step["format"] != "files":
            continue
        fetched = {
            resource.name.removeprefix(f"{name}/"): resource
            for resource in resources
            if resource.name.startswith(f"{name}/")
        }
        files = {file: (0, resource.digest.get("sha256", "")) for file, resource in fetched.items()}
        page, commit = pages.get(name, ("", ""))
        for file, resource in fetched.items():
            if resource.uri != (f"{page}/{resolve(commit, file)}" if commit else ""):
                yield f"its dependency {shown(resource.name)} has another address than its repository's at the commit"
        if digest_listing(files) != step["digest"]:
            yield f"the files of its dependency {shown(name)} are not those that were fetched"


def shown(text: str) -> str:
    """Write text from a file for one line of a message: as it is, or escaped where it could do more than be read."""
    return text if text.isprintable() else ascii(text)
