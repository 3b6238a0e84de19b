// Holding back what may be the beginning of a stop string. See stop_text.h.
#include "common/generation/stop_text.h"

#include <algorithm>
#include <utility>

namespace llm {

std::string StopText::push(std::string_view text) {
  if (stopped_) return "";
  held_ += text;
  std::size_t first = std::string::npos;
  for (const std::string& stop : stops_)
    if (!stop.empty()) first = std::min(first, held_.find(stop));
  if (first != std::string::npos) {
    stopped_ = true;
    std::string ready = held_.substr(0, first);
    held_.clear();
    return ready;
  }
  // The longest end of the text that a stop begins with.
  std::size_t keep = 0;
  for (const std::string& stop : stops_)
    for (std::size_t length = std::min(stop.size() - !stop.empty(), held_.size()); length > keep; --length)
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, length))) {
        keep = length;
        break;
      }
  std::string ready = held_.substr(0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return ready;
}

std::string StopText::finish() {
  return std::exchange(held_, "");
}

}  // namespace llm
