// See column_sums.h. The floor of a column sum is reading x once; the pieces add 8 bytes per column and
// piece, some 5 to 15% at the sizes of GPT-2, most of which never leaves the second-level cache.
#include "common/ops/cuda/column_sums.h"

#include <algorithm>

#include "common/ops/cuda/pack.cuh"

namespace llm::cuda {

namespace {

constexpr int kThreads = 128, kRows = 4;  // rows under way at a time
constexpr int kColumns = 32, kRuns = 16;  // of add_pieces

struct RunSums {
  float values[kRuns][kColumns];
};

/// A block adds up 32 columns. Its 16 warps take a run of pieces each, one lane per column; then the runs are
/// added. Of the `width` columns the first go to a, from `columns` on to b.
__global__ void __launch_bounds__(kColumns* kRuns)
    add_pieces_kernel(float* a, float* b, const float* partial, std::int64_t columns, std::int64_t width,
                      int pieces) {
  auto& shared = block_shared<RunSums>();
  const int lane = threadIdx.x % kColumns, run = threadIdx.x / kColumns;
  const std::int64_t column = std::int64_t{blockIdx.x} * kColumns + lane;
  const int each = (pieces + kRuns - 1) / kRuns;
  float total = 0;
  if (column < width)
#pragma unroll 8
    for (int p = run * each; p < min(pieces, (run + 1) * each); ++p) total += partial[p * width + column];
  shared.values[run][lane] = total;
  __syncthreads();
  if (run > 0 || column >= width) return;
  total = 0;
#pragma unroll
  for (int r = 0; r < kRuns; ++r) total += shared.values[r][lane];
  if (column < columns && a != nullptr) a[column] += total;
  if (column >= columns && b != nullptr) b[column - columns] += total;
}

/// Block (b, p) sums the rows of piece p in its kThreads * N columns.
template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    column_sums_kernel(float* partial, const T* x, std::int64_t rows, std::int64_t columns, Pieces pieces) {
  const std::int64_t column = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * N, piece = blockIdx.y;
  if (column >= columns) return;
  const std::int64_t end = min(rows, (piece + 1) * pieces.rows_each);
  float total[N] = {};
  std::int64_t row = piece * pieces.rows_each;
  for (; row + kRows <= end; row += kRows) {
    float v[kRows][N];
#pragma unroll
    for (int r = 0; r < kRows; ++r) load(v[r], x + (row + r) * columns + column);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int i = 0; i < N; ++i) total[i] += v[r][i];
  }
  for (; row < end; ++row) {
    float v[N];
    load(v, x + row * columns + column);
#pragma unroll
    for (int i = 0; i < N; ++i) total[i] += v[i];
  }
  store(partial + piece * columns + column, total);
}

}  // namespace

Pieces cut_rows(std::int64_t rows, std::int64_t most, std::int64_t multiple) {
  const std::int64_t each = divide_up(divide_up(rows, most), multiple) * multiple;
  return {each, divide_up(rows, each)};
}

void add_pieces(float* a, const float* partial, std::int64_t columns, std::int64_t pieces) {
  launch(add_pieces_kernel, {blocks(divide_up(columns, kColumns)), kColumns * kRuns}, a, nullptr, partial,
         columns, columns, static_cast<int>(pieces));
}

void add_pieces(float* a, float* b, const float* partial, std::int64_t columns, std::int64_t pieces) {
  launch(add_pieces_kernel, {blocks(divide_up(2 * columns, kColumns)), kColumns * kRuns}, a, b, partial,
         columns, 2 * columns, static_cast<int>(pieces));
}

void add_column_sums(float* to, const Tensor& x, std::int64_t columns) {
  const std::int64_t rows = x.numel() / columns;
  if (rows == 0) return;
  by_type(x, [&]<typename T>() {
    const T* const from = device_data<const T>(x);
    const bool packed = columns % kPack<T> == 0 && aligned(from);
    const std::int64_t across = divide_up(columns, kThreads * (packed ? kPack<T> : 1));
    // Some 512 blocks are enough for any GPU there is, and at least 8 rows make a piece worth its while.
    const Pieces pieces = cut_rows(rows, std::max<std::int64_t>(1, 512 / across), 2 * kRows);
    const Tensor partial = Tensor::uninitialized({pieces.count, columns}, DType::f32, Device::cuda);
    const LaunchConfig config{dim3(blocks(across), blocks(pieces.count)), kThreads};
    if (packed)
      launch(column_sums_kernel<kPack<T>, T>, config, partial.data(), from, rows, columns, pieces);
    else
      launch(column_sums_kernel<1, T>, config, partial.data(), from, rows, columns, pieces);
    add_pieces(to, partial.data(), columns, pieces.count);
  });
}

}  // namespace llm::cuda
