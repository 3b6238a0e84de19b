// Layer norm (Ba, Kiros and Hinton 2016): each row is shifted and scaled to mean 0 and variance 1, then by
// learned gamma and beta. Chapter 4.
//
// A row of 768 floats is 3 KB: it stays in the first-level cache while it is read several times, so memory
// sees each row once.
#include <algorithm>
#include <cmath>
#include <vector>

#include "common/core/threads.h"
#include "common/ops/cpu/kernels.h"
#include "common/ops/cpu/vec.h"

namespace llm::cpu {

namespace {

constexpr Index kGrain = 16;  // rows

/// Sum over a row of f(element index, lanes that count).
template <typename F>
inline float row_sum(Index count, const F& f) {
  Vec total[2] = {};
  Index c = 0;
  for (; c + 2 * kLanes <= count; c += 2 * kLanes) {
    total[0] += f(c, kLanes);
    total[1] += f(c + kLanes, kLanes);
  }
  for (; c < count; c += kLanes) total[0] += f(c, std::min(kLanes, count - c));
  return sum(total[0] + total[1]);
}

}  // namespace

void layer_norm_forward(float* y, float* mean, float* rstd, const float* x, const float* gamma,
                        const float* beta, Index rows, Index channels, float eps) {
  parallel_for(rows, kGrain, [=](Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const float* in = x + row * channels;
      float* out = y + row * channels;
      const float m = row_sum(channels, [&](Index c, Index n) { return load_up_to(in + c, n); }) /
                      static_cast<float>(channels);
      const float variance = row_sum(channels,
                                     [&](Index c, Index n) {
                                       // The lanes past the end hold m, so that they add (m - m)^2.
                                       const Vec d =
                                           (n == kLanes ? load(in + c) : load_part(in + c, n, m)) - m;
                                       return d * d;
                                     }) /
                             static_cast<float>(channels);
      const float r = 1.0F / std::sqrt(variance + eps);
      mean[row] = m;
      rstd[row] = r;
      if (beta) {
#pragma GCC ivdep
        for (Index c = 0; c < channels; ++c) out[c] = (in[c] - m) * r * gamma[c] + beta[c];
      } else {
#pragma GCC ivdep
        for (Index c = 0; c < channels; ++c) out[c] = (in[c] - m) * r * gamma[c];
      }
    }
  });
}

void add_layer_norm_forward(float* sum, float* y, float* mean, float* rstd, const float* a, const float* b,
                            const float* gamma, const float* beta, Index rows, Index channels, float eps) {
  // A few rows at a time: the sum is still in the cache when it is normalised.
  parallel_for(rows, kGrain, [=](Index begin, Index end) {
    for (Index row = begin; row < end; row += kGrain) {
      const Index first = row * channels, count = std::min(kGrain, end - row);
      add(sum + first, a + first, b + first, count * channels);
      layer_norm_forward(y + first, mean + row, rstd + row, sum + first, gamma, beta, count, channels, eps);
    }
  });
}

// With n = (x - mean) rstd and g = dy gamma:  dx = rstd (g - mean(g) - n mean(g n)), dgamma = sum dy n, dbeta
// = sum dy.
//
// Rows are taken in pieces of a fixed size. Each piece sums its own dgamma and dbeta; the pieces are then
// added in order, so that the result is the same for every number of threads.
void layer_norm_backward(float* dx, float* dgamma, float* dbeta, const float* dy, const float* x,
                         const float* gamma, const float* mean, const float* rstd, const float* dresidual,
                         Index rows, Index channels) {
  const Index piece = std::max<Index>(kGrain, (rows + 31) / 32);
  const Index pieces = (rows + piece - 1) / piece;
  static thread_local std::vector<float> buffer;  // (pieces, 2, C), kept for the next call
  buffer.assign(static_cast<std::size_t>(pieces * 2 * channels), 0.0F);
  float* const sums = buffer.data();

  parallel_for(pieces, 1, [=](Index begin, Index end) {
    for (Index row = begin * piece; row < std::min(rows, end * piece); ++row) {
      const float* in = x + row * channels;
      const float* grad = dy + row * channels;
      float* piece_dgamma = sums + row / piece * 2 * channels;
      float* piece_dbeta = piece_dgamma + channels;
      const float m = mean[row];
      const float r = rstd[row];
      const float over = 1.0F / static_cast<float>(channels);
      const float mean_g = over * row_sum(channels, [&](Index c, Index n) {
                             return load_up_to(grad + c, n) * load_up_to(gamma + c, n);
                           });
      const float mean_gn =
          over * row_sum(channels, [&](Index c, Index n) {
            return load_up_to(grad + c, n) * load_up_to(gamma + c, n) * ((load_up_to(in + c, n) - m) * r);
          });
      float* out = dx + row * channels;
      const float* residual = dresidual ? dresidual + row * channels : nullptr;
      for (Index c = 0; c < channels; c += kLanes) {
        const Index n = std::min(kLanes, channels - c);
        const Vec normal = (load_up_to(in + c, n) - m) * r;
        const Vec up = load_up_to(grad + c, n), factor = load_up_to(gamma + c, n);
        store_up_to(piece_dgamma + c, load_up_to(piece_dgamma + c, n) + up * normal, n);
        if (dbeta) store_up_to(piece_dbeta + c, load_up_to(piece_dbeta + c, n) + up, n);
        const auto down = [&](int i) {
          return r * (up.part[i] * factor.part[i] - mean_g - normal.part[i] * mean_gn);
        };
        if (residual) {
          const Vec rest = load_up_to(residual + c, n);
          store_up_to(out + c, from_parts([&](int i) { return rest.part[i] + down(i); }), n);
        } else {
          store_up_to(out + c, from_parts(down), n);
        }
      }
    }
  });

  for (Index i = 0; i < pieces; ++i) {
    const float* piece_dgamma = sums + i * 2 * channels;
    const float* piece_dbeta = piece_dgamma + channels;
#pragma GCC ivdep
    for (Index c = 0; c < channels; ++c) dgamma[c] += piece_dgamma[c];
    if (dbeta) {
#pragma GCC ivdep
      for (Index c = 0; c < channels; ++c) dbeta[c] += piece_dbeta[c];
    }
  }
}

}  // namespace llm::cpu
