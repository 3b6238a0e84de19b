// Embedding: rows of a table picked by token id, plus rows of another picked by position. Chapter 2.
//
// Forward moves, per element of y, its own bytes and those of the token's row: 8 in f32, 4 in bf16 (the rows
// of the positions are shared by all sequences of the batch and stay in the caches).
//
// Backward must add up all rows of dy that belong to the same token. Atomic additions would do it in a
// different order every time. Instead the pairs (token, row) are sorted; no two are equal, so there is only
// one sorted order, whatever sorts them. Then the rows of a token lie side by side and are added in ascending
// order: each block takes 32 sorted rows, and where a token goes on into the next block's rows (the "," of a
// batch may have thousands), the blocks leave partial sums that a second kernel adds in order. This costs,
// for N rows, one pass of sorting tiles of 1024 pairs, then log2(N / 1024) passes of merging, each over 16 N
// bytes: of no account beside the rows of dy themselves. Floor: dy is read twice (tokens, positions: 8 bytes
// per element in f32, 4 in bf16), and for each token met a row of the table is read and written.
#include "common/ops/cuda/ids.cuh"
#include "common/ops/cuda/kernels.h"
#include "common/ops/cuda/pack.cuh"

namespace llm::cuda {

namespace {

constexpr int kThreads = 128;

/// The ids whose rows the table has, [first, first + rows) of `whole`: all, or the shard of one rank of
/// several that share a vocabulary (chapter 6).
struct Ids {
  int first, rows, whole;
  __device__ bool exists(int token) const { return token >= 0 && token < whole; }
  __device__ bool here(int token) const { return token >= first && token < first + rows; }
};
Ids ids_of(const Tensor& table, const VocabularyShard& shard) {
  const auto rows = static_cast<int>(table.dim(0));
  return {static_cast<int>(shard.first), rows, shard.whole > 0 ? static_cast<int>(shard.whole) : rows};
}

/// One thread per pack of y. position_table begins at the first position.
template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    embedding_forward_kernel(T* y, const std::int32_t* tokens, const T* token_table, const T* position_table,
                             unsigned packs, unsigned row_packs, unsigned time, Ids ids,
                             DeviceReport* report) {
  const unsigned pack = blockIdx.x * kThreads + threadIdx.x;
  if (pack >= packs) return;
  const unsigned row = pack / row_packs, column = pack % row_packs * N;
  const std::int64_t channels = std::int64_t{row_packs} * N;
  const int token = tokens[row];
  float v[N], p[N];
  if (ids.here(token)) {
    load(v, token_table + (token - ids.first) * channels + column);
  } else if (ids.exists(token)) {  // another rank's
#pragma unroll
    for (float& value : v) value = 0;
    store(y + std::int64_t{pack} * N, v);
    return;
  } else {
    if (column == 0) leave_note(report, DeviceComplaint::token_id, token, ids.whole);
#pragma unroll
    for (float& value : v) value = __uint_as_float(0x7fc00000u);  // NaN
  }
  load(p, position_table + row % time * channels + column);
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] += p[i];
  store(y + std::int64_t{pack} * N, v);
}

// ---- sorting (token, row) ---------------------------------------------------------------------------

using Key = unsigned long long;  // the token in the upper half, the row in the lower

constexpr int kTile = 1024, kSortThreads = kTile / 2;
constexpr Key kLast = ~Key{0};  // fills the last tile up; sorted behind everything

struct SortTile {
  Key keys[kTile];
};

/// Sorts each tile of 1024 keys (bitonic: Batcher 1968): whatever the keys, the same pairs are compared, so
/// all threads have the same to do.
__global__ void __launch_bounds__(kSortThreads)
    sort_tiles_kernel(Key* keys, const std::int32_t* tokens, std::int64_t rows) {
  auto& tile = block_shared<SortTile>();
  const std::int64_t first = std::int64_t{blockIdx.x} * kTile;
  const int thread = threadIdx.x;
  for (int i = thread; i < kTile; i += kSortThreads) {
    const std::int64_t row = first + i;
    tile.keys[i] =
        row < rows ? Key{static_cast<std::uint32_t>(tokens[row])} << 32 | static_cast<Key>(row) : kLast;
  }
  for (int size = 2; size <= kTile; size *= 2)
    for (int step = size / 2; step > 0; step /= 2) {
      __syncthreads();
      const int low = thread / step * 2 * step + thread % step, high = low + step;
      const bool ascending = (low & size) == 0;
      const Key a = tile.keys[low], b = tile.keys[high];
      if ((a > b) == ascending) {
        tile.keys[low] = b;
        tile.keys[high] = a;
      }
    }
  __syncthreads();
  for (int i = thread; i < kTile; i += kSortThreads)
    if (first + i < rows) keys[first + i] = tile.keys[i];
}

/// Merges pairs of sorted runs: a key's place is its place in its own run plus the number of smaller keys in
/// the other.
__global__ void __launch_bounds__(kThreads)
    merge_runs_kernel(Key* to, const Key* from, std::int64_t rows, std::int64_t run) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= rows) return;
  const Key key = from[i];
  const std::int64_t pair = i / (2 * run) * 2 * run, middle = min(rows, pair + run),
                     end = min(rows, pair + 2 * run);
  std::int64_t low = i < middle ? middle : pair, high = i < middle ? end : middle;
  const std::int64_t other = low;
  while (low < high) {
    const std::int64_t half = low + (high - low) / 2;
    if (from[half] < key)
      low = half + 1;
    else
      high = half;
  }
  to[pair + (i - (i < middle ? pair : middle)) + (low - other)] = key;
}

// ---- adding rows ----------------------------------------------------------------------------------

constexpr int kWindow = 32;  // sorted rows per block
constexpr int kAhead = 4;    // rows under way at a time

__device__ __forceinline__ unsigned token_of(Key key) {
  return static_cast<unsigned>(key >> 32);
}
__device__ __forceinline__ std::int64_t row_of(Key key) {
  return static_cast<std::int64_t>(key & 0xffffffffu);
}

/// Block (w, c) adds up the sorted rows of window w in kThreads packs of columns. What belongs to a token
/// whose rows all lie in this window is added to the table; the sum of a token that comes from the window
/// before goes to partial[w][0], that of one that goes on from here to partial[w][1].
template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    add_token_rows_kernel(float* table, float* partial, const T* dy, const Key* keys, std::int64_t rows,
                          int channels, Ids ids, DeviceReport* report) {
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * N;
  if (column >= channels) return;
  const std::int64_t first = std::int64_t{blockIdx.x} * kWindow, end = min(rows, first + kWindow);
  float* const head = partial + std::int64_t{blockIdx.x} * 2 * channels + column;
  bool from_before = first > 0 && token_of(keys[first - 1]) == token_of(keys[first]);
  float sum[N] = {};
  for (std::int64_t group = first; group < end; group += kAhead) {
    Key key[kAhead];
    float v[kAhead][N];
#pragma unroll
    for (int k = 0; k < kAhead; ++k)
      if (group + k < end) {
        key[k] = keys[group + k];
        load(v[k], dy + row_of(key[k]) * channels + column);
      }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const std::int64_t i = group + k;
      if (i >= end) continue;
#pragma unroll
      for (int e = 0; e < N; ++e) sum[e] += v[k][e];
      const auto token = static_cast<int>(token_of(key[k]));
      const bool goes_on = i + 1 < rows && token_of(keys[i + 1]) == token_of(key[k]);
      if (goes_on && i + 1 < end) continue;
      if (!ids.here(token)) {
        if (column == 0 && !ids.exists(token))
          leave_note(report, DeviceComplaint::token_id, token, ids.whole);
      } else if (from_before) {
        store(head, sum);
      } else if (goes_on) {
        store(head + channels, sum);
      } else {
        float* const to = table + std::int64_t{token - ids.first} * channels + column;
        float old[N];
        load(old, to);
#pragma unroll
        for (int e = 0; e < N; ++e) old[e] += sum[e];
        store(to, old);
      }
      from_before = false;
#pragma unroll
      for (int e = 0; e < N; ++e) sum[e] = 0;
    }
  }
}

/// Block (w, c): if a token's rows begin in window w and go on, its partial sums are added in order.
template <int N>
__global__ void __launch_bounds__(kThreads)
    add_partial_rows_kernel(float* table, const float* partial, const Key* keys, std::int64_t rows,
                            int channels, Ids ids) {
  const int column = static_cast<int>(blockIdx.y * kThreads + threadIdx.x) * N;
  std::int64_t window = blockIdx.x, end = (window + 1) * kWindow;
  if (column >= channels || end >= rows) return;
  const unsigned token = token_of(keys[end - 1]);
  if (token_of(keys[end]) != token || !ids.here(static_cast<int>(token))) return;
  const std::int64_t first = window * kWindow;
  if (first > 0 && token_of(keys[first]) == token && token_of(keys[first - 1]) == token)
    return;  // began before
  const std::int64_t stride = 2 * channels;
  float sum[N];
  load(sum, partial + window * stride + channels + column);
  while (true) {
    float v[N];
    load(v, partial + ++window * stride + column);
#pragma unroll
    for (int e = 0; e < N; ++e) sum[e] += v[e];
    end += kWindow;
    if (end >= rows || token_of(keys[end]) != token)
      break;  // sorted: what lies between is this token as well
  }
  float* const to = table + (std::int64_t{token} - ids.first) * channels + column;
  float old[N];
  load(old, to);
#pragma unroll
  for (int e = 0; e < N; ++e) old[e] += sum[e];
  store(to, old);
}

/// dposition_table[t] += the sum over b of dy[b, t]: one thread per pack of columns and position.
template <int N, typename T>
__global__ void __launch_bounds__(kThreads)
    add_position_rows_kernel(float* table, const T* dy, std::int64_t batch, std::int64_t plane) {
  const std::int64_t at = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) * N;
  if (at >= plane) return;
  float sum[N];
  load(sum, table + at);
#pragma unroll 4
  for (std::int64_t b = 0; b < batch; ++b) {
    float v[N];
    load(v, dy + b * plane + at);
#pragma unroll
    for (int e = 0; e < N; ++e) sum[e] += v[e];
  }
  store(table + at, sum);
}

/// The keys of all rows, sorted. Both buffers hold `rows` of them; returns the one that has the result.
const Key* sort_keys(Key* keys, Key* other, const std::int32_t* tokens, std::int64_t rows) {
  launch(sort_tiles_kernel, {blocks(divide_up(rows, kTile)), kSortThreads}, keys, tokens, rows);
  for (std::int64_t run = kTile; run < rows; run *= 2) {
    launch(merge_runs_kernel, {blocks(divide_up(rows, kThreads)), kThreads}, other, keys, rows, run);
    std::swap(keys, other);
  }
  return keys;
}

template <int N, typename T>
void add_rows(float* token_table, float* position_table, const T* dy, const std::int32_t* tokens,
              std::int64_t batch, std::int64_t time, int channels, Ids ids) {
  const std::int64_t rows = batch * time;
  const Tensor buffer = Tensor::uninitialized({2, rows, 2}, DType::i32, Device::cuda);
  Key* const keys = static_cast<Key*>(buffer.raw());
  const Key* const sorted = sort_keys(keys, keys + rows, tokens, rows);
  const std::int64_t windows = divide_up(rows, kWindow);
  const Tensor partial = Tensor::uninitialized({windows, 2, channels}, DType::f32, Device::cuda);
  const LaunchConfig config{dim3(blocks(windows), blocks(divide_up(channels, kThreads * N))), kThreads};
  launch(add_token_rows_kernel<N, T>, config, token_table, partial.data(), dy, sorted, rows, channels, ids,
         device_report());
  launch(add_partial_rows_kernel<N>, config, token_table, partial.data(), sorted, rows, channels, ids);
  launch(add_position_rows_kernel<N, T>, {blocks(divide_up(time * channels, kThreads * N)), kThreads},
         position_table, dy, batch, time * channels);
}

}  // namespace

void embedding_forward(const Tensor& y, const Tensor& tokens, const Tensor& token_table,
                       const Tensor& position_table, Index first_position, const VocabularyShard& shard) {
  if (y.numel() == 0) return;
  const std::int64_t channels = token_table.dim(1);
  by_type(y, [&]<typename T>() {
    T* const out = device_data<T>(y);
    const T* const table = device_data<const T>(token_table);
    const T* const positions = device_data<const T>(position_table) + first_position * channels;
    const auto go = [&](auto kernel, std::int64_t n) {
      const std::int64_t packs = y.numel() / n;
      launch(kernel, {blocks(divide_up(packs, kThreads)), kThreads}, out, tokens.data<std::int32_t>(), table,
             positions, static_cast<unsigned>(packs), static_cast<unsigned>(channels / n),
             static_cast<unsigned>(tokens.dim(1)), ids_of(token_table, shard), device_report());
    };
    if (channels % kPack<T> == 0 && aligned(out, table, positions))
      go(embedding_forward_kernel<kPack<T>, T>, kPack<T>);
    else
      go(embedding_forward_kernel<1, T>, 1);
  });
}

void embedding_backward(const Tensor& dtoken_table, const Tensor& dposition_table, const Tensor& dy,
                        const Tensor& tokens, Index first_position, const VocabularyShard& shard) {
  if (dy.numel() == 0) return;
  const auto channels = static_cast<int>(dtoken_table.dim(1));
  float* const table = dtoken_table.data();
  float* const positions = dposition_table.data() + first_position * channels;
  by_type(dy, [&]<typename T>() {
    const T* const grad = device_data<const T>(dy);
    const bool packed = channels % kPack<T> == 0 && aligned(table, positions, grad);
    const auto go = packed ? add_rows<kPack<T>, T> : add_rows<1, T>;
    go(table, positions, grad, tokens.data<std::int32_t>(), tokens.dim(0), tokens.dim(1), channels,
       ids_of(dtoken_table, shard));
  });
}

}  // namespace llm::cuda
