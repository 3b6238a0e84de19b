// Attention on the device, second rung: the same products as attention_naive.cu, tile by tile through shared
// memory. Chapter 3.
//
// A block computes a 32 x 32 tile of a product. For each step along the sum its threads fetch a 32 x 32 tile
// of either side, once, side by side as they lie in memory, and then read each number 32 times from shared
// memory: global loads fall by 32. Tiles above the diagonal are not computed, and sums stop at it.
#include "common/ops/cuda/attention_stored.cuh"

namespace llm::cuda {

namespace {

constexpr int kTile = 32;
constexpr int kRows = 8;               // threads (x, y) of a block: 32 x 8
constexpr int kMicro = kTile / kRows;  // outputs of a thread: column x, rows y, y + 8, ...

struct Tiles {
  float a[kTile][kTile + 1], b[kTile][kTile + 1];  // the odd length puts a column into 32 banks
};

__device__ int thread_x() {
  return static_cast<int>(threadIdx.x);
}
__device__ int thread_y() {
  return static_cast<int>(threadIdx.y);
}

/// tile[r][c] = element (first_row + r, first_column + c) of a matrix of rows x columns; zeros around it.
__device__ void load_tile(float (&tile)[kTile][kTile + 1], const float* matrix, int stride, int first_row,
                          int rows, int first_column, int columns) {
  const int column = first_column + thread_x();
  for (int r = thread_y(); r < kTile; r += kRows) {
    const int row = first_row + r;
    const bool inside = row < rows && column < columns;
    tile[r][thread_x()] = inside ? matrix[static_cast<std::int64_t>(row) * stride + column] : 0.0F;
  }
}

/// Grid (T / 32, T / 32, B H): tile (x, y) of the scores.
__global__ void scores(float* w, Heads<const float> a, Heads<const float> b, float scale) {
  const int row = static_cast<int>(blockIdx.y) * kTile, column = static_cast<int>(blockIdx.x) * kTile;
  const auto head = static_cast<int>(blockIdx.z);
  if (column > row) return;
  Tiles& tiles = block_shared<Tiles>();
  const Rows<const float> left = a[head], right = b[head];
  float sums[kMicro] = {};
  for (int d = 0; d < a.size; d += kTile) {
    load_tile(tiles.a, left.data, left.stride, row, a.time, d, a.size);
    load_tile(tiles.b, right.data, right.stride, column, a.time, d, a.size);
    __syncthreads();
    for (int k = 0; k < kTile; ++k)
#pragma unroll
      for (int i = 0; i < kMicro; ++i) sums[i] += tiles.a[thread_y() + i * kRows][k] * tiles.b[thread_x()][k];
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < kMicro; ++i) {
    const int r = row + thread_y() + i * kRows, c = column + thread_x();
    if (c <= r && r < a.time)
      w[(static_cast<std::int64_t>(head) * a.time + r) * a.time + c] = scale * sums[i];
  }
}

/// Grid (D / 32, T / 32, B H): tile (x, y) of weighted sums of rows. Columns: with w transposed.
template <bool kColumns>
__global__ void weighted_sums(Heads<float> y, const float* w, Heads<const float> x, float scale) {
  const int row = static_cast<int>(blockIdx.y) * kTile, column = static_cast<int>(blockIdx.x) * kTile;
  const auto head = static_cast<int>(blockIdx.z);
  const int time = x.time;
  Tiles& tiles = block_shared<Tiles>();
  const float* weights = w + static_cast<std::int64_t>(head) * time * time;
  const Rows<const float> rows = x[head];
  float sums[kMicro] = {};
  for (int j = kColumns ? row : 0; j < (kColumns ? time : min(row + kTile, time)); j += kTile) {
    if (kColumns)
      load_tile(tiles.a, weights, time, j, time, row, time);
    else
      load_tile(tiles.a, weights, time, row, time, j, time);
    load_tile(tiles.b, rows.data, rows.stride, j, time, column, x.size);
    __syncthreads();
    for (int k = 0; k < kTile; ++k)
#pragma unroll
      for (int i = 0; i < kMicro; ++i) {
        const int r = thread_y() + i * kRows;
        sums[i] += (kColumns ? tiles.a[k][r] : tiles.a[r][k]) * tiles.b[k][thread_x()];
      }
    __syncthreads();
  }
  const Rows<float> out = y[head];
#pragma unroll
  for (int i = 0; i < kMicro; ++i) {
    const int r = row + thread_y() + i * kRows, c = column + thread_x();
    if (r < time && c < y.size) out.row(r)[c] = scale * sums[i];
  }
}

LaunchConfig tiles_config(int columns, int rows, int heads) {
  return {dim3(blocks_for(columns, kTile), blocks_for(rows, kTile), static_cast<unsigned>(heads)),
          dim3(kTile, kRows)};
}

constexpr HeadProducts kProducts = {
    [](float* w, Heads<const float> a, Heads<const float> b, float scale, int heads) {
      launch(scores, tiles_config(a.time, a.time, heads), w, a, b, scale);
    },
    [](Heads<float> y, const float* w, Heads<const float> x, float scale, int heads) {
      launch(weighted_sums<false>, tiles_config(x.size, x.time, heads), y, w, x, scale);
    },
    [](Heads<float> y, const float* w, Heads<const float> x, float scale, int heads) {
      launch(weighted_sums<true>, tiles_config(x.size, x.time, heads), y, w, x, scale);
    }};

}  // namespace

void attention_tiled_forward(const Tensor& y, const Tensor& weights, const Tensor& qkv,
                             const AttentionOptions& options) {
  const AttentionSize s = check_naive_forward("attention_tiled_forward", y, weights, qkv, options);
  check_on_cuda("attention_tiled_forward", qkv, {DType::f32});
  attention_stored_forward(y, weights, qkv, s, options, kProducts);
}

void attention_tiled_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& weights, const Tensor& qkv,
                              const AttentionOptions& options) {
  const AttentionSize s = check_naive_backward("attention_tiled_backward", dqkv, dy, weights, qkv, options);
  check_on_cuda("attention_tiled_backward", qkv, {DType::f32});
  attention_stored_backward(dqkv, dy, weights, qkv, s, options, kProducts);
}

}  // namespace llm::cuda
