"""Labels by name: what a model calls its outputs, and which of them a label of the rows means."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cpu_pipeline.core.errors import RecipeError
from cpu_pipeline.tasks import _tokens

Labels = tuple[str, ...] | dict[str, str | int] | None
"""The option `labels` of a task: names of the data's numbers in order, or the data's label -> the model's."""
Label = str | int | float
"""A label as a row has it."""
SHOWN = 12
"""Names that a message lists."""


@dataclass(frozen=True)
class Names:
    """What a model calls its outputs, with the task's option `labels`."""

    own: tuple[str, ...]
    """Name of each output."""
    named: bool
    """False where the model has numbers in place of names (LABEL_0, ...), and the option gives none."""
    meant: Mapping[str, str | int]
    """Label of the data -> the model's name or number, where the option says it."""

    @classmethod
    def read(cls, model: Path, labels: Labels) -> Names:
        """Read the names of the model in a directory.

        Raises:
            RecipeError: the names are not one for each output, or `labels` does not fit them.
        """
        return cls.of(_tokens.labels(model), labels)

    @classmethod
    def of(cls, own: Sequence[str], labels: Labels) -> Names:
        """Give outputs of these names those of the task's option `labels`, where they have numbers alone.

        Raises:
            RecipeError: `labels` are more or fewer.
        """
        named = list(own) != _tokens.default_labels(len(own))
        if isinstance(labels, dict):
            return cls(tuple(own), named, labels)
        if labels is None or named:
            return cls(tuple(own), named, {})
        if len(labels) != len(own):
            raise RecipeError(f"the task's `labels` are {len(labels)}, and the model has {len(own)} outputs")
        return cls(labels, True, {})

    def resolve(self, label: Label) -> str | int | None:
        """Say which output a label of the rows means: its name, or its number where the label is one; None for none.

        A text is a name first: as it stands, then without regard to case, white space, `_` and `-` where one alone fits
        so. What is no name may be a number in digits, unless names of the model are numbers, too.
        """
        if str(label) in self.meant:
            return self._target(self.meant[str(label)])
        if not isinstance(label, str):
            return int(label) if 0 <= label < len(self.own) and label == int(label) else None
        if (name := match(label, self.own)) is not None:
            return name
        if (said := match(label, self.meant)) is not None:
            return self._target(self.meant[said])
        if not any(name.isdecimal() for name in self.own) and (label.isascii() and label.isdecimal()):
            return int(label) if int(label) < len(self.own) else None
        if not self.named and len(self.own) == 2 and label in BOOLEANS:
            return BOOLEANS.index(label)
        return None

    def _target(self, target: str | int) -> str | int | None:
        if isinstance(target, int):
            return target if 0 <= target < len(self.own) else None
        return match(target, self.own)

    def name(self, label: Label) -> str | None:
        """Say the name of the output that a label means; None for none."""
        found = self.resolve(label)
        return self.own[found] if isinstance(found, int) else found

    def refuse(self, row: object, label: Label, labels: Iterable[Label], what: str = "label") -> RecipeError:
        """Return the error for a label that is none of the model's.

        Args:
            row: the id of the row that has it.
            label: the label.
            labels: every label of the rows.
            what: `label` or `tag`.
        """
        if not isinstance(label, str) and not self.meant:
            return RecipeError(f"row {row}: {what} {label}, but the model has {len(self.own)} labels{self._range()}")
        have = f"the rows have {listed(sorted({str(one) for one in labels}))}"
        if not self.named:
            return RecipeError(
                f"row {row}: {what} {label!r} is a name, and the model's outputs have none ({listed(self.own)}); "
                f"{have}. Name the {len(self.own)} outputs, in their order, with the task's option `labels: [..., ...]`"
            )
        hint = f"labels: {{{label}: {self.own[0]}, ...}}"
        return RecipeError(
            f"row {row}: {what} {label!r} is not one of the model's: {listed(self.own)}; {have}. "
            f"Correct it, or say which is which with the task's option `{hint}`"
        )

    def _range(self) -> str:
        return f", 0 to {len(self.own) - 1}: {listed(self.own)}"


BOOLEANS = ("false", "true")
"""Names of two outputs without names."""


def match(label: str, names: Iterable[str]) -> str | None:
    """Find a name: the same text, else the one that differs in case, white space, `_` and `-` alone; None for none."""
    known = list(dict.fromkeys(names))
    if label in known:
        return label
    close = [name for name in known if fold(name) == fold(label)]
    return close[0] if len(close) == 1 else None


def fold(name: str) -> str:
    """Drop what spellings of one name differ in: case, white space, `_` and `-`."""
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()


def listed(names: Sequence[str]) -> str:
    """List names for a message, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def duplicates(names: Sequence[str]) -> list[str]:
    """Name what is there more than once."""
    return [name for name, times in Counter(names).items() if times > 1]
