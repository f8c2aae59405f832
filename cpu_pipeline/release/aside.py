"""Write what is never put into service beside the versions: trials, parts of a recipe, builds without a gate."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cpu_pipeline.core.files import remove_tree, sync_dir, writing
from cpu_pipeline.engine.result import BuildResult
from cpu_pipeline.release.manifest import describe
from cpu_pipeline.release.tree import home_of, make_home, require_no_link, write_tree
from cpu_pipeline.release.versions import moving, sweep
from cpu_pipeline.store.local import Store


def put_aside(built: BuildResult, store: Store, out: Path) -> Path:
    """Write a build whose plan is withheld to its own directory, laid out as a version; it replaces an earlier one.

    Args:
        built: a build without errors; its gates may have failed.
        store: holds the objects that are copied.
        out: it goes below `out/NAME/`, where the plan's `withheld` says.

    Returns:
        The directory.

    Raises:
        ValueError: the plan is not withheld.
        RecipeError, Refused: the directory can't be made.
        Damaged: an object is not what it was.
    """
    withheld = built.plan.withheld
    if withheld is None:
        raise ValueError(f"{built.plan.name} is not withheld")
    home = home_of(built.plan, out)
    target = home / withheld.folder
    require_no_link(target)
    with writing(out):
        make_home(home)
        sweep(home)
        # Named as `sweep` knows what builds that died left.
        work = home / f".aside.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            write_tree(built, store, describe(built), work)
            with moving(home):
                target.parent.mkdir(exist_ok=True)
                if target.exists():
                    target.rename(work.with_name(f"{work.name}.old"))
                work.rename(target)
            sync_dir(target.parent)
        finally:
            remove_tree(work)
        sweep(home)
    return target
