#include <algorithm>

#include "common/core/error.h"
#include "tests/exercises/selftest/exercises.h"

namespace llm::exercises::ch00 {

int sum(const std::vector<int>& values) {
  int total = 0;
  for (const int value : values) total += value;
  return total;
}

void scale(std::vector<float>& values) {
  const float largest = *std::max_element(values.begin(), values.end());
  for (float& value : values) value /= largest;
}

long factorial(int n) {
  check(n >= 0, "there is no factorial of {}", n);
  return n <= 1 ? 1 : n * factorial(n - 1);
}

}  // namespace llm::exercises::ch00
