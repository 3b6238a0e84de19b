// The walk's first kernels: copies, transposes and matrix products, each in a slow and a fast way.
#include "ch03_attention/walk_kernels.h"
#include "common/simt/kernel.h"

namespace llm::ch03 {

namespace {

constexpr int kTile = 32;

/// Thread i copies element i if `step` is 1. With a larger step neighbouring threads take elements that far
/// apart.
__global__ void copy_elements(float* y, const float* x, int n, int step) {
  const int thread = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (thread >= n) return;
  const int per_pass = n / step;
  const int i = thread % per_pass * step + thread / per_pass;
  y[i] = x[i];
}

/// Reads along rows, writes along columns: one of the two is far apart, whatever one does.
__global__ void transpose_directly(float* y, const float* x, int n) {
  const int row = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  y[column * n + row] = x[row * n + column];
}

template <int kWidth>
struct TransposeTile {
  float at[kTile][kWidth];
};

/// Through shared memory, where a column costs no more than a row if its elements lie in different banks.
template <int kWidth, bool kBarrier>
__global__ void transpose_tile(float* y, const float* x, int n) {
  auto& tile = block_shared<TransposeTile<kWidth>>();
  const int i = static_cast<int>(threadIdx.y), j = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(blockIdx.y) * kTile, column = static_cast<int>(blockIdx.x) * kTile;
  tile.at[i][j] = x[(row + i) * n + column + j];
  if constexpr (kBarrier) __syncthreads();
  y[(column + i) * n + row + j] = tile.at[j][i];
}

/// One thread per element of c, which reads a row of a and a column of b.
__global__ void multiply_directly(float* c, const float* a, const float* b, int n) {
  const int row = static_cast<int>(blockIdx.y * blockDim.y + threadIdx.y);
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  float sum = 0;
  for (int k = 0; k < n; ++k) sum += a[row * n + k] * b[k * n + column];
  c[row * n + column] = sum;
}

struct ProductTiles {
  float a[kTile][kTile], b[kTile][kTile];
};

/// The same, but the block reads a tile of each matrix into shared memory, and all its threads use it.
__global__ void multiply_tiles(float* c, const float* a, const float* b, int n) {
  auto& tile = block_shared<ProductTiles>();
  const int i = static_cast<int>(threadIdx.y), j = static_cast<int>(threadIdx.x);
  const int row = static_cast<int>(blockIdx.y) * kTile + i, column = static_cast<int>(blockIdx.x) * kTile + j;
  float sum = 0;
  for (int first = 0; first < n; first += kTile) {
    tile.a[i][j] = a[row * n + first + j];
    tile.b[i][j] = b[(first + i) * n + column];
    __syncthreads();
    for (int k = 0; k < kTile; ++k) sum += tile.a[i][k] * tile.b[k][j];
    __syncthreads();
  }
  c[row * n + column] = sum;
}

LaunchConfig tiles_of(const Tensor& x) {
  const auto across = static_cast<unsigned>(x.dim(1)) / kTile;
  return {dim3(across, across), dim3(kTile, kTile)};
}

int side(const Tensor& x) {
  return static_cast<int>(x.dim(0));
}

}  // namespace

void copy(const Tensor& y, const Tensor& x, int step) {
  const auto n = static_cast<int>(x.numel());
  launch(copy_elements, {dim3(static_cast<unsigned>(n + 255) / 256), dim3(256)}, y.data(), x.data(), n, step);
}

void transpose(const Tensor& y, const Tensor& x, Transpose how) {
  switch (how) {
    case Transpose::directly:
      return launch(transpose_directly, tiles_of(x), y.data(), x.data(), side(x));
    case Transpose::through_a_tile:
      return launch(transpose_tile<kTile, true>, tiles_of(x), y.data(), x.data(), side(x));
    case Transpose::through_a_padded_tile:
      return launch(transpose_tile<kTile + 1, true>, tiles_of(x), y.data(), x.data(), side(x));
    case Transpose::without_the_barrier:
      return launch(transpose_tile<kTile + 1, false>, tiles_of(x), y.data(), x.data(), side(x));
  }
}

void multiply_naive(const Tensor& c, const Tensor& a, const Tensor& b) {
  launch(multiply_directly, tiles_of(c), c.data(), a.data(), b.data(), side(c));
}

void multiply_tiled(const Tensor& c, const Tensor& a, const Tensor& b) {
  launch(multiply_tiles, tiles_of(c), c.data(), a.data(), b.data(), side(c));
}

}  // namespace llm::ch03
