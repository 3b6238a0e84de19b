// How the checked build sees an index outside of an array within a larger object: tiles.a[row][70] of a float
// a[64][65] is still within the tiles, so its address alone tells nothing. With -fsanitize=bounds-strict the
// compiler compares each index with the array's size and calls the function below when it does not fit; as
// with tsan.cpp, ours answers in place of the sanitizer's own. What it is given is described in GCC's
// libsanitizer/ubsan/ubsan_handlers.h.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "common/core/error.h"
#include "common/simt/emulator/multiprocessor.h"

namespace {

struct TypeDescriptor {
  std::uint16_t kind;  // 0: an integer, whose bits `info` tells
  std::uint16_t info;  // 2 log2(bits) + 1 if signed
  char name[1];        // "'float [65]'"
};

struct OutOfBounds {
  const char* file;
  std::uint32_t line, column;
  const TypeDescriptor* array;
  const TypeDescriptor* index;
};

}  // namespace

extern "C" {

void __ubsan_handle_out_of_bounds(OutOfBounds* data, std::uintptr_t value) {
  using namespace llm::simt;
  const int unused_bits = 64 - (1 << (data->index->info / 2));
  const bool is_signed = data->index->info % 2 != 0;
  const auto index = is_signed && unused_bits > 0
                         ? static_cast<std::int64_t>(value << unused_bits) >> unused_bits
                         : static_cast<std::int64_t>(value);
  std::string type = data->array->name;
  std::erase(type, '\'');
  auto& mp = Multiprocessor::of_this_thread();
  if (!mp.runs_kernel()) {
    std::fprintf(stderr, "%s:%u: index %lld of an array %s\n", data->file, data->line,
                 static_cast<long long>(index), type.c_str());
    std::abort();
  }
  RawFault fault;
  fault.kind = FaultKind::out_of_bounds;
  fault.text = fmt::format("uses index {} of an array {}", index, type);
  fault.where = __builtin_return_address(0);
  mp.fail(std::move(fault));
}

void __ubsan_handle_out_of_bounds_abort(OutOfBounds* data, std::uintptr_t value) {
  __ubsan_handle_out_of_bounds(data, value);
}

}  // extern "C"
