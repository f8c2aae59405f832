"""A CycloneDX bill of materials of a version: the model is a component, and so is each of its sources.

https://cyclonedx.org/docs/1.6/json/. The library that writes it has no field for CycloneDX's own `modelCard` yet; what
would stand there is in each output's README.md.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpu_pipeline.core.errors import BackendMissing
from cpu_pipeline.engine.packages import ABSENT, installed
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.release.documents.origins import Origin, maker, pypi, times, used

if TYPE_CHECKING:
    from cyclonedx.model import HashType, Property
    from cyclonedx.model.component import Component

FILE = "sbom.json"
LIBRARY = "cyclonedx-python-lib"


def require() -> None:
    """Refuse to begin what could not be finished.

    Raises:
        BackendMissing: the library that writes bills of materials is not installed.
    """
    if installed(LIBRARY) == ABSENT:
        raise BackendMissing(f"{LIBRARY} is not installed; pip install 'cpu-pipeline[build]'")


def render(built: BuildResult, manifest: Mapping[str, Any], origins: Sequence[Origin]) -> str:
    """Write the bill of materials of a version; the same build gives the same bytes.

    Args:
        built: the build.
        manifest: the version's, with the `files` that are written by now.
        origins: everything that was fetched.

    Raises:
        BackendMissing: the library that writes it is not installed.
    """
    require()
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository
    from cyclonedx.output.json import JsonV1Dot6

    sources = {origin.node: _source(origin) for origin in origins}
    packages = _packages(manifest)
    outputs = {name: _output(name, manifest) for name in manifest["outputs"]}
    root = Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=manifest["name"],
        version=manifest["version"],
        description=manifest["recipe"].get("about"),
        bom_ref=f"{manifest['name']}/{manifest['version']}",
        components=outputs.values(),
    )
    stamps = times(manifest)
    tool = Component(type=ComponentType.APPLICATION, name="cpu-pipeline", version=maker(manifest))
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"pkg:generic/{manifest['name']}@{manifest['version']}"),
        metadata=BomMetaData(
            component=root, timestamp=stamps[1] if stamps else None, tools=ToolRepository(components=[tool])
        ),
        components=[*sources.values(), *packages.values()],
    )
    needs: dict[str, set[str]] = {}
    for name in outputs:
        ancestors = built.plan.ancestors(name)
        needs[name] = {node for node in sources if node in ancestors} | _made_with(built, ancestors, manifest)
    parts = {**sources, **packages}
    # What no output was made of was used to check them: rows of validation, libraries that score.
    rest = parts.keys() - set[str]().union(*needs.values())
    bom.register_dependency(root, [*outputs.values(), *(parts[ref] for ref in sorted(rest))])
    for name, output in outputs.items():
        bom.register_dependency(output, [parts[ref] for ref in sorted(needs[name])])
    text = json.loads(JsonV1Dot6(bom).output_as_string())
    if stamps is None:  # the library puts in the present, of which no record knows
        del text["metadata"]["timestamp"]
    return json.dumps(text, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _source(origin: Origin) -> Component:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    owner, _, name = origin.name.rpartition("/") if origin.commit else ("", "", origin.name)
    on_hub = origin.commit is not None and origin.want != "data"  # the type of package URL knows models alone
    pages = [] if origin.page is None else [f"{origin.page}/tree/{origin.commit}"]
    return Component(
        type=ComponentType.DATA if origin.want == "data" else ComponentType.MACHINE_LEARNING_MODEL,
        group=owner or None,
        name=name,
        version=origin.commit or origin.digest,
        bom_ref=origin.node,
        purl=PackageURL("huggingface", owner, name, origin.commit) if on_hub else None,
        hashes=_hashes(origin.weights.values()),
        external_references=[ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(p)) for p in pages],
        properties=_properties(wanted=origin.want, digest=origin.digest),
        components=[_file(f"{origin.node}/{name}", name, sha) for name, (_, sha) in origin.files.items()],
    )


def _output(name: str, manifest: Mapping[str, Any]) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    output = manifest["outputs"][name]
    files = {file: sha for file, (_, sha) in manifest["files"].items() if file.startswith(f"{name}/")}
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        version=manifest["version"],
        bom_ref=name,
        properties=_properties(format=output["format"], digest=output["digest"]),
        components=[_file(file, file.removeprefix(f"{name}/"), sha) for file, sha in files.items()],
    )


def _packages(manifest: Mapping[str, Any]) -> dict[str, Component]:
    """Map the package URL of each distribution to its component; one of several environments is one component."""
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

    found: dict[str, tuple[str, str, list[str]]] = {}
    for name, version in manifest["packages"].items():
        if version != ABSENT:
            found.setdefault(pypi(name, version), (name, version, []))[2].append("default")
    for environment, described in manifest["environments"].items():
        for name, version in described["packages"].items():
            found.setdefault(pypi(name, version), (name, version, []))[2].append(environment)
    return {
        ref: Component(
            name=name,
            version=version,
            bom_ref=ref,
            purl=PackageURL.from_string(ref),
            properties=_properties(environment=" ".join(sorted(environments))),
        )
        for ref, (name, version, environments) in found.items()
    }


def _made_with(built: BuildResult, nodes: Iterable[str], manifest: Mapping[str, Any]) -> set[str]:
    """Name the package URLs of everything that nodes ran on."""
    used_packages, environments = used(built, nodes)
    packages = [
        (name, version) for name, version in manifest["packages"].items() if name in used_packages and version != ABSENT
    ]
    packages += [
        package for environment in environments for package in manifest["environments"][environment]["packages"].items()
    ]
    return {pypi(*package) for package in packages}


def _file(ref: str, name: str, sha: str) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(type=ComponentType.FILE, name=name, bom_ref=ref, hashes=_hashes([sha]))


def _hashes(digests: Iterable[str]) -> list[HashType]:
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=sha) for sha in digests]


def _properties(**values: str) -> list[Property]:
    from cyclonedx.model import Property

    return [Property(name=f"cpu-pipeline:{name}", value=value) for name, value in values.items()]
