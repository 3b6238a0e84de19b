// Asynchronous copies from global to shared memory: cuda_pipeline.h's names, over which nvcc makes cp.async.
//
// On a GPU the data arrives some time between the call and the wait. Here it arrives as late as it may, at
// the wait, so that a kernel that looks too early gets it wrong every time.
#include <algorithm>
#include <cstring>

#include "common/core/error.h"
#include "common/simt/emulator/checker.h"

namespace llm::simt {

void begin_copy(void* to, const void* from, std::size_t bytes, std::size_t zeros) {
  auto& mp = Multiprocessor::of_this_thread();
  const void* where = __builtin_return_address(0);
  const auto misaligned = [bytes](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % bytes != 0; };
  if ((bytes != 4 && bytes != 8 && bytes != 16) || zeros > bytes || misaligned(to) || misaligned(from)) {
    RawFault fault;
    fault.text = fmt::format(
        "copies {} bytes asynchronously; it must be 4, 8 or 16, with both addresses multiples of that",
        bytes);
    fault.where = where;
    mp.fail(std::move(fault));
  }
  Thread& me = mp.thread();
  me.copies.push_back(
      {to, from, static_cast<std::uint32_t>(bytes), static_cast<std::uint32_t>(zeros), where, me.open_group});
  if (checker != nullptr) checker->copy_begun(mp, me.copies.back());
}

void close_copies() {
  ++Multiprocessor::of_this_thread().thread().open_group;
}

void wait_copies(int open_groups) {
  Thread& me = Multiprocessor::of_this_thread().thread();
  // The newest `open_groups` closed groups may stay open, and so does the one that is not closed yet.
  finish_copies(me, me.open_group - open_groups);
}

void finish_copies(Thread& thread, int group) {
  std::size_t done = 0;
  while (done < thread.copies.size() && thread.copies[done].group < group) {
    const AsyncCopy& copy = thread.copies[done++];
    const std::size_t real = copy.bytes - copy.zeros;
    std::memcpy(copy.to, copy.from, real);
    std::memset(static_cast<std::byte*>(copy.to) + real, 0, copy.zeros);
    if (checker != nullptr) checker->copy_done(Multiprocessor::of_this_thread(), thread, copy);
  }
  thread.copies.erase(thread.copies.begin(), thread.copies.begin() + static_cast<std::ptrdiff_t>(done));
}

}  // namespace llm::simt
