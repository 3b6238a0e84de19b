// Answers to the exercises of chapter 1. Try yours first (exercises.cpp): what one has found oneself stays.
#include <algorithm>
#include <cstring>

#include "ch01_data/exercises.h"
#include "common/core/error.h"
#include "common/core/file.h"
#include "common/core/philox.h"

namespace llm::exercises::ch01 {

// 1.1 Spaces wait until a character stands behind them; a line break is written unless two stand there
// already.
std::string clean_lines(std::string_view text) {
  std::string result;
  std::string spaces;
  int line_breaks = 1;  // since the last character; before the first line it is as if one had ended
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\r') {
      if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
      c = '\n';
    }
    if (c == ' ' || c == '\t') {
      spaces += c;
    } else if (c == '\n') {
      spaces.clear();
      if (++line_breaks <= 2) result += c;
    } else {
      result += spaces + c;
      spaces.clear();
      line_breaks = 0;
    }
  }
  return result;
}

// 1.2 A window that begins at s needs the tokens s, ..., s + length: the last one is a target only.
std::vector<Window> sliding_windows(std::span<const std::int32_t> tokens, std::size_t length,
                                    std::size_t stride) {
  std::vector<Window> windows;
  for (std::size_t start = 0; start + length < tokens.size(); start += stride) {
    const auto inputs = tokens.subspan(start, length);
    const auto targets = tokens.subspan(start + 1, length);
    windows.push_back({{inputs.begin(), inputs.end()}, {targets.begin(), targets.end()}});
  }
  return windows;
}

std::vector<std::vector<Window>> in_batches(const std::vector<Window>& windows, std::size_t batch_size,
                                            bool drop_last) {
  std::vector<std::vector<Window>> batches;
  for (std::size_t first = 0; first < windows.size(); first += batch_size) {
    const std::size_t last = std::min(first + batch_size, windows.size());
    if (drop_last && last - first < batch_size) break;
    batches.emplace_back(windows.begin() + static_cast<std::ptrdiff_t>(first),
                         windows.begin() + static_cast<std::ptrdiff_t>(last));
  }
  return batches;
}

// 1.3 The text picks a number in [0, 1) out of the seed's; the fraction says how far down the interval
// counts.
bool is_held_out(std::string_view text, double fraction, std::uint64_t seed) {
  const Philox random{seed, stream_id("held out")};
  return random.uniform(checksum(text)) < fraction;
}

// 1.4 First the header, and only then what it promises.
std::vector<std::uint16_t> read_shard(std::span<const std::byte> file) {
  constexpr std::size_t kHeaderBytes = 256 * 4;
  check(file.size() >= kHeaderBytes, "a shard has at least {} bytes, this one has {}", kHeaderBytes,
        file.size());
  std::int32_t header[3];
  std::memcpy(header, file.data(), sizeof header);
  check(header[0] == 20240520, "a shard begins with 20240520, this one with {}", header[0]);
  check(header[1] == 1, "only version 1 is known, this is version {}", header[1]);
  const std::size_t body = file.size() - kHeaderBytes;
  check(header[2] >= 0 && body == 2 * static_cast<std::size_t>(header[2]),
        "{} tokens should follow, there are {} bytes", header[2], body);
  std::vector<std::uint16_t> tokens(body / 2);
  if (body > 0) std::memcpy(tokens.data(), file.data() + kHeaderBytes, body);
  return tokens;
}

}  // namespace llm::exercises::ch01
