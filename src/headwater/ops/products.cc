// The product of two matrices of bfloat16, summed in float32, as a program that XLA calls.
// The kernel is MKL's; `use_kernel` says where it is, so that nothing has to be linked.

#include <algorithm>
#include <cstdint>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

// cblas_gemm_bf16bf16f32 of MKL with 32-bit integers.
using Kernel = void (*)(int layout, int transpose_a, int transpose_b, int m, int n, int k,
                        float alpha, const uint16_t* a, int lda, const uint16_t* b, int ldb,
                        float beta, float* c, int ldc);

static Kernel kernel = nullptr;

extern "C" void headwater_use_kernel(void* address) {
  kernel = reinterpret_cast<Kernel>(address);
}

static ffi::Error Multiply(ffi::Buffer<ffi::BF16> a, ffi::Buffer<ffi::BF16> b,
                           ffi::ResultBuffer<ffi::F32> c, bool transpose_a, bool transpose_b) {
  constexpr int kRowMajor = 101, kPlain = 111, kTransposed = 112;
  if (kernel == nullptr) return ffi::Error::Internal("the kernel of products is not loaded");
  auto given = a.dimensions(), by = b.dimensions(), made = c->dimensions();
  const size_t rank = made.size();
  if (rank < 2 || given.size() != rank || by.size() != rank) {
    return ffi::Error::InvalidArgument("products are of matrices");
  }
  const int64_t m = made[rank - 2], n = made[rank - 1];
  const int64_t k = given[rank - (transpose_a ? 2 : 1)];
  bool fits = given[rank - (transpose_a ? 1 : 2)] == m && by[rank - (transpose_b ? 1 : 2)] == k &&
              by[rank - (transpose_b ? 2 : 1)] == n && std::max({m, n, k}) <= INT32_MAX;
  int64_t count = 1;
  for (size_t axis = 0; axis + 2 < rank; ++axis) {
    fits = fits && given[axis] == made[axis] && by[axis] == made[axis];
    count *= made[axis];
  }
  if (!fits) return ffi::Error::InvalidArgument("the matrices of a product do not fit");
  if (m == 0 || n == 0) return ffi::Error::Success();
  if (k == 0) {
    std::fill_n(c->typed_data(), count * m * n, 0.0f);
    return ffi::Error::Success();
  }
  auto* left = static_cast<const uint16_t*>(a.untyped_data());
  auto* right = static_cast<const uint16_t*>(b.untyped_data());
  for (int64_t i = 0; i < count; ++i) {
    kernel(kRowMajor, transpose_a ? kTransposed : kPlain, transpose_b ? kTransposed : kPlain, m, n,
           k, 1.0f, left + i * m * k, transpose_a ? m : k, right + i * k * n, transpose_b ? k : n,
           0.0f, c->typed_data() + i * m * n, n);
  }
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(HeadwaterMultiply, Multiply,
                              ffi::Ffi::Bind()
                                  .Arg<ffi::Buffer<ffi::BF16>>()
                                  .Arg<ffi::Buffer<ffi::BF16>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<bool>("transpose_a")
                                  .Attr<bool>("transpose_b"));
