"""What a child process is told by its environment: nothing that would make its output another."""

from __future__ import annotations

import pytest

from cpu_pipeline.engine.worker.sandbox import variables


def test_the_user_does_not_steer_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCHINDUCTOR_CPP_MIN_CHUNK_SIZE", "AOT_INDUCTOR_DEBUG_COMPILE", "TORCHDYNAMO_VERBOSE"):
        monkeypatch.setenv(name, "1")
    said = variables([])
    assert not [name for name in said if name.startswith(("TORCH", "AOT"))]


DOCUMENTED = (
    "ATEN_CPU_CAPABILITY PYTORCH_NO_CUDA_MEMORY_CACHING PYTORCH_JIT TORCH_LOGS TORCH_COMPILE_DISABLE TORCH_HOME "
    "TORCHINDUCTOR_FREEZING TORCHINDUCTOR_CACHE_DIR TORCHDYNAMO_DISABLE AOT_INDUCTOR_DEBUG_COMPILE LRU_CACHE_CAPACITY "
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE TORCH_MKLDNN_MATMUL_MIN_DIM IPEX_FP32_MATH_MODE "
    "ONEDNN_MAX_CPU_ISA DNNL_MAX_CPU_ISA ONEDNN_CPU_ISA_HINTS ONEDNN_DEFAULT_FPMATH_MODE DNNL_DEFAULT_FPMATH_MODE "
    "ONEDNN_VERBOSE DNNL_VERBOSE ONEDNN_JIT_DUMP ONEDNN_JIT_PROFILE ONEDNN_PRIMITIVE_CACHE_CAPACITY "
    "MKL_CBWR MKL_ENABLE_INSTRUCTIONS MKL_NUM_THREADS MKL_DYNAMIC MKL_DEBUG_CPU_TYPE MKL_THREADING_LAYER MKL_VERBOSE "
    "OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS OPENBLAS_VERBOSE GOTO_NUM_THREADS BLIS_ARCH_TYPE VECLIB_MAXIMUM_THREADS "
    "OMP_DYNAMIC OMP_SCHEDULE OMP_PROC_BIND OMP_PLACES OMP_THREAD_LIMIT OMP_MAX_ACTIVE_LEVELS OMP_STACKSIZE "
    "KMP_AFFINITY KMP_BLOCKTIME KMP_DETERMINISTIC_REDUCTION KMP_FORCE_REDUCTION KMP_SETTINGS GOMP_CPU_AFFINITY "
    "GOMP_SPINCOUNT OMP_CANCELLATION "
    "NPY_DISABLE_CPU_FEATURES NPY_ENABLE_CPU_FEATURES NPY_PROMOTION_STATE NUMEXPR_MAX_THREADS RAYON_NUM_THREADS "
    "OPENVINO_LIB_PATHS OPENVINO_LOG_LEVEL OV_CPU_DEBUG OV_ENABLE_PROFILE_PASS OV_FRONTEND_PATH "
    "ORT_LOGGING_LEVEL ORT_DEFAULT_MAX_VLOG_LEVEL ORT_TENSORRT_FP16_ENABLE ONNXRUNTIME_HOME ONNX_ML "
    "TRANSFORMERS_CACHE TRANSFORMERS_VERBOSITY HF_HOME HF_MODULES_CACHE HF_DATASETS_CACHE HF_ENDPOINT USE_TORCH "
    "USE_HUB_KERNELS "
    "NNCF_COMPILE SAFETENSORS_FAST_GPU SENTENCE_TRANSFORMERS_HOME ARROW_USER_SIMD_LEVEL JSIMD_FORCENONE "
    "CUDA_LAUNCH_BLOCKING CUBLAS_WORKSPACE_CONFIG NVIDIA_TF32_OVERRIDE "
    "PYTHONOPTIMIZE PYTHONWARNINGS PYTHONMALLOC PYTHONINTMAXSTRDIGITS PYTHONDEVMODE PYTHONIOENCODING PYTHONSTARTUP "
    "GLIBC_TUNABLES MALLOC_ARENA_MAX LD_PRELOAD LD_AUDIT DYLD_INSERT_LIBRARIES "
    "CFLAGS CXXFLAGS CPPFLAGS LDFLAGS CPATH CPLUS_INCLUDE_PATH LIBRARY_PATH GCC_EXEC_PREFIX "
    "COMPILER_PATH SOURCE_DATE_EPOCH"
)
"""Variables that the libraries, the C library and the compilers document."""
NEEDED = (
    "PATH HOME LANG LC_ALL TZ TMPDIR LD_LIBRARY_PATH CC CXX OMP_NUM_THREADS XDG_CACHE_HOME VIRTUAL_ENV "
    "HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY http_proxy https_proxy no_proxy "
    "SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PYTHONHOME PYTHONNOUSERSITE"
)
"""Variables without which a step would not start, fetch or compile."""


@pytest.mark.parametrize("name", DOCUMENTED.split())
def test_what_steers_computing_reaches_no_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "steered")
    for timing in (True, False):
        assert "steered" not in variables([], timing=timing).values()


@pytest.mark.parametrize("name", NEEDED.split())
def test_what_a_step_needs_reaches_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "2")
    assert variables([])[name] == "2" and variables([], online=True)[name] == "2"


def test_a_fetch_sees_what_the_hub_is_asked_with(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_ETAG_TIMEOUT", "HF_TOKEN"):
        monkeypatch.setenv(name, "asked")
        assert variables([], online=True)[name] == "asked" and "asked" not in variables([]).values()


def test_a_measurement_has_its_own_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS" not in variables([], timing=True)


def test_a_user_without_a_name_or_a_home_has_both_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 54321)
    said = variables([])
    assert said["USER"] == "uid54321" and said["HOME"]


def test_hashes_and_encodings_are_the_same_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("PYTHONUTF8", "0")
    said = variables([])
    assert (said["PYTHONHASHSEED"], said["PYTHONUTF8"]) == ("0", "1")


@pytest.mark.parametrize("online", [True, False])
def test_the_address_of_a_remote_store_stays_here(online: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPU_PIPELINE_STORE_REMOTE", "https://host/store?token=geheim")
    assert "geheim" not in str(variables([], online))
