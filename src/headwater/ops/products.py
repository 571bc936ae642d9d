"""Products with the weights of networks, in bfloat16 where that is asked for.

XLA brings the matrix units of processors (AMX) to some products only, so the large ones are handed
to MKL, in a foreign call from the compiled loop. Sums and everything else stay in float32.
"""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from contextlib import AbstractContextManager
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
# What the compiler's library brings is linked in, as the cache may be shared with older systems.
_FLAGS = ("-O2", "-w", "-std=c++17", "-fPIC", "-shared", "-static-libstdc++", "-static-libgcc")
_LP64, _SEQUENTIAL = 0, 1
_NEEDS = "products in bfloat16 on a processor need"

# JAX compiles anew where it differs, which a variable of ours would not bring about.
_precision = jax.make_user_context("default")
_loaded = False


def product(
    x: Float[Array, "*batch fan_in"], weight: Float[Array, "fan_in fan_out"]
) -> Float[Array, "*batch fan_out"]:
    """`x @ weight`, in bfloat16 within `multiplying("bfloat16")`.

    There it has no derivative in forward mode, and single rows, as in acting, are not rounded.
    """
    fits = x.ndim > 1 and x.shape[-1] == weight.shape[0] and min(weight.shape) >= _SMALLEST
    if not fits or _precision.value != "bfloat16":
        return x @ weight
    rows = x.reshape(-1, x.shape[-1])
    made: Array = _multiply(rows, weight, False, False)
    return made.reshape(*x.shape[:-1], weight.shape[-1])


def multiplying(precision: str) -> AbstractContextManager:
    """A context in which what is traced multiplies with `precision`.

    Raises `SpecificationError` if this machine cannot, or nothing would be gained.
    """
    check_precision(precision)
    return _precision(precision)


def check_name(precision: str) -> None:
    """Raises `SpecificationError` if there is no such precision."""
    if precision not in get_args(Precision):
        raise SpecificationError(nearest(precision, get_args(Precision), "precision"))


def check_precision(precision: str) -> None:
    """Raises `SpecificationError` unless this machine multiplies faster with `precision`."""
    check_name(precision)
    if precision == "default":
        return
    if jax.default_backend() != "cpu":
        raise SpecificationError(
            "precision bfloat16 is for processors with matrix units: on an accelerator take the "
            "default precision"
        )
    if not _has_matrix_units():
        raise SpecificationError(
            "this processor has no matrix units for bfloat16 (AMX): take the default precision"
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
    where = _mkl()
    try:
        mkl = ctypes.CDLL(str(where))
        # The integers that the program passes, whatever the environment says.
        mkl.MKL_Set_Interface_Layer(_LP64)
        # One thread for each call: XLA and the seeds already keep the processors busy.
        mkl.MKL_Set_Threading_Layer(_SEQUENTIAL)
        kernel = ctypes.cast(mkl.cblas_gemm_bf16bf16f32, ctypes.c_void_p)
    except (OSError, AttributeError) as error:
        raise SpecificationError(f"{_NEEDS} MKL, and {where} cannot be loaded: {error}") from None
    library = _open(_compiled())
    library.headwater_use_kernel(kernel)
    jax.ffi.register_ffi_target(
        _TARGET, jax.ffi.pycapsule(library.HeadwaterMultiply), platform="cpu"
    )
    _loaded = True


def _open(program: Path) -> ctypes.CDLL:
    """The compiled program; compiled once more if what is in the cache is damaged."""
    try:
        return ctypes.CDLL(str(program))
    except OSError:
        program.unlink(missing_ok=True)
    try:
        return ctypes.CDLL(str(_compiled()))
    except OSError as error:
        raise SpecificationError(
            f"{_NEEDS} {program}, which cannot be loaded: {error}; let XDG_CACHE_HOME name another "
            "place"
        ) from None


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
    made_for = [_SOURCE.read_bytes(), metadata.version("jaxlib").encode(), *map(str.encode, _FLAGS)]
    name = hashlib.sha256(b"\0".join(made_for)).hexdigest()[:16]
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    target = Path(home) / "headwater" / "products" / f"{name}.so"
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / "products.so"
            _compile(made)
            os.replace(made, target)
    except OSError as error:
        raise SpecificationError(
            f"{_NEEDS} a place for what is compiled: {target.parent} cannot be written ({error})"
        ) from None
    return target


def _compile(made: Path) -> None:
    compiler, *options = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(compiler) is None:
        raise SpecificationError(f"{_NEEDS} a C++ compiler: there is no {compiler} (set CXX)")
    command = [compiler, *options, *_FLAGS, f"-I{jax.ffi.include_dir()}", str(_SOURCE)]
    failed = f"{_NEEDS} {_SOURCE.name} compiled, which {compiler} could not"
    try:
        done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True)
    except OSError as error:
        raise SpecificationError(f"{failed}: {error}") from None
    if done.returncode != 0:
        raise SpecificationError(f"{failed}: {' '.join(done.stderr.split())[-300:]}")
