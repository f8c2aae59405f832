"""Environment variables of a worker process: no tokens, no accelerators, offline unless it fetches."""

from __future__ import annotations

import getpass
import os
import re
import tempfile
from collections.abc import Sequence

from cpu_pipeline.core.redaction import SECRET

CREDENTIALS = re.compile(r"://[^/@\s]*:[^/@\s]*@")
"""A user and a password in an address, as proxies have them."""


STEERING = (
    # torch, its compiler and its kernels
    "TORCH", "PYTORCH", "ATEN_", "AOT_INDUCTOR_", "AOTINDUCTOR_", "TRITON_", "C10_", "CAFFE2_", "LRU_CACHE_CAPACITY",
    "NNPACK", "QNNPACK", "XNNPACK", "IPEX_", "INTEL_", "XPU_",
    # oneDNN, MKL, OpenBLAS and the others that multiply
    "ONEDNN_", "DNNL_", "MKLDNN_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "BLAS_", "VECLIB_", "ACL_", "ARMPL_",
    # threads: how many, where, and how sums are shared out
    "OMP_", "KMP_", "GOMP_", "LIBOMP_", "TBB_", "RAYON_", "NUMEXPR_", "NUMBA_", "MP_BIND",
    # numpy, tokenizers, runtimes and what reads models and rows
    "NPY_", "NUMPY_", "SCIPY_", "OPENVINO_", "OV_", "ORT_", "ONNX", "NNCF_", "TOKENIZERS_", "TRANSFORMERS_", "HF_",
    "HUGGINGFACE_", "HUGGING_FACE_", "DATASETS_", "ACCELERATE_", "OPTIMUM_", "SAFETENSORS_", "SENTENCE_TRANSFORMERS_",
    "USE_TORCH", "USE_TF", "USE_FLAX", "USE_JAX", "USE_HUB_KERNELS", "FORCE_TF_AVAILABLE", "DISABLE_KERNEL_MAPPING",
    "TF_", "XLA_", "JAX_", "FLAX_", "ARROW_", "JSIMD_", "PILLOW_", "LIBROSA_",
    # accelerators
    "CUDA_", "CUBLAS_", "CUDNN_", "NCCL_", "NVIDIA_", "HIP_", "HSA_", "ROCR_", "ROCM_", "MIOPEN_", "ZE_", "SYCL_",
    # Python itself, the C library and the loader
    "PYTHON", "GLIBC_TUNABLES", "MALLOC_", "LD_PRELOAD", "LD_AUDIT", "LD_BIND_NOW", "DYLD_INSERT_LIBRARIES",
    # C and C++ compilers: what they add to every command; which compiler it is, CC and CXX say
    "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH",
    "GCC_", "COMPILER_PATH", "CCC_OVERRIDE_OPTIONS", "SOURCE_DATE_EPOCH",
)  # fmt: skip
"""Prefixes of variables that change what libraries compute or compile, and are in no key: no step sees them."""

KEPT = frozenset(
    {
        "OMP_NUM_THREADS",  # a quota, as of a batch system; a measurement has its own number
        "PYTHONHOME",  # where Python is, and which packages it sees: without them a child is another Python
        "PYTHONUSERBASE",
        "PYTHONNOUSERSITE",
        "PYTHONPYCACHEPREFIX",  # where it may write, on a read-only file system
    }
)
"""Variables with such a prefix that change no output."""
FOR_FETCH = ("HF_", "HUGGING_FACE_")
"""Prefixes of what huggingface_hub reads: for fetching alone, which parses nothing."""


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
        if (not SECRET.search(k) or (online and k in SEEN_BY_FETCH)) and not _steers(k, online)
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
        env.pop("OMP_NUM_THREADS", None)  # as many as the cores that it is pinned to
    else:
        # Threads that wait without spinning: on a machine that does other work too, the build is many times faster.
        env["OMP_WAIT_POLICY"] = "PASSIVE"
    env |= _nameless()
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


def _steers(name: str, online: bool) -> bool:
    """Say whether a variable changes what a step computes; Windows does not tell upper from lower case."""
    if name in KEPT or (online and name.startswith(FOR_FETCH)):
        return False
    return name.upper().startswith(STEERING)


def _nameless() -> dict[str, str]:
    """Give a user that has a number only, as in a container, a name and a home: libraries ask for both."""
    found: dict[str, str] = {}
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        found["USER"] = found["LOGNAME"] = f"uid{os.getuid()}" if hasattr(os, "getuid") else "user"
    if os.path.expanduser("~") == "~":  # noqa: PTH111 - Path.expanduser raises where nobody knows
        try:
            found["HOME"] = tempfile.gettempdir()
        except FileNotFoundError:  # not one can be written to
            found["HOME"] = os.sep
    return found
