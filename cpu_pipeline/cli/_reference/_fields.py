"""The fields of dataclasses and typed dictionaries, with the docstring under each, from their source."""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest


@dataclass(frozen=True)
class FieldDoc:
    """One field as its source has it."""

    type: str
    doc: str


@cache
def fields(cls: type) -> dict[str, FieldDoc]:
    """Return the public annotated attributes of a class and of its bases of this package, in order."""
    found: dict[str, FieldDoc] = {}
    for base in reversed(_bases(cls)):
        body = _body(base)
        for statement, after in zip_longest(body, body[1:]):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                text = ast.unparse(statement.annotation)
                if not (statement.target.id.startswith("_") or text.startswith("ClassVar")):
                    found[statement.target.id] = FieldDoc(text, _text(after))
    return found


def _body(cls: type) -> list[ast.stmt]:
    """Return the statements of a class; none of one that no class statement made."""
    module = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
    return next((n.body for n in module.body if isinstance(n, ast.ClassDef) and n.name == cls.__name__), [])


def _bases(cls: type) -> list[type]:
    """Return a class and its bases of this package; those of a typed dictionary are in `__orig_bases__`."""
    bases = [base for base in (*cls.__mro__[1:], *getattr(cls, "__orig_bases__", ())) if isinstance(base, type)]
    own = __name__.partition(".")[0]
    inner = [found for base in bases if base.__module__.partition(".")[0] == own for found in _bases(base)]
    return list(dict.fromkeys([cls, *inner]))


def _text(statement: ast.AST | None) -> str:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return " ".join(str(statement.value.value).split())
    return ""
