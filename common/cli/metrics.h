// Results as JSON lines: one object per line, on disk as soon as it is written.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace llm {

/// A number, a truth value or a text. Numbers that are not finite become null, as JSON has no word for them.
struct MetricValue {
  std::variant<bool, std::int64_t, double, std::string> value;

  MetricValue(bool b) : value(b) {}  // NOLINT(google-explicit-constructor): written in lists
  template <typename T>
  requires(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
      MetricValue(T number) {  // NOLINT(google-explicit-constructor)
    if constexpr (std::is_floating_point_v<T>)
      value = static_cast<double>(number);
    else
      value = static_cast<std::int64_t>(number);
  }
  MetricValue(std::string text) : value(std::move(text)) {}         // NOLINT(google-explicit-constructor)
  MetricValue(std::string_view text) : value(std::string(text)) {}  // NOLINT(google-explicit-constructor)
  MetricValue(const char* text) : value(std::string(text)) {}       // NOLINT(google-explicit-constructor)
};

using MetricRecord = std::vector<std::pair<std::string, MetricValue>>;

/// One record as a line of JSON without the line break; the keys keep their order.
std::string to_json_line(const MetricRecord& record);

/// Writes records to a file, each flushed: `metrics.write({{"step", 100}, {"loss", 1.25}})`.
class MetricsWriter {
 public:
  /// Writes nothing anywhere; so does an empty path.
  MetricsWriter() = default;
  /// Starts the file anew, or goes on behind what it holds. Creates the parent folder. Error if it cannot be
  /// opened.
  explicit MetricsWriter(const std::filesystem::path& path, bool append = false);
  ~MetricsWriter();
  MetricsWriter(MetricsWriter&& other) noexcept;
  MetricsWriter& operator=(MetricsWriter&& other) noexcept;
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  /// Error if the line cannot be written (a full disk).
  void write(const MetricRecord& record);

 private:
  std::filesystem::path path_;
  std::FILE* file_ = nullptr;
};

}  // namespace llm
