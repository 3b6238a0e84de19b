// How the tests of exercises compare: at the first difference they say where it is, what was expected and
// what came, and, if there is something to say, a hint. tests/exercises/README.md tells how an exercise is
// made.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "common/core/tensor.h"
#include "tests/exercises/not_started.h"

namespace llm::exercises {

/// |got - expected| <= absolute + relative * |expected|. Two NaN, or two equal infinities, agree.
struct Tolerance {
  double relative = 1e-5;
  double absolute = 1e-6;
};

/// One number. `what` names it in the message ("the loss").
void expect_close(double got, double expected, std::string_view hint = "", Tolerance tolerance = {},
                  std::string_view what = "the result");

/// Arrays, element by element; the sizes first.
void expect_close(std::span<const float> got, std::span<const float> expected, std::string_view hint = "",
                  Tolerance tolerance = {});
void expect_close(std::span<const double> got, std::span<const double> expected, std::string_view hint = "",
                  Tolerance tolerance = {});

/// Tensors (f32): the shapes first, then element by element, and the index is that of the tensor: (1, 0, 3).
void expect_close(const Tensor& got, const Tensor& expected, std::string_view hint = "",
                  Tolerance tolerance = {});

/// The same for flat arrays that the exercise sees as (rows, columns, ...).
void expect_close(std::span<const float> got, std::span<const float> expected, const Shape& shape,
                  std::string_view hint = "", Tolerance tolerance = {});

/// `text` in quotes, line breaks and other control characters made visible, cut where it is long.
std::string quoted(std::string_view text);

/// How a value looks in a message.
template <typename T>
std::string show(const T& value) {
  if constexpr (std::is_convertible_v<const T&, std::string_view>) {
    return exercises::quoted(value);  // not std::quoted
  } else if constexpr (requires {
                         fmt::formatter<T>();
                         fmt::format("{}", value);
                       }) {
    return fmt::format("{}", value);
  } else {
    return testing::PrintToString(value);
  }
}

/// Reports a failure: "element 3: expected 5, got 7", then the hint.
void report_difference(std::string_view where, std::string_view expected, std::string_view got,
                       std::string_view hint);

/// One value that must be equal: a count, a text, a bool, an id.
template <typename T>
requires(!requires(const T& t) { std::begin(t); } ||
         std::is_convertible_v<const T&,
                               std::string_view>) void expect_equal(const T& got,
                                                                    const std::type_identity_t<T>& expected,
                                                                    std::string_view hint = "",
                                                                    std::string_view what = "the result") {
  if (!(got == expected)) report_difference(what, show(expected), show(got), hint);
}

/// Containers (of ids, of texts, of anything with == that can be printed) that must be equal, element by
/// element. The message names the first element that differs; a wrong length counts only if all before it
/// agrees.
template <typename Container>
requires(requires(const Container& c) { std::begin(c); } &&
         !std::is_convertible_v<const Container&,
                                std::string_view>) void expect_equal(const Container& got,
                                                                     const std::type_identity_t<Container>&
                                                                         expected,
                                                                     std::string_view hint = "",
                                                                     std::string_view what = "element") {
  const auto got_size = static_cast<std::size_t>(std::distance(std::begin(got), std::end(got)));
  const auto expected_size =
      static_cast<std::size_t>(std::distance(std::begin(expected), std::end(expected)));
  std::size_t i = 0;
  auto g = std::begin(got);
  auto e = std::begin(expected);
  for (; g != std::end(got) && e != std::end(expected); ++g, ++e, ++i)
    if (!(*g == *e)) return report_difference(fmt::format("{} {}", what, i), show(*e), show(*g), hint);
  if (got_size != expected_size)
    report_difference("the length", fmt::format("{}", expected_size), fmt::format("{}", got_size), hint);
}

}  // namespace llm::exercises
