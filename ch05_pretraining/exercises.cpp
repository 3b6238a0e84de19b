// Your answers to the exercises of chapter 5. What each function has to do stands in exercises.h.
#include "ch05_pretraining/exercises.h"

namespace llm::exercises::ch05 {

// 5.1
double scheduled_rate(std::int64_t step, double peak, double floor, std::int64_t warmup, std::int64_t steps) {
  not_started();  // your code instead of this line
}

// 5.2
void adamw_step(std::span<float> w, std::span<float> m, std::span<float> v, std::span<const float> g,
                double rate, double beta1, double beta2, double eps, double decay, std::int64_t t) {
  not_started();
}

// 5.3
double clip_gradients(std::vector<std::span<float>> gradients, double limit) {
  not_started();
}

// 5.4
std::vector<Choice> sampling_choices(std::span<const float> logits, double temperature, std::int64_t k,
                                     double p) {
  not_started();
}

}  // namespace llm::exercises::ch05
