// Causal multi-head attention as the formula says it (Vaswani et al. 2017, section 3.2.1): all T x T scores
// of a head, the mask, softmax, the weighted sum of values. Chapter 3.
//
// The first of two: short, with every weight there to look at. attention_flash.cpp computes the same without
// ever storing the scores.
#include <Eigen/Core>
#include <cmath>

#include "common/core/threads.h"
#include "common/ops/cpu/kernels.h"

namespace llm::cpu {

namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Square = Eigen::Map<Matrix>;
using ConstSquare = Eigen::Map<const Matrix>;
/// A (T, D) matrix of which one row is `stride` floats after the other: one head's part of a (T, 3C) or (T,
/// C) one.
using Head = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;
using ConstHead = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;

/// One head of one sequence: where its parts begin.
struct Place {
  Index index;    // b H + h
  Index qkv, y;   // first element within (B, T, 3C) and (B, T, C)
  Index weights;  // ... within (B, H, T, T)
  Index dropout;  // ... within (B, all heads, T, T)
  Eigen::OuterStride<> qkv_stride, y_stride;
};
Place place_of(Index index, const AttentionSize& s, const AttentionOptions& options) {
  const Index b = index / s.heads;
  const Index h = index % s.heads;
  return {index,
          b * s.time * 3 * s.channels() + h * s.head_size,
          b * s.time * s.channels() + h * s.head_size,
          index * s.time * s.time,
          numbered_head(index, options) * s.time * s.time,
          Eigen::OuterStride<>(3 * s.channels()),
          Eigen::OuterStride<>(s.channels())};
}

/// The weights as applied to the values: with dropout, some are 0 and the others grow.
Matrix dropped(const ConstSquare& weights, const Place& at, const AttentionOptions& options) {
  Matrix result = weights;
  if (options.dropout > 0) {
    const auto count = static_cast<Index>(weights.size());
    Matrix scale(weights.rows(), weights.cols());
    dropout_scale(scale.data(), count, options.dropout, options.rng,
                  options.first_index + static_cast<std::uint64_t>(at.dropout));
    result.array() *= scale.array();
  }
  return result;
}

}  // namespace

void attention_naive_forward(float* y, float* weights, const float* qkv, const AttentionSize& s,
                             const AttentionOptions& options) {
  const float scale = 1.0F / std::sqrt(static_cast<float>(s.head_size));
  parallel_for(s.batch * s.heads, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Place at = place_of(i, s, options);
      const ConstHead q(qkv + at.qkv, s.time, s.head_size, at.qkv_stride);
      const ConstHead k(qkv + at.qkv + s.channels(), s.time, s.head_size, at.qkv_stride);
      const ConstHead v(qkv + at.qkv + 2 * s.channels(), s.time, s.head_size, at.qkv_stride);
      Square p(weights + at.weights, s.time, s.time);

      p.noalias() = scale * q * k.transpose();  // (T, D) (D, T) -> (T, T)
      for (Index t = 0; t < s.time; ++t) {      // position t sees positions 0 ... t
        float* row = p.data() + t * s.time;
        const float total = row_exp(row, row, t + 1, row_max(row, t + 1));
        p.row(t).head(t + 1) /= total;
        p.row(t).tail(s.time - t - 1).setZero();
      }
      Head out(y + at.y, s.time, s.head_size, at.y_stride);
      if (options.dropout > 0)
        out.noalias() = dropped(ConstSquare(p.data(), s.time, s.time), at, options) * v;
      else
        out.noalias() = p * v;  // (T, T) (T, D) -> (T, D)
    }
  });
}

// With P the weights and M the dropout's mask and scale (1 without):
//   dV = (M P)^T dY,  dP = M (dY V^T),  dS = P (dP - rowsum(P dP)),  dQ = dS K / sqrt(D),  dK = dS^T Q /
//   sqrt(D).
void attention_naive_backward(float* dqkv, const float* dy, const float* weights, const float* qkv,
                              const AttentionSize& s, const AttentionOptions& options) {
  const float scale = 1.0F / std::sqrt(static_cast<float>(s.head_size));
  parallel_for(s.batch * s.heads, 1, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const Place at = place_of(i, s, options);
      const ConstHead q(qkv + at.qkv, s.time, s.head_size, at.qkv_stride);
      const ConstHead k(qkv + at.qkv + s.channels(), s.time, s.head_size, at.qkv_stride);
      const ConstHead v(qkv + at.qkv + 2 * s.channels(), s.time, s.head_size, at.qkv_stride);
      Head dq(dqkv + at.qkv, s.time, s.head_size, at.qkv_stride);
      Head dk(dqkv + at.qkv + s.channels(), s.time, s.head_size, at.qkv_stride);
      Head dv(dqkv + at.qkv + 2 * s.channels(), s.time, s.head_size, at.qkv_stride);
      const ConstHead dout(dy + at.y, s.time, s.head_size, at.y_stride);
      const ConstSquare p(weights + at.weights, s.time, s.time);

      const Matrix used = dropped(p, at, options);
      dv.noalias() = used.transpose() * dout;
      Matrix ds = dout * v.transpose();  // dP before the dropout's mask, (T, T)
      for (Index t = 0; t < s.time; ++t) {
        // P dP, with the mask on either factor, is (M P) (dY V^T).
        const float dot = used.row(t).head(t + 1).dot(ds.row(t).head(t + 1));
        for (Index j = 0; j <= t; ++j) ds(t, j) = used(t, j) * ds(t, j) - p(t, j) * dot;
        ds.row(t).tail(s.time - t - 1).setZero();
      }
      dq.noalias() = scale * ds * k;
      dk.noalias() = scale * ds.transpose() * q;
    }
  });
}

}  // namespace llm::cpu
