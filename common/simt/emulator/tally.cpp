#include "common/simt/emulator/tally.h"

#include <algorithm>

namespace llm::simt {

void Tally::Log::clear() {
  for (auto& lane : words) lane.clear();
  used = false;
}

void Tally::drop() {
  for (auto& warp : warps_) {
    for (Log* log : warp.used) log->clear();
    warp.used.clear();
  }
}

void Tally::close(unsigned number) {
  Warp& warp = warps_[number];
  for (Log* log : warp.used) {
    std::size_t most = 0;
    for (const auto& lane : log->words) most = std::max(most, lane.size());
    for (std::size_t i = 0; i < most; ++i) {
      std::uint32_t words[32];
      std::uint8_t lanes[32];
      int n = 0;
      for (std::size_t lane = 0; lane < 32; ++lane) {
        if (i >= log->words[lane].size()) continue;
        lanes[n] = static_cast<std::uint8_t>(lane);
        words[n++] = log->words[lane][i];
      }
      if (log->shared)
        count_shared(words, lanes, n, *log);
      else
        count_global(words, lanes, n, *log);
    }
    log->clear();
  }
  warp.used.clear();
}

void Tally::count_global(const std::uint32_t* words, const std::uint8_t* /*lanes*/, int n, const Log& log) {
  constexpr std::uint32_t kWordsPerSector = 8;
  std::uint32_t sectors[32 * 2];
  int count = 0;
  const std::uint32_t length = std::max<std::uint32_t>(1, (log.bytes + 3) / 4);
  for (int i = 0; i < n; ++i) {
    for (std::uint32_t s = words[i] / kWordsPerSector; s <= (words[i] + length - 1) / kWordsPerSector; ++s) {
      int j = count;
      while (j > 0 && sectors[j - 1] != s) --j;
      if (j == 0 && count < 64) sectors[count++] = s;
    }
  }
  (log.write ? counts.global_store_sectors : counts.global_load_sectors) += count;
  ++(log.write ? counts.warp_stores : counts.warp_loads);
}

void Tally::count_shared(const std::uint32_t* words, const std::uint8_t* lanes, int n, const Log& log) {
  ++(log.write ? counts.shared_stores : counts.shared_loads);
  // Wide accesses are made by a half or a quarter of the warp at a time, so that one turn can serve each.
  const std::uint32_t length = std::max<std::uint32_t>(1, (log.bytes + 3) / 4);
  const int group = length <= 1 ? 32 : length <= 2 ? 16 : 8;
  for (int begin = 0; begin < n;) {
    int end = begin;
    while (end < n && lanes[end] / group == lanes[begin] / group) ++end;
    std::uint32_t bank[32][32];
    int in_bank[32] = {};
    for (int i = begin; i < end; ++i)
      for (std::uint32_t w = words[i]; w < words[i] + length; ++w) {
        auto* list = bank[w % 32];
        int& count = in_bank[w % 32];
        int j = count;
        while (j > 0 && list[j - 1] != w) --j;
        if (j == 0 && count < 32) list[count++] = w;
      }
    const int turns = *std::max_element(in_bank, in_bank + 32);
    counts.shared_turns += turns;
    counts.bank_conflicts += std::max(0, turns - 1);
    begin = end;
  }
}

}  // namespace llm::simt
