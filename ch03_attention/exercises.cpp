// Your answers to the exercises of chapter 3 that run on the CPU; those with kernels stand in exercises.cu.
// What each function must do is in exercises.h.
#include "ch03_attention/exercises.h"

#include <cmath>

namespace llm::exercises::ch03 {

// 3.1
void softmax_row(std::span<float> x) {
  not_started();  // your code instead of this line
}

// 3.2
std::vector<float> causal_head(std::span<const float> q, std::span<const float> k, std::span<const float> v,
                               std::int64_t head_size) {
  not_started();  // your code instead of this line
}

// 3.3
std::vector<float> split_heads(std::span<const float> x, std::int64_t batch, std::int64_t tokens,
                               std::int64_t channels, std::int64_t heads) {
  not_started();  // your code instead of this line
}

std::vector<float> merge_heads(std::span<const float> split, std::int64_t batch, std::int64_t tokens,
                               std::int64_t channels, std::int64_t heads) {
  not_started();  // your code instead of this line
}

// 3.4
std::vector<float> softmax_backward_row(std::span<const float> dy, std::span<const float> y) {
  not_started();  // your code instead of this line
}

// 3.5
void causal_mask(std::span<float> scores, std::int64_t queries, std::int64_t keys) {
  not_started();  // your code instead of this line
}

// 3.6
HeadGradients causal_head_backward(std::span<const float> dy, std::span<const float> q,
                                   std::span<const float> k, std::span<const float> v,
                                   std::int64_t head_size) {
  not_started();  // your code instead of this line
}

}  // namespace llm::exercises::ch03
