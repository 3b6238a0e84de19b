// What the checker needs to know about the program itself: numbers for the instructions that touch memory,
// and where the program's own data lies.
#pragma once

#include <link.h>

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "common/core/error.h"
#include "common/simt/emulator/shadow.h"

namespace llm::simt {

/// Numbers for the instructions that touch memory.
class Sites {
 public:
  Site number(const void* where) {
    const auto key = reinterpret_cast<std::uintptr_t>(where);
    auto& slot = recent_[key / 2 % kRecent];
    if (slot.where == where) [[likely]]
      return slot.site;
    auto [it, fresh] = numbers_.try_emplace(where, static_cast<Site>(places_.size()));
    if (fresh) {
      check(places_.size() < 65535, "the kernels of this program have too many loads and stores to number");
      places_.push_back(where);
    }
    slot = {where, it->second};
    return it->second;
  }
  const void* where(Site site) const { return places_[site]; }

 private:
  static constexpr std::size_t kRecent = 4096;
  struct Recent {
    const void* where = nullptr;
    Site site = 0;
  };
  std::vector<Recent> recent_ = std::vector<Recent>(kRecent);
  std::unordered_map<const void*, Site> numbers_;
  std::vector<const void*> places_;
};

/// The program's own data, which kernels may read (constants) like memory of the device.
struct ProgramData {
  struct Part {
    std::uintptr_t begin, end;
  };
  std::vector<Part> parts;

  ProgramData() {
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* data) {
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto& part = info->dlpi_phdr[i];
            const std::uintptr_t begin = info->dlpi_addr + part.p_vaddr;
            if (part.p_type == PT_LOAD)
              static_cast<ProgramData*>(data)->parts.push_back({begin, begin + part.p_memsz});
          }
          return 0;
        },
        this);
  }
  bool contains(const void* address) const {
    const auto a = reinterpret_cast<std::uintptr_t>(address);
    return std::any_of(parts.begin(), parts.end(), [a](const Part& p) { return a >= p.begin && a < p.end; });
  }
};

}  // namespace llm::simt
