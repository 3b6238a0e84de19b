// Your answers to the exercises of chapter 7. What each function has to do stands in exercises.h.
#include "ch07_finetuning/exercises.h"

namespace llm::exercises::ch07 {

// 7.1
std::vector<float> class_logits(std::span<const float> hidden, std::span<const std::int64_t> lengths,
                                std::int64_t tokens, std::int64_t channels, std::span<const float> weight,
                                std::span<const float> bias) {
  not_started();  // your code instead of this line
}

// 7.2
Rows collate(std::span<const Conversation> examples, std::int32_t padding, bool mask_prompt) {
  not_started();
}

// 7.3
std::vector<float> lora_forward(std::span<const float> x, std::span<const float> w, std::span<const float> a,
                                std::span<const float> b, std::int64_t in, std::int64_t out,
                                std::int64_t rank, float alpha) {
  not_started();
}

// 7.4
LoraGradients lora_backward(std::span<const float> dy, std::span<const float> x, std::span<const float> w,
                            std::span<const float> a, std::span<const float> b, std::int64_t in,
                            std::int64_t out, std::int64_t rank, float alpha) {
  not_started();
}

// 7.5
std::vector<float> lora_merge(std::span<const float> w, std::span<const float> a, std::span<const float> b,
                              std::int64_t in, std::int64_t out, std::int64_t rank, float alpha) {
  not_started();
}

// 7.6
PairLoss dpo(double chosen, double rejected, double reference_chosen, double reference_rejected,
             double beta) {
  not_started();
}

// 7.7
std::vector<double> advantages(std::span<const double> rewards) {
  not_started();
}

// 7.8
TokenGain clipped_gain(double now, double old, double advantage, double clip) {
  not_started();
}

// 7.9
std::size_t choose(std::span<const double> scores, std::span<const std::string> choices, bool normalised) {
  not_started();
}

}  // namespace llm::exercises::ch07
