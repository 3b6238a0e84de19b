#include "common/cli/metrics.h"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "common/core/error.h"

namespace llm {

std::string to_json_line(const MetricRecord& record) {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [key, metric] : record)
    std::visit([&object, &name = key](const auto& value) { object[name] = value; }, metric.value);
  // Text that is no UTF-8 (a model's samples may be anything) is written with replacement characters.
  return object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

MetricsWriter::MetricsWriter(const std::filesystem::path& path, bool append) : path_(path) {
  if (path.empty()) return;
  std::error_code ignored;  // fopen says what is wrong
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), ignored);
  file_ = std::fopen(path.c_str(), append ? "ab" : "wb");
  check(file_ != nullptr, "cannot write {}: {}", path.string(), std::strerror(errno));
}

MetricsWriter::~MetricsWriter() {
  if (file_) std::fclose(file_);
}

MetricsWriter::MetricsWriter(MetricsWriter&& other) noexcept
    : path_(std::move(other.path_)), file_(std::exchange(other.file_, nullptr)) {}

MetricsWriter& MetricsWriter::operator=(MetricsWriter&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(file_, other.file_);
  return *this;
}

void MetricsWriter::write(const MetricRecord& record) {
  if (!file_) return;
  const std::string line = to_json_line(record) + "\n";
  const bool written =
      std::fwrite(line.data(), 1, line.size(), file_) == line.size() && std::fflush(file_) == 0;
  check(written, "cannot write {}: {}", path_.string(), std::strerror(errno));
}

}  // namespace llm
