#include "common/simt/emulator/symbols.h"

#include <cxxabi.h>
#include <link.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "common/core/error.h"

namespace llm::simt {

namespace {

/// How far the program was moved when it was loaded, and the file it was loaded from.
struct Loaded {
  std::uintptr_t moved = 0;
  std::string file = "/proc/self/exe";
};

Loaded loaded_from(std::uintptr_t address) {
  struct Search {
    std::uintptr_t address;
    Loaded found;
  } search{address, {}};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* data) {
        auto& s = *static_cast<Search*>(data);
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& part = info->dlpi_phdr[i];
          const std::uintptr_t begin = info->dlpi_addr + part.p_vaddr;
          if (part.p_type != PT_LOAD || s.address < begin || s.address >= begin + part.p_memsz) continue;
          s.found.moved = info->dlpi_addr;
          if (info->dlpi_name != nullptr && info->dlpi_name[0] != '\0') s.found.file = info->dlpi_name;
          return 1;
        }
        return 0;
      },
      &search);
  return search.found;
}

struct Frame {
  std::string function, file;
  int line = 0;
};

/// The functions that stand at an address, innermost first.
std::vector<Frame> frames_at(std::uintptr_t address) {
  const Loaded loaded = loaded_from(address);
  std::string file = loaded.file;
  if (char* real = realpath(file.c_str(), nullptr); real != nullptr) {  // /proc/self is addr2line's own there
    file = real;
    std::free(real);
  }
  for (const char c : file)
    if (c == '\'') return {};
  const auto command =
      fmt::format("addr2line -e '{}' -f -i -C {:#x} 2>/dev/null", file, address - loaded.moved);
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  if (!pipe) return {};
  std::string text;
  char buffer[4096];
  for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe.get())) > 0;) text.append(buffer, n);
  std::vector<Frame> frames;
  for (std::size_t begin = 0; begin < text.size();) {  // two lines each: the function, file:line
    const std::size_t middle = text.find('\n', begin);
    const std::size_t end = middle == std::string::npos ? middle : text.find('\n', middle + 1);
    if (end == std::string::npos) break;
    Frame frame;
    frame.function = text.substr(begin, middle - begin);
    const std::string place = text.substr(middle + 1, end - middle - 1);
    if (const auto colon = place.rfind(':'); colon != std::string::npos && place[0] != '?') {
      frame.file = place.substr(0, colon);
      frame.line = std::atoi(place.c_str() + colon + 1);
      if (frame.line == 0) frame.file.clear();
    }
    frames.push_back(std::move(frame));
    begin = end + 1;
  }
  return frames;
}

/// "tile_sum" of "void llm::(anonymous namespace)::tile_sum<float>(float*, int)".
std::string bare(const std::string& signature) {
  std::size_t depth = 0, begin = 0;
  std::size_t end = signature.size();
  for (std::size_t i = 0; i < signature.size(); ++i) {
    const char c = signature[i];
    if (signature.compare(i, 21, "(anonymous namespace)") == 0) {
      i += 20;
      continue;
    }
    if (c == '<') ++depth;
    if (c == '>') --depth;
    if (depth > 0) continue;
    if (c == '(') {
      end = i;
      break;
    }
    if (c == ' ' || c == ':') begin = i + 1;
  }
  return signature.substr(begin, end - begin);
}

}  // namespace

Place place_before(const void* return_address) {
  static std::mutex mutex;
  static std::map<const void*, Place> known;
  const std::lock_guard lock(mutex);
  if (const auto it = known.find(return_address); it != known.end()) return it->second;
  Place place;
  // One byte before lies within the call itself.
  for (const auto& frame : frames_at(reinterpret_cast<std::uintptr_t>(return_address) - 1)) {
    if (frame.file.empty()) continue;
    place = {frame.file, frame.line};
    if (frame.file.find("common/simt/") == std::string::npos) break;
  }
  return known[return_address] = place;
}

std::string function_name(const void* function) {
  static std::mutex mutex;
  static std::map<const void*, std::string> known;
  const std::lock_guard lock(mutex);
  if (const auto it = known.find(function); it != known.end()) return it->second;
  const auto frames = frames_at(reinterpret_cast<std::uintptr_t>(function));
  const std::string name =
      frames.empty() || frames.back().function == "??" ? "?" : bare(frames.back().function);
  return known[function] = name;
}

std::string type_name(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(mangled, nullptr, nullptr, &status),
                                                    std::free);
  std::string name = status == 0 ? text.get() : mangled;
  for (const std::string part : {"(anonymous namespace)::", "llm::", "exercises::"})
    for (std::size_t i; (i = name.find(part)) != std::string::npos;) name.erase(i, part.size());
  if (name.size() > 6 && name.rfind("ch0", 0) == 0 && name.substr(4, 2) == "::")
    name.erase(0, 6);  // a chapter's
  return name;
}

std::string at(const Place& place) {
  if (place.file.empty()) return "";
  return fmt::format(" at {}:{}", place.file.substr(place.file.rfind('/') + 1), place.line);
}

std::string spell(uint3 i, dim3 of) {
  if (of.z > 1) return fmt::format("({}, {}, {})", i.x, i.y, i.z);
  return of.y > 1 ? fmt::format("({}, {})", i.x, i.y) : fmt::format("{}", i.x);
}

std::string spell_thread(unsigned number, dim3 block) {
  return spell({number % block.x, number / block.x % block.y, number / (block.x * block.y)}, block);
}

}  // namespace llm::simt
