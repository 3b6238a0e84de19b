// Attention that never stores the T x T scores (Milakov and Gimelshein 2018 for the running softmax; Dao et
// al. 2022, algorithms 1 and 4, for attention in tiles, forward and backward). Chapter 3.
//
// A block of 256 threads owns a tile of queries (or of keys) and walks along the tiles of the other side; the
// scores of a pair of tiles live in registers. Of each row only lse = m + log l is saved, and backward
// recomputes the weights as exp(score - lse). All six loops are made of two products:
//
//   tile_scores       s[i][j] = a_i . b_j                (queries and keys, dy and values)
//   tile_accumulate   acc_i += sum over j of p[i][j] x_j  (weights and values, d(scores) and keys, ...)
//
// Storage is f32 or bf16, arithmetic f32. Nobody adds to what another block adds to: keys and queries have a
// pass of their own backward, so results do not depend on the order of blocks. That costs the scores twice: 7
// products where one pass with atomic additions to dq has 5.
#include "common/ops/cuda/attention.cuh"

namespace llm::cuda {

namespace {

constexpr int kThreads = 256;  // 16 x 16: thread (y, x) has rows y kMicro + i, columns x + 16 j

/// Shapes for heads padded up to kSize channels.
template <int kSize>
struct Tiles {
  static constexpr int kTile = kSize <= 64 ? 64 : 32;  // queries, and keys
  static constexpr int kMicro = kTile / 16;            // rows, and columns, of a thread
  static constexpr int kPairs = kSize / 32;            // pairs of channels 2 x + 32 c of a thread
  // Rows are longer than they need be, so that the 8 rows which neighbouring threads read 16 bytes of lie in
  // different banks, and so do the two rows a warp writes.
  static constexpr int kPitch = kSize + 4;
  static constexpr int kWeightPitch = kTile + 16 / kMicro;
  static constexpr int kFloats = kTile * kPitch;  // of a tile of q, k, v or dy
  static constexpr int kWeights = kTile * kWeightPitch;
};

__device__ int thread_x() {
  return static_cast<int>(threadIdx.x % 16);
}
__device__ int thread_y() {
  return static_cast<int>(threadIdx.x / 16);
}

__device__ void store2(float* to, float x, float y) {
  *reinterpret_cast<float2*>(to) = make_float2(x, y);
}
__device__ void store2(__nv_bfloat16* to, float x, float y) {
  *reinterpret_cast<__nv_bfloat162*>(to) = __floats2bfloat162_rn(x, y);
}

/// Positions [first, first + kTile) of a head into shared memory; zeros past the end of the sequence and of
/// the head.
template <int kSize, typename T>
__device__ void load_tile(float* tile, const Rows<const T>& rows, int first, int time, int size) {
  constexpr int kQuads = kSize / 4;
  for (int i = static_cast<int>(threadIdx.x); i < Tiles<kSize>::kTile * kQuads; i += kThreads) {
    const int row = i / kQuads, d = i % kQuads * 4;
    const bool inside = first + row < time && d < size;
    const float4 value = inside ? load4(rows.row(first + row) + d) : make_float4(0, 0, 0, 0);
    *reinterpret_cast<float4*>(tile + row * Tiles<kSize>::kPitch + d) = value;
  }
}

/// s[i][j] = a_i . b_j for this thread's rows of a and b.
template <int kSize, int kMicro = Tiles<kSize>::kMicro>
__device__ void tile_scores(float (&s)[kMicro][kMicro], const float* a, const float* b) {
  for (auto& row : s)
    for (float& value : row) value = 0;
#pragma unroll 4
  for (int d = 0; d < kSize; d += 4) {
    float4 left[kMicro], right[kMicro];
#pragma unroll
    for (int i = 0; i < kMicro; ++i) {
      left[i] = load4(a + (thread_y() * kMicro + i) * Tiles<kSize>::kPitch + d);
      right[i] = load4(b + (thread_x() + 16 * i) * Tiles<kSize>::kPitch + d);
    }
#pragma unroll
    for (int i = 0; i < kMicro; ++i)
#pragma unroll
      for (int j = 0; j < kMicro; ++j)
        s[i][j] +=
            left[i].x * right[j].x + left[i].y * right[j].y + left[i].z * right[j].z + left[i].w * right[j].w;
  }
}

/// This thread's part of a tile of weights into shared memory, for tile_accumulate.
template <int kSize, int kMicro = Tiles<kSize>::kMicro>
__device__ void store_weights(float* to, const float (&p)[kMicro][kMicro]) {
#pragma unroll
  for (int i = 0; i < kMicro; ++i)
#pragma unroll
    for (int j = 0; j < kMicro; ++j)
      to[(thread_y() * kMicro + i) * Tiles<kSize>::kWeightPitch + thread_x() + 16 * j] = p[i][j];
}

/// acc_i += sum over j of p[i][j] x_j, for this thread's rows i and pairs of channels.
template <int kSize, int kMicro = Tiles<kSize>::kMicro, int kPairs = Tiles<kSize>::kPairs>
__device__ void tile_accumulate(float2 (&acc)[kMicro][kPairs], const float* p, const float* x) {
  for (int j = 0; j < Tiles<kSize>::kTile; j += 4) {
    float4 weight[kMicro];
#pragma unroll
    for (int i = 0; i < kMicro; ++i)
      weight[i] = load4(p + (thread_y() * kMicro + i) * Tiles<kSize>::kWeightPitch + j);
#pragma unroll
    for (int c = 0; c < kPairs; ++c) {
      const float* column = x + j * Tiles<kSize>::kPitch + 2 * thread_x() + 32 * c;
      float2 value[4];
#pragma unroll
      for (int k = 0; k < 4; ++k)
        value[k] = *reinterpret_cast<const float2*>(column + k * Tiles<kSize>::kPitch);
#pragma unroll
      for (int i = 0; i < kMicro; ++i) {
        acc[i][c].x += weight[i].x * value[0].x + weight[i].y * value[1].x + weight[i].z * value[2].x +
                       weight[i].w * value[3].x;
        acc[i][c].y += weight[i].x * value[0].y + weight[i].y * value[1].y + weight[i].z * value[2].y +
                       weight[i].w * value[3].y;
      }
    }
  }
}

/// Rows of sums, times a factor each, to where they belong.
template <int kSize, typename T, int kMicro = Tiles<kSize>::kMicro, int kPairs = Tiles<kSize>::kPairs>
__device__ void store_rows(const Rows<T>& rows, const float2 (&acc)[kMicro][kPairs],
                           const float (&factor)[kMicro], int first, int time, int size) {
#pragma unroll
  for (int i = 0; i < kMicro; ++i) {
    const int t = first + thread_y() * kMicro + i;
    if (t >= time) continue;
#pragma unroll
    for (int c = 0; c < kPairs; ++c) {
      const int d = 2 * thread_x() + 32 * c;
      if (d < size) store2(rows.row(t) + d, acc[i][c].x * factor[i], acc[i][c].y * factor[i]);
    }
  }
}

/// Over the 16 threads that share their rows; all get the result.
__device__ float row_sum(float x) {
  for (int distance = 8; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffU, x, distance);
  return x;
}
__device__ float row_max(float x) {
  for (int distance = 8; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, distance));
  return x;
}

/// Grid (tiles, B H). Queries near the end see the most keys; their blocks start first.
template <int kSize, bool kDropout, typename T>
__global__ void __launch_bounds__(kThreads, 1)
    flash_forward(Heads<T> y, float* lse, Heads<const T> q, Heads<const T> k, Heads<const T> v, float scale,
                  WeightDropout dropout) {
  using Shape = Tiles<kSize>;
  constexpr int kTile = Shape::kTile, kMicro = Shape::kMicro;
  const int time = q.time, head = static_cast<int>(blockIdx.y);
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kTile;
  float* q_tile = dynamic_shared<float>();
  float* k_tile = q_tile + Shape::kFloats;
  float* v_tile = k_tile + Shape::kFloats;
  float* p_tile = v_tile + Shape::kFloats;

  float2 out[kMicro][Shape::kPairs] = {};
  float maximum[kMicro], total[kMicro];
  for (int i = 0; i < kMicro; ++i) {
    maximum[i] = -kInfinity;
    total[i] = 0;
  }
  load_tile<kSize>(q_tile, q[head], first, time, q.size);
  for (int key = 0; key <= first; key += kTile) {
    __syncthreads();  // everybody is done with the last tiles
    load_tile<kSize>(k_tile, k[head], key, time, q.size);
    load_tile<kSize>(v_tile, v[head], key, time, q.size);
    __syncthreads();
    float p[kMicro][kMicro];
    tile_scores<kSize>(p, q_tile, k_tile);
#pragma unroll
    for (int i = 0; i < kMicro; ++i) {
      const int query = first + thread_y() * kMicro + i;
      float highest = maximum[i];
#pragma unroll
      for (int j = 0; j < kMicro; ++j) {
        p[i][j] = key + thread_x() + 16 * j <= query ? p[i][j] * scale : -kInfinity;
        highest = fmaxf(highest, p[i][j]);
      }
      highest = row_max(highest);
      const float repair = expf(maximum[i] - highest);  // of what was added before this maximum was known
      maximum[i] = highest;
      float sum = 0;
#pragma unroll
      for (int j = 0; j < kMicro; ++j) {
        p[i][j] = expf(p[i][j] - highest);
        sum += p[i][j];
        if (kDropout)
          p[i][j] *= dropout.factor(dropout.row_index(head, query, time) + key + thread_x() + 16 * j);
      }
      total[i] = total[i] * repair + row_sum(sum);
#pragma unroll
      for (float2& pair : out[i]) pair = make_float2(pair.x * repair, pair.y * repair);
    }
    store_weights<kSize>(p_tile, p);
    __syncwarp();  // a warp reads only its own rows of p
    tile_accumulate<kSize>(out, p_tile, v_tile);
  }
  float over[kMicro];
  for (int i = 0; i < kMicro; ++i) {
    over[i] = 1 / total[i];
    const int query = first + thread_y() * kMicro + i;
    if (thread_x() == 0 && query < time)
      lse[static_cast<std::int64_t>(head) * time + query] = maximum[i] + logf(total[i]);
  }
  store_rows<kSize>(y[head], out, over, first, time, q.size);
}

// Backward, with P = exp(S - lse), M the dropout's mask and scale, delta_i = y_i . dy_i (= sum_j P_ij dP_ij):
//   dV = (M P)^T dY,  dP = M (dY V^T),  dS = P (dP - delta),  dQ = dS K / sqrt(D),  dK = dS^T Q / sqrt(D).

/// delta (B H, T), one warp each.
template <typename T>
__global__ void row_dots(float* delta, Heads<const T> y, Heads<const T> dy, std::int64_t rows) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  const auto head = static_cast<int>(row / y.time), t = static_cast<int>(row % y.time);
  float dot = 0;
  for (int d = static_cast<int>(threadIdx.x % 32) * 4; d < y.size; d += 128) {
    const float4 a = load4(y[head].row(t) + d), b = load4(dy[head].row(t) + d);
    dot += a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
  }
  dot = warp_sum(dot);
  if (threadIdx.x % 32 == 0) delta[row] = dot;
}

/// A tile of queries owns its rows of dq and walks over the keys it sees.
template <int kSize, bool kDropout, typename T>
__global__ void __launch_bounds__(kThreads, 1)
    flash_backward_queries(Heads<T> dq, Heads<const T> dy, const float* lse, const float* delta,
                           Heads<const T> q, Heads<const T> k, Heads<const T> v, float scale,
                           WeightDropout dropout) {
  using Shape = Tiles<kSize>;
  constexpr int kTile = Shape::kTile, kMicro = Shape::kMicro;
  const int time = q.time, head = static_cast<int>(blockIdx.y);
  const int first = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kTile;
  float* q_tile = dynamic_shared<float>();
  float* dy_tile = q_tile + Shape::kFloats;
  float* k_tile = dy_tile + Shape::kFloats;
  float* v_tile = k_tile + Shape::kFloats;
  float* ds_tile = v_tile + Shape::kFloats;

  float2 sums[kMicro][Shape::kPairs] = {};
  float row_lse[kMicro], row_delta[kMicro];
  for (int i = 0; i < kMicro; ++i) {
    const int query = first + thread_y() * kMicro + i;
    const std::int64_t row = static_cast<std::int64_t>(head) * time + query;
    row_lse[i] = query < time ? lse[row] : kInfinity;  // weight 0 for queries past the end
    row_delta[i] = query < time ? delta[row] : 0.0F;
  }
  load_tile<kSize>(q_tile, q[head], first, time, q.size);
  load_tile<kSize>(dy_tile, dy[head], first, time, q.size);
  for (int key = 0; key <= first; key += kTile) {
    __syncthreads();
    load_tile<kSize>(k_tile, k[head], key, time, q.size);
    load_tile<kSize>(v_tile, v[head], key, time, q.size);
    __syncthreads();
    float p[kMicro][kMicro], ds[kMicro][kMicro];
    tile_scores<kSize>(p, q_tile, k_tile);
    tile_scores<kSize>(ds, dy_tile, v_tile);  // dP, before the dropout's mask
#pragma unroll
    for (int i = 0; i < kMicro; ++i)
#pragma unroll
      for (int j = 0; j < kMicro; ++j) {
        const int query = first + thread_y() * kMicro + i, at = key + thread_x() + 16 * j;
        if (kDropout) ds[i][j] *= dropout.factor(dropout.row_index(head, query, time) + at);
        const float weight = expf(p[i][j] * scale - row_lse[i]);
        ds[i][j] = at <= query ? weight * (ds[i][j] - row_delta[i]) : 0.0F;
      }
    store_weights<kSize>(ds_tile, ds);
    __syncwarp();
    tile_accumulate<kSize>(sums, ds_tile, k_tile);
  }
  float factor[kMicro];
  for (float& value : factor) value = scale;
  store_rows<kSize>(dq[head], sums, factor, first, time, q.size);
}

/// A tile of keys owns its rows of dk and dv and walks over the queries that see it. Everything is
/// transposed: the rows of p and ds are keys, their columns queries.
template <int kSize, bool kDropout, typename T>
__global__ void __launch_bounds__(kThreads, 1)
    flash_backward_keys(Heads<T> dk, Heads<T> dv, Heads<const T> dy, const float* lse, const float* delta,
                        Heads<const T> q, Heads<const T> k, Heads<const T> v, float scale,
                        WeightDropout dropout) {
  using Shape = Tiles<kSize>;
  constexpr int kTile = Shape::kTile, kMicro = Shape::kMicro;
  const int time = q.time, head = static_cast<int>(blockIdx.y);
  const int first = static_cast<int>(blockIdx.x) * kTile;
  float* k_tile = dynamic_shared<float>();
  float* v_tile = k_tile + Shape::kFloats;
  float* q_tile = v_tile + Shape::kFloats;
  float* dy_tile = q_tile + Shape::kFloats;
  float* weights = dy_tile + Shape::kFloats;

  float2 key_sums[kMicro][Shape::kPairs] = {}, value_sums[kMicro][Shape::kPairs] = {};
  load_tile<kSize>(k_tile, k[head], first, time, q.size);
  load_tile<kSize>(v_tile, v[head], first, time, q.size);
  for (int query = first; query < time; query += kTile) {
    __syncthreads();
    load_tile<kSize>(q_tile, q[head], query, time, q.size);
    load_tile<kSize>(dy_tile, dy[head], query, time, q.size);
    __syncthreads();
    float p[kMicro][kMicro], ds[kMicro][kMicro];
    tile_scores<kSize>(p, k_tile, q_tile);
    tile_scores<kSize>(ds, v_tile, dy_tile);
#pragma unroll
    for (int j = 0; j < kMicro; ++j) {
      const int at = query + thread_x() + 16 * j;
      const std::int64_t row = static_cast<std::int64_t>(head) * time + at;
      const float row_lse = at < time ? lse[row] : kInfinity;
      const float row_delta = at < time ? delta[row] : 0.0F;
#pragma unroll
      for (int i = 0; i < kMicro; ++i) {
        const int key = first + thread_y() * kMicro + i;
        const float factor = kDropout ? dropout.factor(dropout.row_index(head, at, time) + key) : 1.0F;
        const float weight = key <= at ? expf(p[i][j] * scale - row_lse) : 0.0F;
        ds[i][j] = key <= at ? weight * (factor * ds[i][j] - row_delta) : 0.0F;
        p[i][j] = factor * weight;
      }
    }
    store_weights<kSize>(weights, p);
    __syncwarp();
    tile_accumulate<kSize>(value_sums, weights, dy_tile);
    __syncwarp();
    store_weights<kSize>(weights, ds);
    __syncwarp();
    tile_accumulate<kSize>(key_sums, weights, q_tile);
  }
  float factor[kMicro];
  for (float& value : factor) value = 1;
  store_rows<kSize>(dv[head], value_sums, factor, first, time, q.size);
  for (float& value : factor) value = scale;
  store_rows<kSize>(dk[head], key_sums, factor, first, time, q.size);
}

template <int kSize>
LaunchConfig tiles_config(const AttentionSize& s, int tiles) {
  using Shape = Tiles<kSize>;
  const std::size_t floats = static_cast<std::size_t>(tiles * Shape::kFloats + Shape::kWeights);
  return {dim3(blocks_for(s.time, Shape::kTile), static_cast<unsigned>(s.batch * s.heads)), dim3(kThreads),
          floats * sizeof(float)};
}

template <typename T, int kSize>
void forward(const Tensor& y, const Tensor& lse, const Tensor& qkv, const AttentionSize& s,
             const AttentionOptions& options) {
  const T* from = static_cast<const T*>(qkv.raw());
  launch(options.dropout > 0 ? flash_forward<kSize, true, T> : flash_forward<kSize, false, T>,
         tiles_config<kSize>(s, 3), output(static_cast<T*>(y.raw()), s), lse.data(), part(from, 0, s),
         part(from, 1, s), part(from, 2, s), score_scale(s), WeightDropout(options));
}

template <typename T, int kSize>
void backward(const Tensor& dqkv, const Tensor& dy, const Tensor& y, const Tensor& lse, const Tensor& qkv,
              const AttentionSize& s, const AttentionOptions& options) {
  const T* from = static_cast<const T*>(qkv.raw());
  T* to = static_cast<T*>(dqkv.raw());
  const Heads<const T> dout = output(static_cast<const T*>(dy.raw()), s);
  const Tensor delta = Tensor::uninitialized(lse.shape(), DType::f32, Device::cuda);
  launch(row_dots<T>, {dim3(blocks_for(delta.numel(), kThreads / 32)), dim3(kThreads)}, delta.data(),
         output(static_cast<const T*>(y.raw()), s), dout, delta.numel());
  const bool drops = options.dropout > 0;
  launch(drops ? flash_backward_queries<kSize, true, T> : flash_backward_queries<kSize, false, T>,
         tiles_config<kSize>(s, 4), part(to, 0, s), dout, lse.data(), delta.data(), part(from, 0, s),
         part(from, 1, s), part(from, 2, s), score_scale(s), WeightDropout(options));
  launch(drops ? flash_backward_keys<kSize, true, T> : flash_backward_keys<kSize, false, T>,
         tiles_config<kSize>(s, 4), part(to, 1, s), part(to, 2, s), dout, lse.data(), delta.data(),
         part(from, 0, s), part(from, 1, s), part(from, 2, s), score_scale(s), WeightDropout(options));
}

}  // namespace

void attention_flash_forward(const Tensor& y, const Tensor& lse, const Tensor& qkv,
                             const AttentionOptions& options) {
  const AttentionSize s = check_flash_forward("attention_flash_forward", y, lse, qkv, options);
  check_on_cuda("attention_flash_forward", qkv, {DType::f32, DType::bf16});
  check_head_size("attention_flash_forward", s.head_size);
  check_alignment("attention_flash_forward", {&qkv, &y});
  if (qkv.numel() == 0) return;
  for_padded_size<32, 64, 128>(s.head_size, [&](auto size) {
    qkv.dtype() == DType::bf16 ? forward<__nv_bfloat16, size()>(y, lse, qkv, s, options)
                               : forward<float, size()>(y, lse, qkv, s, options);
  });
}

void attention_flash_backward(const Tensor& dqkv, const Tensor& dy, const Tensor& y, const Tensor& lse,
                              const Tensor& qkv, const AttentionOptions& options) {
  const AttentionSize s = check_flash_backward("attention_flash_backward", dqkv, dy, y, lse, qkv, options);
  check_on_cuda("attention_flash_backward", qkv, {DType::f32, DType::bf16});
  check_head_size("attention_flash_backward", s.head_size);
  check_alignment("attention_flash_backward", {&qkv, &dqkv, &y, &dy});
  if (qkv.numel() == 0) return;
  for_padded_size<32, 64, 128>(s.head_size, [&](auto size) {
    qkv.dtype() == DType::bf16 ? backward<__nv_bfloat16, size()>(dqkv, dy, y, lse, qkv, s, options)
                               : backward<float, size()>(dqkv, dy, y, lse, qkv, s, options);
  });
}

}  // namespace llm::cuda
