// Your answers to the exercises of chapter 1. The contracts stand in exercises.h.
//
//   ./book check ch01      what is done, wrong, not started
//   ./book hint 1.2        a hint; ask again for the next
#include "ch01_data/exercises.h"

#include <algorithm>
#include <cstring>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/core/philox.h"

namespace llm::exercises::ch01 {

// 1.1
std::string clean_lines(std::string_view text) {
  not_started();  // your code instead of this line
}

// 1.2
std::vector<Window> sliding_windows(std::span<const std::int32_t> tokens, std::size_t length,
                                    std::size_t stride) {
  not_started();  // your code instead of this line
}

// 1.2, second part
std::vector<std::vector<Window>> in_batches(const std::vector<Window>& windows, std::size_t batch_size,
                                            bool drop_last) {
  not_started();  // your code instead of this line
}

// 1.3
bool is_held_out(std::string_view text, double fraction, std::uint64_t seed) {
  not_started();  // your code instead of this line
}

// 1.4
std::vector<std::uint16_t> read_shard(std::span<const std::byte> file) {
  not_started();  // your code instead of this line
}

}  // namespace llm::exercises::ch01
