"""Read the docstring under each field of a class. It is read from the source, and only when needed: that is slow."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise

from pydantic import BaseModel


@cache
def fields(model: type[BaseModel]) -> dict[str, str]:
    """Map each field of a class to the docstring under it, base classes' fields included."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if cls is BaseModel or not issubclass(cls, BaseModel):
            continue
        [body] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        lines = body.body if isinstance(body, ast.ClassDef) else []
        for field, under in pairwise(lines):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(under, ast.Expr):
                text = under.value.value if isinstance(under.value, ast.Constant) else None
                if isinstance(text, str) and field.target.id in model.model_fields:
                    found[field.target.id] = " ".join(inspect.cleandoc(text).split())
    return found
