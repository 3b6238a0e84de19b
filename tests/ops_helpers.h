// What the tests of the primitives share: golden files, distances, runs with several thread counts.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "common/core/philox.h"
#include "common/core/threads.h"
#include "common/model/safetensors.h"
#include "common/ops/ops.h"

namespace llm::testing {

/// A file of tests/golden/ops.py: tensors "CASE.NAME".
class Golden {
 public:
  explicit Golden(const std::string& name)
      : file_(std::string(LLM_GOLDEN_DIR) + "/ops_" + name + ".safetensors") {}

  bool has(int number, const std::string& name) const { return file_.find(key(number, name)) != nullptr; }
  int cases() const {
    int count = 0;
    for (const SafetensorsEntry& entry : file_.entries()) count = std::max(count, std::stoi(entry.name) + 1);
    return count;
  }
  Tensor tensor(int number, const std::string& name) const {
    const SafetensorsEntry* entry = file_.find(key(number, name));
    check(entry != nullptr, "the golden file has no tensor {}", key(number, name));
    Tensor t(entry->shape);
    file_.read(*entry, t.span());
    return t;
  }
  /// The tensor if there is one, else an undefined one.
  Tensor optional(int number, const std::string& name) const {
    return has(number, name) ? tensor(number, name) : Tensor();
  }
  Tensor ids(int number, const std::string& name) const {
    const Tensor numbers = tensor(number, name);
    Tensor t(numbers.shape(), DType::i32);
    for (std::int64_t i = 0; i < t.numel(); ++i)
      t.data<std::int32_t>()[i] = static_cast<std::int32_t>(numbers.data()[i]);
    return t;
  }

 private:
  static std::string key(int number, const std::string& name) { return std::to_string(number) + "." + name; }
  SafetensorsFile file_;
};

/// Standard normal numbers times `scale`.
inline Tensor normal(Shape shape, std::uint64_t stream, float scale = 1) {
  Tensor t(std::move(shape));
  const Philox rng{99, stream};
  for (std::int64_t i = 0; i < t.numel(); ++i)
    t.data()[i] = scale * rng.normal(static_cast<std::uint64_t>(i));
  return t;
}
inline Tensor integers(Shape shape, std::int64_t below, std::uint64_t stream) {
  Tensor t(std::move(shape), DType::i32);
  PhiloxSequence rng(99, stream);
  for (std::int32_t& value : t.span<std::int32_t>())
    value = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(below)));
  return t;
}
/// A scratch tensor full of NaN: whoever reads it before writing it is found out.
inline Tensor poisoned(Shape shape) {
  Tensor t(std::move(shape));
  t.fill(std::nanf(""));
  return t;
}

/// Two distances must be at most `bound`: ||a - b|| / ||b|| in the Euclidean norm, and the largest |a - b|
/// over the largest |b|. Sums of n float32 products err by about sqrt(n) 6e-8 of their size, so 1e-5 leaves
/// room up to n of some ten thousand, and is far below what any wrong formula gives.
inline void expect_close(const Tensor& a, const Tensor& b, const std::string& what, double bound = 1e-5) {
  ASSERT_EQ(a.numel(), b.numel()) << what;
  double difference = 0, norm = 0, worst = 0, largest = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    const double d = static_cast<double>(a.data()[i]) - b.data()[i];
    ASSERT_FALSE(std::isnan(d)) << what << ", element " << i << ": " << a.data()[i] << " and " << b.data()[i];
    difference += d * d;
    norm += static_cast<double>(b.data()[i]) * b.data()[i];
    worst = std::max(worst, std::abs(d));
    largest = std::max(largest, std::abs(static_cast<double>(b.data()[i])));
  }
  // A result that is 0 exactly (no gradient at all) leaves only rounding: compare with 1.
  if (largest < 1e-12) norm = largest = 1;
  EXPECT_LE(std::sqrt(difference / norm), bound) << what << ", Euclidean norm";
  EXPECT_LE(worst / largest, bound) << what << ", largest element";
}

/// Runs `compute` (which returns its results) with 1, 2, 3 and 5 threads; all must give the same bits.
inline void expect_same_bits_for_all_thread_counts(const std::string& what,
                                                   const std::function<std::vector<Tensor>()>& compute) {
  const int before = thread_count();
  set_thread_count(1);
  const std::vector<Tensor> alone = compute();
  for (const int threads : {2, 3, 5}) {
    set_thread_count(threads);
    const std::vector<Tensor> shared = compute();
    for (std::size_t i = 0; i < alone.size(); ++i)
      EXPECT_EQ(std::memcmp(alone[i].raw(), shared[i].raw(), alone[i].bytes()), 0)
          << what << ", result " << i << ", " << threads << " threads";
  }
  set_thread_count(before);
}

/// `call` must throw an Error whose sentence is exactly this.
inline void expect_error(const std::string& sentence, const std::function<void()>& call) {
  try {
    call();
    ADD_FAILURE() << "no error: " << sentence;
  } catch (const Error& error) {
    EXPECT_EQ(sentence, error.what());
  }
}

}  // namespace llm::testing
