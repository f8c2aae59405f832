"""The sources of a build: repositories at their commits, local files by digest, packages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from cpu_pipeline.core.errors import TryAgain
from cpu_pipeline.core.repo_files import is_tokenizer
from cpu_pipeline.engine.packages import ABSENT, made_with
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.graph.plan import Plan

SITE = "https://huggingface.co"


@dataclass(frozen=True)
class Origin:
    """One thing that was fetched: a repository at a commit, or files of this machine, known by content."""

    node: str
    """The node that fetched it, such as `model:files`."""
    want: str
    """What of it was wanted: model, tokenizer or data."""
    name: str
    """OWNER/NAME on the Hub, or the path as the recipe writes it."""
    commit: str | None
    """Full commit of a repository; None for files of this machine."""
    site: str
    """Address of the Hub it came from, without credentials."""
    digest: str
    """Digest of its files, names and contents."""
    files: Mapping[str, tuple[int, str]]
    """Name -> (bytes, sha256)."""

    @property
    def page(self) -> str | None:
        """Return the repository's address; None for files of this machine."""
        if self.commit is None:
            return None
        return f"{self.site}/{'datasets/' if self.want == 'data' else ''}{self.name}"

    def address(self, file: str) -> str | None:
        """Return the address of one file at the commit; None for files of this machine."""
        return None if self.page is None else f"{self.page}/{resolve(str(self.commit), file)}"

    @property
    def weights(self) -> dict[str, str]:
        """Map the files of a model that hold weights or its graph to their sha256."""
        if self.want != "model":
            return {}
        return {
            name: sha for name, (_, sha) in self.files.items() if not name.endswith(".json") and not is_tokenizer(name)
        }


def origins(built: BuildResult) -> list[Origin]:
    """List everything that was fetched, in the plan's order; a source that several roles share is listed once.

    Raises:
        TryAgain: another process replaced a record during the build.
    """
    found = []
    for node in built.plan.nodes.values():
        if not node.stage.online:
            continue
        options = node.stage.model_dump(mode="json")
        fields: Mapping[str, Any] = options["fields"]
        artifact = built.artifacts[node.id]
        record = built.records[node.id]
        if record.object != artifact.digest:  # a record lists the files of its own object alone
            raise TryAgain(f"the record of `{node.id}` was replaced during the build; run the same command again")
        found.append(
            Origin(
                node.id,
                options["want"],
                str(fields.get("hub") or written(built.plan, node.id)),
                fields.get("revision") if "hub" in fields else None,
                _site(record.ingredients),
                artifact.digest,
                dict(record.files),
            )
        )
    return found


def resolve(commit: str, file: str) -> str:
    """Return the address of a file at a commit, below its repository's page."""
    return f"resolve/{commit}/{quote(file)}"


def written(plan: Plan, node: str) -> str:
    """Return the path of a local source as the recipe writes it: a path of this machine is of no use on another."""
    role, _, data = node.removesuffix(":files").partition(".")
    recipe = plan.recipe
    source: Mapping[str, Any] = dict(recipe.data)[data] if data else getattr(recipe, role)  # type: ignore[index]  # a role
    paths = source.get("folder") or source.get("file") or ""
    return ", ".join(map(str, paths)) if isinstance(paths, list | tuple) else str(paths)


def used(built: BuildResult, nodes: Iterable[str]) -> tuple[set[str], set[str]]:
    """Name the distributions of the default environment, and the other environments, that nodes ran with."""
    packages: set[str] = set()
    others: set[str] = set()
    for name in nodes:
        distributions, environments = made_with(built.records[name].ingredients)
        packages |= distributions.keys()
        others |= environments
    return packages, others


def times(manifest: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """Say when the first step of a version began and the last one ended, as their records say, to the second.

    A cached step counts with the time of the build that ran it. None when no record has a time.
    """
    runs = [step["run"] for step in manifest["steps"].values() if "when" in step["run"]]
    if not runs:
        return None
    began = min(run["when"] - run.get("seconds", 0) for run in runs)
    ended = max(run["when"] for run in runs)
    return datetime.fromtimestamp(int(began), UTC), datetime.fromtimestamp(int(ended), UTC)


def maker(manifest: Mapping[str, Any]) -> str | None:
    """Return the version of cpu-pipeline that made a version; None where it was run without being installed."""
    version: str = manifest["packages"].get("cpu-pipeline", ABSENT)
    return None if version == ABSENT else version


def pypi(name: str, version: str) -> str:
    """Write a distribution as a package URL: lower case, hyphens for underscores, the version percent-encoded.

    https://github.com/package-url/purl-spec/blob/main/types/pypi-definition.json
    """
    return f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version, safe='')}"


def _site(ingredients: Mapping[str, Any]) -> str:
    """Return the address that a fetch's ingredients name, without user, password and query."""
    identity = ingredients.get("identity")
    what = identity.get("what") if isinstance(identity, Mapping) else None
    address = urlsplit(str(what.get("endpoint", SITE)) if isinstance(what, Mapping) else SITE)
    host = address.netloc.rpartition("@")[2]
    return f"{address.scheme}://{host}{address.path}".rstrip("/")
