// Attention while generating: one new query per sequence over the keys and values kept from before.
// Chapter 5.
//
// There is nothing to multiply twice: the step reads the cache once, and that is its time. But B H blocks of
// one query each leave most of a GPU idle and its memory unasked, so a head's cache is cut into pieces for
// several blocks ("flash-decoding", Dao et al. 2023), each of which keeps a running softmax over its piece:
// maximum, sum and weighted values. A second kernel joins the pieces by the same repair. The same happens
// inside a block, where 8 lanes take a key and 16 such groups take a key each.
//
// Roofline: 2 (S + 1) D numbers per head are read. GPT-2 124M at S = 1024, B = 1, bf16: 3 MB per layer, 1 us
// at 3.35 TB/s, less than a launch takes: generation of small models is bound by launches, not by this
// kernel.
#include "common/ops/cuda/attention.cuh"
#include "common/ops/cuda/pack.cuh"

namespace llm::cuda {

namespace {

constexpr int kThreads = 128;
constexpr int kLanes = 8;  // per key
constexpr int kGroups = kThreads / kLanes;
constexpr int kPiece = 256;       // positions, at least, per block
constexpr int kBlocks = 2 * 132;  // wanted: two for each multiprocessor of an H100

/// A running softmax over some keys: weights are exp(score - maximum).
struct Partial {
  float maximum, total;
};

/// Each thread writes one element of a key and of a value.
template <typename T>
__global__ void fill_cache(T* key_cache, T* value_cache, Heads<const T> k, Heads<const T> v, int capacity,
                           int first, std::int64_t count) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const auto d = static_cast<int>(i % k.size), t = static_cast<int>(i / k.size % k.time);
  const auto head = static_cast<int>(i / k.size / k.time);
  const std::int64_t to = (static_cast<std::int64_t>(head) * capacity + first + t) * k.size + d;
  key_cache[to] = k[head].row(t)[d];
  value_cache[to] = v[head].row(t)[d];
}

/// The part of a head that one of 8 lanes holds: 4 channels of every 32.
template <int kSize>
struct LaneChannels {
  float4 quads[kSize / 32];
};
template <int kSize, typename T>
__device__ LaneChannels<kSize> load_channels(const T* from, int size) {
  LaneChannels<kSize> channels;
#pragma unroll
  for (int c = 0; c < kSize / 32; ++c) {
    const int d = 32 * c + 4 * static_cast<int>(threadIdx.x % kLanes);
    channels.quads[c] = d < size ? load4(from + d) : make_float4(0, 0, 0, 0);
  }
  return channels;
}

/// Grid (pieces, B H). Writes the new key and value (position `length`) into the caches, and either the
/// result (if there is one piece) or the piece's partial result: partials (B H, pieces), sums (B H, pieces,
/// D).
template <int kSize, typename T>
__global__ void __launch_bounds__(kThreads)
    decode_piece(T* y, Partial* partials, float* sums, T* key_cache, T* value_cache, Heads<const T> q,
                 Heads<const T> k, Heads<const T> v, int capacity, int length, int piece, float scale) {
  struct Shared {
    Partial groups[kGroups];
    float out[kGroups][kSize];
  };
  Shared& shared = block_shared<Shared>();
  const auto head = static_cast<int>(blockIdx.y), size = q.size;
  const int group = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t cache = static_cast<std::int64_t>(head) * capacity * size;
  const int first = static_cast<int>(blockIdx.x) * piece, last = min(first + piece, length + 1);

  const LaneChannels<kSize> query = load_channels<kSize>(q[head].row(0), size);
  LaneChannels<kSize> out = {};
  Partial here = {-kInfinity, 0};
  for (int t = first; t < last; t += kGroups) {  // all groups of a warp stay in step
    const int at = t + group;
    const bool cached = at < length;  // else the new position, or past the end
    const std::int64_t row = cache + static_cast<std::int64_t>(at) * size;
    const LaneChannels<kSize> key = load_channels<kSize>(cached ? key_cache + row : k[head].row(0), size);
    const LaneChannels<kSize> value = load_channels<kSize>(cached ? value_cache + row : v[head].row(0), size);
    float score = 0;
#pragma unroll
    for (int c = 0; c < kSize / 32; ++c)
      score += query.quads[c].x * key.quads[c].x + query.quads[c].y * key.quads[c].y +
               query.quads[c].z * key.quads[c].z + query.quads[c].w * key.quads[c].w;
    for (int distance = kLanes / 2; distance > 0; distance /= 2)
      score += __shfl_xor_sync(0xffffffffU, score, distance);
    if (at >= last) continue;
    score *= scale;
    const float highest = fmaxf(here.maximum, score);
    const float repair = expf(here.maximum - highest), weight = expf(score - highest);
    here = {highest, here.total * repair + weight};
#pragma unroll
    for (int c = 0; c < kSize / 32; ++c) {
      out.quads[c].x = out.quads[c].x * repair + weight * value.quads[c].x;
      out.quads[c].y = out.quads[c].y * repair + weight * value.quads[c].y;
      out.quads[c].z = out.quads[c].z * repair + weight * value.quads[c].z;
      out.quads[c].w = out.quads[c].w * repair + weight * value.quads[c].w;
    }
  }
  if (last == length + 1)
    for (int d = static_cast<int>(threadIdx.x); d < size; d += kThreads) {
      key_cache[cache + static_cast<std::int64_t>(length) * size + d] = k[head].row(0)[d];
      value_cache[cache + static_cast<std::int64_t>(length) * size + d] = v[head].row(0)[d];
    }

  if (lane == 0) shared.groups[group] = here;
#pragma unroll
  for (int c = 0; c < kSize / 32; ++c)
    *reinterpret_cast<float4*>(&shared.out[group][32 * c + 4 * lane]) = out.quads[c];
  __syncthreads();
  float maximum = -kInfinity, total = 0;
  for (const Partial& each : shared.groups) maximum = fmaxf(maximum, each.maximum);
  for (const Partial& each : shared.groups) total += each.total * expf(each.maximum - maximum);
  const std::int64_t part_index = static_cast<std::int64_t>(head) * gridDim.x + blockIdx.x;
  for (int d = static_cast<int>(threadIdx.x); d < size; d += kThreads) {
    float sum = 0;
    for (int g = 0; g < kGroups; ++g) sum += shared.out[g][d] * expf(shared.groups[g].maximum - maximum);
    if (gridDim.x == 1)
      y[static_cast<std::int64_t>(head) * size + d] = from_float<T>(sum / total);
    else
      sums[part_index * size + d] = sum;
  }
  if (threadIdx.x == 0 && gridDim.x > 1) partials[part_index] = {maximum, total};
}

/// Grid (B H): joins a head's pieces, a thread per channel.
template <typename T>
__global__ void join_pieces(T* y, const Partial* partials, const float* sums, int pieces, int size) {
  const std::int64_t head = blockIdx.x, first = head * pieces;
  float maximum = -kInfinity, total = 0, sum = 0;
  const auto d = static_cast<int>(threadIdx.x);
  for (int i = 0; i < pieces; ++i) maximum = fmaxf(maximum, partials[first + i].maximum);
  for (int i = 0; i < pieces; ++i) {
    const float repair = expf(partials[first + i].maximum - maximum);
    total += partials[first + i].total * repair;
    if (d < size) sum += sums[(first + i) * size + d] * repair;
  }
  if (d < size) y[head * size + d] = from_float<T>(sum / total);
}

template <typename T, int kSize>
void decode(const Tensor& y, const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
            std::int64_t length, const AttentionSize& s) {
  // The cut depends on the sizes alone, so the result has the same bits on every device.
  const std::int64_t heads = s.batch * s.heads;
  const std::int64_t wanted =
      std::min<std::int64_t>(blocks_for(length + 1, kPiece), blocks_for(kBlocks, heads));
  const std::int64_t piece = blocks_for(length + 1, wanted);
  const unsigned pieces = blocks_for(length + 1, piece);
  const T* from = static_cast<const T*>(qkv.raw());
  T* out = static_cast<T*>(y.raw());
  Tensor partials, sums;
  if (pieces > 1) {
    partials = Tensor::uninitialized({heads, pieces, 2}, DType::f32, Device::cuda);
    sums = Tensor::uninitialized({heads, pieces, s.head_size}, DType::f32, Device::cuda);
  }
  auto* joints = static_cast<Partial*>(partials.raw());
  float* weighted = static_cast<float*>(sums.raw());
  launch(decode_piece<kSize, T>, {dim3(pieces, static_cast<unsigned>(heads)), dim3(kThreads)}, out, joints,
         weighted, static_cast<T*>(key_cache.raw()), static_cast<T*>(value_cache.raw()), part(from, 0, s),
         part(from, 1, s), part(from, 2, s), static_cast<int>(key_cache.dim(2)), static_cast<int>(length),
         static_cast<int>(piece), score_scale(s));
  if (pieces > 1)
    launch(join_pieces<T>, {dim3(static_cast<unsigned>(heads)), dim3(kThreads)}, out, joints, weighted,
           static_cast<int>(pieces), static_cast<int>(s.head_size));
}

}  // namespace

void attention_decode(const Tensor& y, const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                      std::int64_t length, std::int64_t heads) {
  const AttentionSize s = check_decode("attention_decode", y, key_cache, value_cache, qkv, length, heads);
  check_on_cuda("attention_decode", qkv, {DType::f32, DType::bf16});
  check_head_size("attention_decode", s.head_size);
  check_alignment("attention_decode", {&qkv, &key_cache, &value_cache});
  if (qkv.numel() == 0) return;
  for_padded_size<32, 64, 128>(s.head_size, [&](auto size) {
    qkv.dtype() == DType::bf16 ? decode<__nv_bfloat16, size()>(y, key_cache, value_cache, qkv, length, s)
                               : decode<float, size()>(y, key_cache, value_cache, qkv, length, s);
  });
}

void attention_fill_cache(const Tensor& key_cache, const Tensor& value_cache, const Tensor& qkv,
                          std::int64_t first, std::int64_t heads) {
  const AttentionSize s = check_fill_cache("attention_fill_cache", key_cache, value_cache, qkv, first, heads);
  check_on_cuda("attention_fill_cache", qkv, {DType::f32, DType::bf16});
  if (qkv.numel() == 0) return;
  const std::int64_t count = qkv.numel() / 3;
  const LaunchConfig config = {dim3(blocks_for(count, kThreads)), dim3(kThreads)};
  const auto capacity = static_cast<int>(key_cache.dim(2)), start = static_cast<int>(first);
  const auto fill = [&](auto* to_keys, auto* to_values, const auto* from) {
    launch(fill_cache<std::remove_pointer_t<decltype(to_keys)>>, config, to_keys, to_values, part(from, 1, s),
           part(from, 2, s), capacity, start, count);
  };
  if (qkv.dtype() == DType::bf16)
    fill(static_cast<__nv_bfloat16*>(key_cache.raw()), static_cast<__nv_bfloat16*>(value_cache.raw()),
         static_cast<const __nv_bfloat16*>(qkv.raw()));
  else
    fill(key_cache.data(), value_cache.data(), static_cast<const float*>(qkv.data()));
}

}  // namespace llm::cuda
