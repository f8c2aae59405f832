"""Environment variables of a worker process: no tokens, no accelerators, offline unless it fetches."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from cpu_pipeline.core.redaction import SECRET

CREDENTIALS = re.compile(r"://[^/@\s]*:[^/@\s]*@")
"""A user and a password in an address, as proxies have them."""


SHAPING = ("TORCHINDUCTOR_", "AOT_INDUCTOR_", "AOTINDUCTOR_", "TORCHDYNAMO_")
"""Prefixes of variables that change how torch compiles: outputs must not depend on the user's environment."""


SEEN_BY_FETCH = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH")


def variables(paths: Sequence[str], online: bool = False, timing: bool = False) -> dict[str, str]:
    """Return the environment variables of a child: no accelerators, no tokens, offline unless it fetches.

    Args:
        paths: where it looks for modules besides its own.
        online: whether it fetches.
        timing: whether it is to be timed.
    """
    env = {
        k: v
        for k, v in os.environ.items()
        if (not SECRET.search(k) or (online and k in SEEN_BY_FETCH)) and not k.startswith(SHAPING)
    }
    env.pop("CPU_PIPELINE_STORE_REMOTE", None)  # its address may hold a secret, and no child asks it
    env |= {
        "CUDA_VISIBLE_DEVICES": "",
        "HIP_VISIBLE_DEVICES": "",
        "ROCR_VISIBLE_DEVICES": "",
        "PYTHONHASHSEED": "0",
        # Libraries read their own files in the locale's encoding, and Inductor's are no ASCII.
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
    }
    env["PYTHONPATH"] = os.pathsep.join(paths)
    if timing:
        env.pop("OMP_WAIT_POLICY", None)
    else:
        # Threads that wait without spinning: on a machine that does other work too, the build is many times faster.
        env["OMP_WAIT_POLICY"] = "PASSIVE"
    if not online:
        env = {k: v for k, v in env.items() if not CREDENTIALS.search(v)}
        env |= {
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "HF_TOKEN_PATH": os.devnull,
        }
    return env
