#include "common/simt/emulator/fiber.h"

#include <sys/mman.h>

#include "common/core/error.h"

// Sanitizers must be told of every switch, or they take another stack for a broken one. GCC's
// common_interface_defs.h.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

namespace llm::simt {

namespace {

using boost::context::detail::jump_fcontext;
using boost::context::detail::make_fcontext;
using boost::context::detail::transfer_t;

constexpr std::size_t kPage = 4096;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::size_t kStack = 256 * 1024;  // they need more of it
#else
constexpr std::size_t kStack = 64 * 1024;
#endif

// All stacks begin at a multiple of a page, so their busy ends would compete for the same few lines of the
// cache; each begins some lines lower than the one before.
std::size_t colour(std::size_t number) {
  return number * 192 % kPage;
}

void before_switch([[maybe_unused]] Fiber* from, [[maybe_unused]] Fiber& to) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(from != nullptr ? &from->sanitizer : nullptr, to.stack, to.stack_bytes);
#elif defined(__SANITIZE_THREAD__)
  if (from != nullptr) from->sanitizer = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(to.sanitizer, 0);
#endif
}

/// `came_from` is where the switch started: if it is the host's own stack, ASan tells us here where that
/// lies.
void after_switch([[maybe_unused]] Fiber& self, [[maybe_unused]] Fiber* came_from) {
#if defined(__SANITIZE_ADDRESS__)
  const void* bottom = nullptr;
  std::size_t size = 0;
  __sanitizer_finish_switch_fiber(self.sanitizer, &bottom, &size);
  if (came_from->stack_bytes == 0) {
    came_from->stack = static_cast<std::byte*>(const_cast<void*>(bottom));
    came_from->stack_bytes = size;
  }
#endif
}

}  // namespace

void make_fiber(Fiber& fiber, std::size_t number, void (*entry)(transfer_t)) {
  void* memory = mmap(nullptr, kStack + kPage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  check(memory != MAP_FAILED, "there is no memory for the stacks of a block's threads");
  mprotect(memory, kPage,
           PROT_NONE);  // an overflow is caught there; with very many stacks the system may refuse
  fiber.stack = static_cast<std::byte*>(memory) + kPage;
  fiber.stack_bytes = kStack - colour(number);
  reset_fiber(fiber, entry);
}

void reset_fiber(Fiber& fiber, void (*entry)(transfer_t)) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(fiber.stack, fiber.stack_bytes);
  fiber.sanitizer = nullptr;
#elif defined(__SANITIZE_THREAD__)
  if (fiber.sanitizer == nullptr) fiber.sanitizer = __tsan_create_fiber(0);
#endif
  fiber.starts = nullptr;
  fiber.context = make_fcontext(fiber.stack + fiber.stack_bytes, fiber.stack_bytes, entry);
}

void free_fiber(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
  // What frames left forbidden here would stay forbidden to whatever is mapped here next, such as another
  // thread's thread_local variables.
  __asan_unpoison_memory_region(fiber.stack, kStack);
#elif defined(__SANITIZE_THREAD__)
  __tsan_destroy_fiber(fiber.sanitizer);
#endif
  munmap(fiber.stack - kPage, kStack + kPage);
}

void switch_fiber(Fiber& from, Fiber& to) {
  before_switch(&from, to);
  arrived(from, jump_fcontext(to.context, &from));
}

void arrived(Fiber& self, transfer_t transfer) {
  // Whoever switched to us sleeps now; where, only we know.
  auto* other = static_cast<Fiber*>(transfer.data);
  other->context = transfer.fctx;
  after_switch(self, other);
}

void leave_fiber(Fiber& from, Fiber& to) {
  before_switch(nullptr, to);
  jump_fcontext(to.context, &from);
  __builtin_unreachable();
}

}  // namespace llm::simt
