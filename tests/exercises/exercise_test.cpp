#include "tests/exercises/exercise_test.h"

#include <cmath>
#include <limits>

#include "common/core/error.h"
#include "tests/exercises/report.h"

namespace llm::exercises {
namespace {

bool agree(double got, double expected, const Tolerance& tolerance) {
  if (std::isnan(expected)) return std::isnan(got);
  if (std::isinf(expected)) return got == expected;
  return std::abs(got - expected) <= tolerance.absolute + tolerance.relative * std::abs(expected);
}

// Both with as many digits as it takes to tell them apart, at least six.
std::pair<std::string, std::string> digits(double expected, double got) {
  std::string e, g;
  for (int precision = 6; precision <= 17; ++precision) {
    e = fmt::format("{:.{}g}", expected, precision), g = fmt::format("{:.{}g}", got, precision);
    if (e != g) break;
  }
  return {e, g};
}

// (1, 0, 3): the place of flat element `i` in a tensor.
std::string place(std::size_t i, const Shape& shape) {
  if (shape.size() < 2) return fmt::format("{}", i);
  std::string text;
  auto rest = static_cast<std::int64_t>(i);
  for (std::size_t d = shape.size(); d-- > 0; rest /= shape[d])
    text = fmt::format("{}{}", rest % shape[d], text.empty() ? "" : ", " + text);
  return "(" + text + ")";
}

template <typename T>
void compare(std::span<const T> got, std::span<const T> expected, const Shape& shape, std::string_view hint,
             const Tolerance& tolerance) {
  if (got.size() != expected.size())
    return report_difference("the number of elements", fmt::format("{}", expected.size()),
                             fmt::format("{}", got.size()), hint);
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (agree(got[i], expected[i], tolerance)) continue;
    const auto [e, g] = digits(expected[i], got[i]);
    return report_difference("element " + place(i, shape), e, g, hint);
  }
}

}  // namespace

void not_started() {
  note_not_started();
  throw NotStarted{};
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (out.size() > 120) return out + "...";
    if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (c == '\r')
      out += "\\r";
    else if (c == '"' || c == '\\')
      out += '\\', out += c;
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out + "\"";
}

void report_difference(std::string_view where, std::string_view expected, std::string_view got,
                       std::string_view hint) {
  ADD_FAILURE() << where << ": expected " << expected << ", got " << got << (hint.empty() ? "" : kHintMark)
                << hint;
}

void expect_close(double got, double expected, std::string_view hint, Tolerance tolerance,
                  std::string_view what) {
  if (agree(got, expected, tolerance)) return;
  const auto [e, g] = digits(expected, got);
  report_difference(what, e, g, hint);
}

void expect_close(std::span<const float> got, std::span<const float> expected, std::string_view hint,
                  Tolerance tolerance) {
  compare(got, expected, {}, hint, tolerance);
}

void expect_close(std::span<const double> got, std::span<const double> expected, std::string_view hint,
                  Tolerance tolerance) {
  compare(got, expected, {}, hint, tolerance);
}

void expect_close(std::span<const float> got, std::span<const float> expected, const Shape& shape,
                  std::string_view hint, Tolerance tolerance) {
  compare(got, expected, shape, hint, tolerance);
}

void expect_close(const Tensor& got, const Tensor& expected, std::string_view hint, Tolerance tolerance) {
  if (got.shape() != expected.shape())
    return report_difference("the shape", to_string(expected.shape()), to_string(got.shape()), hint);
  if (got.dtype() != expected.dtype())
    return report_difference("the element type", name(expected.dtype()), name(got.dtype()), hint);
  compare<float>(got.span(), expected.span(), expected.shape(), hint, tolerance);
}

}  // namespace llm::exercises
