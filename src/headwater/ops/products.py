"""Products with the weights of networks, in bfloat16 where that is asked for.

On accelerators that is JAX's own `default_matmul_precision`. On processors XLA takes no notice of
it, so the large products are handed to MKL, which has kernels for matrix units (AMX); they are
compiled into the loop as a foreign call. Sums and everything else stay in float32.
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError, nearest

Precision = Literal["default", "bfloat16"]
"""How products are rounded. `default`: as JAX does by itself; `bfloat16`: operands to 8 bits."""

_TARGET = "headwater_multiply"
_SMALLEST = 64
"""Weights with a shorter side are left to XLA: to round them would take longer than it saves."""
_SOURCE = Path(__file__).with_suffix(".cc")
_loaded = False
_NEEDS = "products in bfloat16 on a processor need"


def product(
    x: Float[Array, "*batch fan_in"], weight: Float[Array, "fan_in fan_out"]
) -> Float[Array, "*batch fan_out"]:
    """`x @ weight`, in bfloat16 within `multiplying("bfloat16")`."""
    asked = jax.default_matmul_precision.value  # pyright: ignore[reportFunctionMemberAccess]
    # JAX's setting alone, as from the environment, does on a processor what it always did: nothing.
    if asked != "bfloat16" or not _loaded or min(weight.shape) < _SMALLEST:
        return x @ weight
    rows = x.reshape(-1, x.shape[-1])
    made: Array = _multiply(rows, weight, False, False)
    return made.reshape(*x.shape[:-1], weight.shape[-1])


def multiplying(precision: str) -> AbstractContextManager:
    """A context in which what is traced multiplies with `precision`.

    Raises `SpecificationError` if this machine cannot, or nothing would be gained.
    """
    check_precision(precision)
    return nullcontext() if precision == "default" else jax.default_matmul_precision(precision)


def check_name(precision: str) -> None:
    """Raises `SpecificationError` if there is no such precision."""
    if precision not in get_args(Precision):
        raise SpecificationError(nearest(precision, get_args(Precision), "precision"))


def check_precision(precision: str) -> None:
    """Raises `SpecificationError` unless this machine multiplies faster with `precision`."""
    check_name(precision)
    if precision == "default" or jax.default_backend() != "cpu":
        return
    if not _has_matrix_units():
        raise SpecificationError(
            "this processor has no matrix units for bfloat16 (AMX), and would gain little from it: "
            "leave the precision out"
        )
    _load_kernel()


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _multiply(a: Array, b: Array, transpose_a: bool, transpose_b: bool) -> Array:
    """The product of two matrices, each transposed first if so said."""
    rows, columns = a.shape[int(transpose_a)], b.shape[1 - int(transpose_b)]
    return jax.ffi.ffi_call(
        _TARGET,
        jax.ShapeDtypeStruct((rows, columns), jnp.float32),
        vmap_method="broadcast_all",
    )(
        a.astype(jnp.bfloat16),
        b.astype(jnp.bfloat16),
        transpose_a=transpose_a,
        transpose_b=transpose_b,
    )


def _forward(a, b, transpose_a, transpose_b):
    return _multiply(a, b, transpose_a, transpose_b), (a, b)


def _backward(transpose_a, transpose_b, kept, slope):
    """Products again, so that gradients of gradients exist too."""
    a, b = kept
    of_a = (
        _multiply(b, slope, transpose_b, True)
        if transpose_a
        else _multiply(slope, b, False, not transpose_b)
    )
    of_b = (
        _multiply(slope, a, True, transpose_a)
        if transpose_b
        else _multiply(a, slope, not transpose_a, False)
    )
    return of_a, of_b


_multiply.defvjp(_forward, _backward)


def _has_matrix_units() -> bool:
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any("amx_bf16" in x.split() for x in described.splitlines() if x.startswith("flags"))


def _load_kernel() -> None:
    """Makes MKL's kernel known to XLA, once for a process."""
    global _loaded
    if _loaded:
        return
    mkl = ctypes.CDLL(str(_mkl()))
    # One thread for each call: XLA and the seeds already keep the processors busy.
    mkl.MKL_Set_Threading_Layer(1)
    library = ctypes.CDLL(str(_compiled()))
    kernel = ctypes.cast(mkl.cblas_gemm_bf16bf16f32, ctypes.c_void_p)
    library.headwater_use_kernel(kernel)
    jax.ffi.register_ffi_target(
        _TARGET, jax.ffi.pycapsule(library.HeadwaterMultiply), platform="cpu"
    )
    _loaded = True


def _mkl() -> Path:
    """MKL's library, where its package has put it."""
    try:
        files = metadata.files("mkl") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name.startswith("libmkl_rt.so"):
            return Path(str(file.locate()))
    raise SpecificationError(f"{_NEEDS} MKL: pip install 'headwater[mkl]'")


def _compiled() -> Path:
    """The foreign program for this version of jaxlib, compiled unless it is in the user's cache."""
    source = _SOURCE.read_bytes()
    made_for = hashlib.sha256(source + metadata.version("jaxlib").encode()).hexdigest()[:16]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    target = Path(home) / "headwater" / "products" / f"{made_for}.so"
    if target.is_file():
        return target
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        raise SpecificationError(f"{_NEEDS} a C++ compiler (c++, or what CXX names)")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "products.so"
            command = [compiler, "-O2", "-w", "-std=c++17", "-fPIC", "-shared"]
            command += [f"-I{jax.ffi.include_dir()}", str(_SOURCE), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                reason = " ".join(done.stderr.split())[-300:]
                raise SpecificationError(
                    f"{_NEEDS} {_SOURCE.name} compiled, which {compiler} could not: {reason}"
                )
            os.replace(made, target)
    except OSError as error:
        raise SpecificationError(
            f"{_NEEDS} a place for what is compiled: {target.parent} cannot be written ({error})"
        ) from None
    return target
