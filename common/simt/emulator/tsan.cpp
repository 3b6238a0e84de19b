// How the checked build sees loads and stores. With -fsanitize=thread the compiler calls
// __tsan_read4(address) before each load of 4 bytes, and so on. That sanitizer's runtime answers these calls
// in ordinary programs; in ours, which is not linked with it, the functions below do, and pass on what a
// kernel does to watch.h.
//
// Kernels that were compiled so bring calls to these functions, so the linker takes this file from the
// library; other programs leave it there, and builds with a real sanitizer leave it out. __tsan_init is
// called before main by every object file with such calls.
#include <cstddef>
#include <cstdint>

#include "common/simt/emulator/watch.h"

using llm::simt::saw_access;
using llm::simt::watching;

#define LLM_WHERE __builtin_return_address(0)

extern "C" {

void __tsan_init() {
  llm::simt::start_watching();
}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_read(void*) {}
void __tsan_vptr_update(void*, void*) {}

#define LLM_ACCESS(bytes)                                              \
  void __tsan_read##bytes(void* address) {                             \
    if (watching) saw_access(address, bytes, false, false, LLM_WHERE); \
  }                                                                    \
  void __tsan_write##bytes(void* address) {                            \
    if (watching) saw_access(address, bytes, true, false, LLM_WHERE);  \
  }                                                                    \
  void __tsan_unaligned_read##bytes(void* address) {                   \
    if (watching) saw_access(address, bytes, false, false, LLM_WHERE); \
  }                                                                    \
  void __tsan_unaligned_write##bytes(void* address) {                  \
    if (watching) saw_access(address, bytes, true, false, LLM_WHERE);  \
  }
LLM_ACCESS(1)
LLM_ACCESS(2)
LLM_ACCESS(4)
LLM_ACCESS(8)
LLM_ACCESS(16)

void __tsan_read_range(void* address, std::size_t bytes) {
  if (watching) saw_access(address, bytes, false, false, LLM_WHERE);
}
void __tsan_write_range(void* address, std::size_t bytes) {
  if (watching) saw_access(address, bytes, true, false, LLM_WHERE);
}

// Atomic operations are made here; `order` is taken to be the strictest.

#define LLM_UPDATE(bits, type, name)                                               \
  type __tsan_atomic##bits##_##name(volatile type* address, type value, int) {     \
    if (watching) {                                                                \
      saw_access(const_cast<type*>(address), sizeof(type), true, true, LLM_WHERE); \
      llm::simt::saw_atomic();                                                     \
    }                                                                              \
    return __atomic_##name(address, value, __ATOMIC_SEQ_CST);                      \
  }
#define LLM_COMPARE(bits, type, name, weak)                                                                 \
  bool __tsan_atomic##bits##_##name(volatile type* address, type* expected, type value, int, int) {         \
    if (watching) {                                                                                         \
      saw_access(const_cast<type*>(address), sizeof(type), true, true, LLM_WHERE);                          \
      llm::simt::saw_atomic();                                                                              \
    }                                                                                                       \
    return __atomic_compare_exchange_n(address, expected, value, weak, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }
#define LLM_ATOMIC(bits, type)                                                                  \
  type __tsan_atomic##bits##_load(const volatile type* address, int) {                          \
    if (watching) saw_access(const_cast<type*>(address), sizeof(type), false, true, LLM_WHERE); \
    return __atomic_load_n(address, __ATOMIC_SEQ_CST);                                          \
  }                                                                                             \
  void __tsan_atomic##bits##_store(volatile type* address, type value, int) {                   \
    if (watching) saw_access(const_cast<type*>(address), sizeof(type), true, true, LLM_WHERE);  \
    __atomic_store_n(address, value, __ATOMIC_SEQ_CST);                                         \
  }                                                                                             \
  type __tsan_atomic##bits##_exchange(volatile type* address, type value, int) {                \
    if (watching) {                                                                             \
      saw_access(const_cast<type*>(address), sizeof(type), true, true, LLM_WHERE);              \
      llm::simt::saw_atomic();                                                                  \
    }                                                                                           \
    return __atomic_exchange_n(address, value, __ATOMIC_SEQ_CST);                               \
  }                                                                                             \
  LLM_UPDATE(bits, type, fetch_add)                                                             \
  LLM_UPDATE(bits, type, fetch_sub)                                                             \
  LLM_UPDATE(bits, type, fetch_and)                                                             \
  LLM_UPDATE(bits, type, fetch_or)                                                              \
  LLM_UPDATE(bits, type, fetch_xor)                                                             \
  LLM_UPDATE(bits, type, fetch_nand)                                                            \
  LLM_COMPARE(bits, type, compare_exchange_strong, false)                                       \
  LLM_COMPARE(bits, type, compare_exchange_weak, true)
LLM_ATOMIC(8, std::uint8_t)
LLM_ATOMIC(16, std::uint16_t)
LLM_ATOMIC(32, std::uint32_t)
LLM_ATOMIC(64, std::uint64_t)

void __tsan_atomic_thread_fence(int) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
void __tsan_atomic_signal_fence(int) {
  __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

}  // extern "C"
