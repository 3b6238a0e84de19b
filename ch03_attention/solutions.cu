// Answers to the exercises of chapter 3 that run on the GPU, short rather than fast. The library's own are in
// common/ops/cuda.
#include <cfloat>

#include "ch03_attention/exercises.h"
#include "common/simt/kernel.h"
#include "common/simt/warp.cuh"

namespace llm::exercises::ch03 {

// 3.7
__global__ void scale_add_kernel(float* y, const float* x, float a, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;  // the last block may have more threads than there are elements left
  y[i] += a * x[i];
}

void scale_add(float* y, const float* x, float a, int n) {
  const int threads = 256;
  launch(scale_add_kernel, {dim3((n + threads - 1) / threads), dim3(threads)}, y, x, a, n);
}

// 3.8
__global__ void row_sums_kernel(float* y, const float* x, int rows, int columns) {
  const int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;  // the whole warp
  float sum = 0;
  for (int c = lane; c < columns; c += 32) sum += x[row * columns + c];
  for (int away = 16; away > 0; away /= 2) sum += __shfl_xor_sync(0xffffffff, sum, away);
  if (lane == 0) y[row] = sum;
}

void row_sums(float* y, const float* x, int rows, int columns) {
  launch(row_sums_kernel, {dim3((rows + 3) / 4), dim3(4 * 32)}, y, x, rows, columns);
}

// 3.9
struct SoftmaxShared {
  float high[8], sum[8];  // of each of the eight warps
};

__global__ void block_softmax_kernel(float* y, const float* x, int columns) {
  auto& shared = block_shared<SoftmaxShared>();
  const int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
  x += blockIdx.x * columns;
  y += blockIdx.x * columns;

  float high = -FLT_MAX;
  for (int c = thread; c < columns; c += 256) high = fmaxf(high, x[c]);
  high = warp_max(high);
  if (lane == 0) shared.high[warp] = high;
  __syncthreads();
  for (int w = 0; w < 8; ++w) high = fmaxf(high, shared.high[w]);

  float part = 0;
  for (int c = thread; c < columns; c += 256) part += expf(x[c] - high);
  part = warp_sum(part);
  if (lane == 0) shared.sum[warp] = part;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < 8; ++w) sum += shared.sum[w];

  for (int c = thread; c < columns; c += 256) y[c] = expf(x[c] - high) / sum;
}

void block_softmax(float* y, const float* x, int rows, int columns) {
  launch(block_softmax_kernel, {dim3(rows), dim3(256)}, y, x, columns);
}

// 3.10
constexpr int kTile = 16;

struct ProductTiles {
  float a[kTile][kTile], b[kTile][kTile];
};

__global__ void tiled_product_kernel(float* c, const float* a, const float* b, int M, int N, int K) {
  auto& tile = block_shared<ProductTiles>();
  const int i = threadIdx.y, j = threadIdx.x;  // in the tile
  const int row = blockIdx.y * kTile + i, column = blockIdx.x * kTile + j;
  float sum = 0;
  for (int first = 0; first < K; first += kTile) {
    tile.a[i][j] = row < M && first + j < K ? a[row * K + first + j] : 0;
    tile.b[i][j] = first + i < K && column < N ? b[(first + i) * N + column] : 0;
    __syncthreads();  // both tiles are there
    for (int k = 0; k < kTile; ++k) sum += tile.a[i][k] * tile.b[k][j];
    __syncthreads();  // nobody needs them any more
  }
  if (row < M && column < N) c[row * N + column] = sum;
}

void tiled_product(float* c, const float* a, const float* b, int M, int N, int K) {
  const dim3 tiles((N + kTile - 1) / kTile, (M + kTile - 1) / kTile);
  launch(tiled_product_kernel, {tiles, dim3(kTile, kTile)}, c, a, b, M, N, K);
}

// 3.11
__global__ void online_softmax_kernel(float* y, const float* x, int rows, int columns) {
  const int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  x += row * columns;
  y += row * columns;

  float high = -FLT_MAX, sum = 0;  // of what this lane has seen: largest entry, sum of exp(x - high)
  for (int c = lane; c < columns; c += 32) {
    const float higher = fmaxf(high, x[c]);
    sum = sum * expf(high - higher) + expf(x[c] - higher);
    high = higher;
  }
  for (int away = 16; away > 0; away /= 2) {
    const float other_high = __shfl_xor_sync(0xffffffff, high, away);
    const float other_sum = __shfl_xor_sync(0xffffffff, sum, away);
    const float higher = fmaxf(high, other_high);
    sum = sum * expf(high - higher) + other_sum * expf(other_high - higher);
    high = higher;
  }
  for (int c = lane; c < columns; c += 32) y[c] = expf(x[c] - high) / sum;
}

void online_softmax(float* y, const float* x, int rows, int columns) {
  launch(online_softmax_kernel, {dim3((rows + 3) / 4), dim3(4 * 32)}, y, x, rows, columns);
}

// 3.12
constexpr int kKeys = 64;  // keys of a tile, and queries of a block: a thread each

struct KeyTile {
  float k[kKeys][kHeadSize], v[kKeys][kHeadSize];
};

__global__ void flash_head_kernel(float* y, float* lse, const float* q, const float* k, const float* v,
                                  int T) {
  auto& tile = block_shared<KeyTile>();
  const int first = blockIdx.x * kKeys, t = first + threadIdx.x;
  const float scale = 1 / sqrtf(static_cast<float>(kHeadSize));
  float query[kHeadSize], sum_of_values[kHeadSize];
  for (int d = 0; d < kHeadSize; ++d) {
    query[d] = t < T ? q[t * kHeadSize + d] * scale : 0;
    sum_of_values[d] = 0;
  }
  float high = -FLT_MAX, sum = 0;
  for (int begin = 0; begin <= first; begin += kKeys) {  // tiles further right are all masked
    for (int i = threadIdx.x; i < kKeys * kHeadSize && begin * kHeadSize + i < T * kHeadSize; i += kKeys) {
      tile.k[i / kHeadSize][i % kHeadSize] = k[begin * kHeadSize + i];
      tile.v[i / kHeadSize][i % kHeadSize] = v[begin * kHeadSize + i];
    }
    __syncthreads();  // the tile is there
    for (int j = 0; j < kKeys && begin + j <= t && begin + j < T; ++j) {
      float score = 0;
      for (int d = 0; d < kHeadSize; ++d) score += query[d] * tile.k[j][d];
      const float higher = fmaxf(high, score);
      const float shrink = expf(high - higher), weight = expf(score - higher);
      sum = sum * shrink + weight;
      for (int d = 0; d < kHeadSize; ++d)
        sum_of_values[d] = sum_of_values[d] * shrink + weight * tile.v[j][d];
      high = higher;
    }
    __syncthreads();  // nobody needs it any more
  }
  if (t >= T) return;
  for (int d = 0; d < kHeadSize; ++d) y[t * kHeadSize + d] = sum_of_values[d] / sum;
  lse[t] = high + logf(sum);
}

void flash_head(float* y, float* lse, const float* q, const float* k, const float* v, int T) {
  launch(flash_head_kernel, {dim3((T + kKeys - 1) / kKeys), dim3(kKeys)}, y, lse, q, k, v, T);
}

}  // namespace llm::exercises::ch03
