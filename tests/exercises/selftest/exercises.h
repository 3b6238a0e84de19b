// Exercises of no chapter: they test the mechanism of tests/exercises.
#pragma once

#include <vector>

#include "tests/exercises/not_started.h"

namespace llm::exercises::ch00 {

/// 0.1 The sum of all elements.
int sum(const std::vector<int>& values);

/// 0.2 Every element divided by the largest, which is positive; in place.
void scale(std::vector<float>& values);

/// 0.3 n! for n >= 0; Error if n is negative.
long factorial(int n);

}  // namespace llm::exercises::ch00
