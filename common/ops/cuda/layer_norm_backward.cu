// Layer norm backward. With n = (x - mean) rstd and g = dy gamma:
//
//   dx = dresidual + rstd (g - mean(g) - n mean(g n)),  dgamma += sum over rows of dy n,  dbeta += sum of dy.
//
// One pass does all three: a block is as wide as a row, each thread keeps one pack of columns, goes through
// the rows of its piece and carries dgamma and dbeta of its columns in registers. The floor is the memory: in
// f32 (bf16 half) 12 bytes per element (dy, x read; dx written), 16 with dresidual; the pieces add 16 bytes
// per column and piece. Chapter 4.
#include "common/ops/cuda/column_sums.h"
#include "common/ops/cuda/kernels.h"
#include "common/ops/cuda/pack.cuh"
#include "common/simt/warp.cuh"

namespace llm::cuda {

namespace {

template <typename T>
struct Backward {
  T* dx;
  float* partial;  // (pieces, 2, C): dgamma, dbeta
  const T* dy;
  const T* x;
  const T* gamma;
  const float* mean;
  const float* rstd;
  const T* dresidual;  // or null; may be dx
  std::int64_t rows;
  int channels;
  Pieces pieces;
};

/// sum(g) and sum(g n) of Rows rows, per warp. Two of them, used in turn, so that one barrier per step is
/// enough: whoever writes one again has passed the barrier that all readers of it had to reach first.
template <int Rows>
struct WarpSums {
  float values[2][32][2 * Rows];
};

/// A block of at most Threads threads, Rows rows at a time, so that enough bytes are under way.
template <typename T, int Threads, int Rows>
__global__ void __launch_bounds__(Threads) layer_norm_backward_kernel(Backward<T> o) {
  constexpr int N = kPack<T>;
  auto& shared = block_shared<WarpSums<Rows>>();
  const int column = static_cast<int>(threadIdx.x) * N, warps = blockDim.x / 32;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const bool mine = column < o.channels;
  const std::int64_t first = blockIdx.x * o.pieces.rows_each;
  const std::int64_t end = min(o.rows, first + o.pieces.rows_each);
  const float over = 1.0F / static_cast<float>(o.channels);
  float gamma[N] = {}, dgamma[N] = {}, dbeta[N] = {};
  if (mine) load(gamma, o.gamma + column);

  int turn = 0;
  for (std::int64_t row = first; row < end; row += Rows, turn ^= 1) {
    float dy[Rows][N], x[Rows][N], residual[Rows][N], rstd[Rows];
#pragma unroll
    for (int r = 0; r < Rows; ++r)
      if (mine && row + r < end) {
        const std::int64_t at = (row + r) * o.channels + column;
        load(dy[r], o.dy + at);
        load(x[r], o.x + at);
        if (o.dresidual) load(residual[r], o.dresidual + at);
      }
    float sums[2 * Rows];
#pragma unroll
    for (int r = 0; r < Rows; ++r) {
      float g_sum = 0, gn_sum = 0;
      rstd[r] = 0;
      if (mine && row + r < end) {
        const float mean = o.mean[row + r];
        rstd[r] = o.rstd[row + r];
#pragma unroll
        for (int i = 0; i < N; ++i) {
          x[r][i] = (x[r][i] - mean) * rstd[r];  // n from here on
          dgamma[i] += dy[r][i] * x[r][i];
          dbeta[i] += dy[r][i];
          dy[r][i] *= gamma[i];  // g from here on
          g_sum += dy[r][i];
          gn_sum += dy[r][i] * x[r][i];
        }
      }
      sums[2 * r] = warp_sum(g_sum);
      sums[2 * r + 1] = warp_sum(gn_sum);
    }
    if (warps > 1) {
      if (lane == 0)
#pragma unroll
        for (int i = 0; i < 2 * Rows; ++i) shared.values[turn][warp][i] = sums[i];
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 2 * Rows; ++i) sums[i] = 0;
      for (int w = 0; w < warps; ++w)
#pragma unroll
        for (int i = 0; i < 2 * Rows; ++i) sums[i] += shared.values[turn][w][i];
    }
#pragma unroll
    for (int r = 0; r < Rows; ++r)
      if (mine && row + r < end) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const float d = rstd[r] * (dy[r][i] - sums[2 * r] * over - x[r][i] * (sums[2 * r + 1] * over));
          dy[r][i] = o.dresidual ? residual[r][i] + d : d;
        }
        store(o.dx + (row + r) * o.channels + column, dy[r]);
      }
  }
  if (!mine) return;
  float* const partial = o.partial + std::int64_t{blockIdx.x} * 2 * o.channels + column;
  store(partial, dgamma);
  store(partial + o.channels, dbeta);
}

constexpr int kAnyThreads = 128;

/// Rows of any length and alignment: each is read twice, and dgamma and dbeta are gathered in `partial`,
/// where every column has one thread.
template <typename T>
__global__ void __launch_bounds__(kAnyThreads) layer_norm_backward_any_kernel(Backward<T> o) {
  float* const dgamma = o.partial + std::int64_t{blockIdx.x} * 2 * o.channels;
  float* const dbeta = dgamma + o.channels;
  const std::int64_t first = blockIdx.x * o.pieces.rows_each;
  const std::int64_t end = min(o.rows, first + o.pieces.rows_each);
  const float over = 1.0F / static_cast<float>(o.channels);
  for (std::int64_t row = first; row < end; ++row) {
    const std::int64_t start = row * o.channels;
    const float mean = o.mean[row], rstd = o.rstd[row];
    float g_sum = 0, gn_sum = 0;
    for (int c = threadIdx.x; c < o.channels; c += kAnyThreads) {
      const float dy = to_float(o.dy[start + c]), n = (to_float(o.x[start + c]) - mean) * rstd;
      dgamma[c] = (row == first ? 0.0F : dgamma[c]) + dy * n;
      dbeta[c] = (row == first ? 0.0F : dbeta[c]) + dy;
      g_sum += dy * to_float(o.gamma[c]);
      gn_sum += dy * to_float(o.gamma[c]) * n;
    }
    const float g_mean = block_sum<kAnyThreads>(g_sum) * over;
    const float gn_mean = block_sum<kAnyThreads>(gn_sum) * over;
    for (int c = threadIdx.x; c < o.channels; c += kAnyThreads) {
      const float g = to_float(o.dy[start + c]) * to_float(o.gamma[c]);
      const float n = (to_float(o.x[start + c]) - mean) * rstd;
      const float d = rstd * (g - g_mean - n * gn_mean);
      o.dx[start + c] = from_float<T>(o.dresidual ? to_float(o.dresidual[start + c]) + d : d);
    }
  }
}

}  // namespace

void layer_norm_backward(const Tensor& dx, const Tensor& dgamma, const Tensor& dbeta, const Tensor& dy,
                         const Tensor& x, const Tensor& gamma, const Tensor& mean, const Tensor& rstd,
                         const Tensor& dresidual) {
  const std::int64_t rows = mean.numel();
  const auto channels = static_cast<int>(gamma.numel());
  if (rows == 0) return;
  by_type(x, [&]<typename T>() {
    const std::int64_t threads = divide_up(channels, 32 * kPack<T>) * 32;
    // A pack of bf16 is 8 columns, which fill the registers. Of narrow rows many blocks with one row at a
    // time then do better than few with four (32768 rows of 768 on an H100: 85 against 96 microseconds).
    constexpr bool kBf16 = kPack<T> == 8;
    constexpr int kNarrow = 256, kRows = kBf16 ? 1 : 4;
    const Pieces pieces = cut_rows(rows, kBf16 && threads <= kNarrow ? 1056 : 512, 4);
    const Tensor partial = Tensor::uninitialized({pieces.count, 2, channels}, DType::f32, Device::cuda);
    const Backward<T> o{device_data<T>(dx),
                        partial.data(),
                        device_data<T>(dy),
                        device_data<T>(x),
                        device_data<T>(gamma),
                        mean.data(),
                        rstd.data(),
                        device_data<T>(dresidual),
                        rows,
                        channels,
                        pieces};
    const LaunchConfig config{blocks(pieces.count), blocks(threads)};
    if (channels % kPack<T> != 0 || threads > 1024 || !aligned(o.dx, o.dy, o.x, o.gamma, o.dresidual))
      launch(layer_norm_backward_any_kernel<T>, {blocks(pieces.count), kAnyThreads}, o);
    else if (threads <= kNarrow)
      launch(layer_norm_backward_kernel<T, kNarrow, kRows>, config, o);
    else if (threads <= 512)
      launch(layer_norm_backward_kernel<T, 512, 2>, config, o);
    else
      launch(layer_norm_backward_kernel<T, 1024, 1>, config, o);
    add_pieces(dgamma.data(), device_data<float>(dbeta), partial.data(), channels, pieces.count);
  });
}

}  // namespace llm::cuda
