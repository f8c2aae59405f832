"""The nodes that every plan begins with: fetch and load models, tokenizers and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpu_pipeline import sources, stages
from cpu_pipeline.graph.paths import resolve_path
from cpu_pipeline.graph.plan import APART, FIDELITY, Node, Outside
from cpu_pipeline.recipe.document import Keys
from cpu_pipeline.recipe.reader import RecipeFile
from cpu_pipeline.recipe.spec import Recipe

ROWS = ("split", "take", "without", "seed", "columns", "config")
"""Keys of a data role that say which rows of its files are meant."""
OUTSIDE = "outside"
"""Key of a source that says that its paths are meant to lead out of the recipe's directory."""


def source_nodes(recipe: RecipeFile[Recipe]) -> tuple[dict[str, Node], tuple[Outside, ...]]:
    """Make the nodes of a recipe's sources; return them with the paths that lead out of the recipe's directory.

    Raises:
        Refused: a path leads out of the recipe's directory, and the user does not allow it.
    """
    builder = _SourceNodes(recipe)
    builder.add_models()
    builder.add_data()
    builder.add_fidelity()
    return builder.nodes, tuple(builder.outside)


class _SourceNodes:
    """The work of `source_nodes`."""

    def __init__(self, recipe: RecipeFile[Recipe]) -> None:
        self.recipe, self.value = recipe, recipe.value
        self.nodes: dict[str, Node] = {}
        self.outside: list[Outside] = []

    def add_models(self) -> None:
        if self.value.tokenizer is not None:
            self._fetch("tokenizer", "tokenizer", self.value.tokenizer)
        for role in ("model", "teacher"):
            if (source := getattr(self.value, role)) is None:
                continue
            inputs = {"files": self._fetch(role, "model", source)}
            if self.value.tokenizer is not None and role == "model":
                inputs["tokenizer"] = "tokenizer:files"
            self._add(role, "load.model", {"format": source.get("format", "hf")}, inputs, (role,))

    def add_data(self) -> None:
        for role, written in self.value.data.items():
            options = {key: value for key, value in written.items() if key in ROWS}
            source = {key: value for key, value in written.items() if key not in ROWS}
            inputs = {"files": self._fetch(f"data.{role}", "data", source, options)}
            self._add(f"data.{role}", "load.rows", {**options, "role": role}, inputs, ("data", role))
        if len(self.value.data) > 1:
            rows = {str(role): f"data.{role}" for role in self.value.data}
            self._add(APART, "load.apart", {}, rows, ("data",))

    def add_fidelity(self) -> None:
        """Compare the model with transformers' own code on rows of the recipe, where it has some and a task."""
        stage = stages.get("load.fidelity")()
        data = {str(role): f"data.{role}" for role in self.value.data if f"data.{role}?" in stage.asks()}
        if "model" not in self.nodes or self.value.task is None or not data:
            return
        model = self.nodes["model"]
        apart = (APART,) if APART in self.nodes else ()
        self.nodes[FIDELITY] = Node(
            FIDELITY, "load.fidelity", stage, {"model": "model", **model.inputs}, data, apart, where=model.where
        )

    def _fetch(self, name: str, want: str, source: Mapping[str, Any], rows: Mapping[str, Any] | None = None) -> str:
        """Make the node that fetches a source, once for equal sources; return its id.

        Args:
            name: the key of the source in the recipe.
            want: what is wanted of the source: `model`, `tokenizer` or `data`.
            source: the source as the recipe writes it.
            rows: options of the rows, of which a source may use some.
        """
        keys: Keys = tuple(name.split("."))
        use = next(each for each in sources.names(want) if each in source)
        fields = dict(source)
        for key in sources.get(use).path_fields():
            if key in fields:
                fields[key] = resolve_path(
                    fields[key], (*keys, key), self.recipe, outside=source.get(OUTSIDE) is True, found=self.outside
                )
        fields |= {key: value for key, value in (rows or {}).items() if key in sources.get(use).model_fields}
        stage = stages.get("fetch")(**{"source": use, "fields": fields, "want": want})
        for node in self.nodes.values():
            if node.use == "fetch" and node.stage == stage:
                return node.id
        node = Node(f"{name}:files", "fetch", stage, where=self.recipe.document.where(keys))
        self.nodes[node.id] = node
        return node.id

    def _add(self, name: str, use: str, options: Mapping[str, Any], inputs: Mapping[str, str], keys: Keys) -> None:
        stage = stages.get(use)(**options)
        self.nodes[name] = Node(name, use, stage, inputs, where=self.recipe.document.where(keys))
