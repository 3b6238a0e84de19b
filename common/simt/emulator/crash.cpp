#include "common/simt/emulator/crash.h"

#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>

#include "common/core/device_backend.h"
#include "common/core/error.h"
#include "common/simt/emulator/multiprocessor.h"

namespace llm::simt {

namespace {

struct sigaction previous[2];  // of SIGSEGV and SIGBUS
constinit thread_local void* crash_address = nullptr;
constinit thread_local void* crash_instruction = nullptr;

/// Runs on the fiber's stack in place of the instruction that failed.
[[noreturn]] void end_launch() {
  auto& mp = Multiprocessor::of_this_thread();
  RawFault fault;
  fault.kind = FaultKind::out_of_bounds;
  fault.where = static_cast<std::byte*>(crash_instruction) + 1;
  const auto* guard = mp.running_fiber().stack - 4096;
  const auto* address = static_cast<std::byte*>(crash_address);
  if (address >= guard && address < guard + 4096)
    fault.text = "uses more stack than a thread has (64 KB)";
  else
    fault.text = fmt::format("touches address {}, where there is no memory", crash_address);
  mp.fail(std::move(fault));
}

void say(const char* text) {
  [[maybe_unused]] const auto n = write(STDERR_FILENO, text, std::strlen(text));
}

void handler(int number, siginfo_t* info, void* context) {
  auto& mp = Multiprocessor::of_this_thread();
  if (mp.runs_kernel()) {
    // Go on in end_launch, at the top of the stack, which nobody will return to.
    const auto top =
        reinterpret_cast<std::uintptr_t>(mp.running_fiber().stack) + mp.running_fiber().stack_bytes;
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext;
    crash_address = info->si_addr;
#if defined(__x86_64__)
    crash_instruction = reinterpret_cast<void*>(registers.gregs[REG_RIP]);
    registers.gregs[REG_RSP] = static_cast<greg_t>(top / 16 * 16 - 8);  // as after a call
    registers.gregs[REG_RIP] = reinterpret_cast<greg_t>(&end_launch);
    return;
#elif defined(__aarch64__)
    crash_instruction = reinterpret_cast<void*>(registers.pc);
    registers.sp = top / 16 * 16;
    registers.pc = reinterpret_cast<std::uint64_t>(&end_launch);
    return;
#endif
  }
  const auto range = device_backend::emulated_range();
  const auto* address = static_cast<std::byte*>(info->si_addr);
  if (address >= range.begin && address < range.begin + range.reserved)
    say("the host touched device memory; copy it with copy_to_host or Tensor::to(Device::cpu) first\n");
  // As if we had never been there: the instruction runs again and the crash goes its usual way.
  sigaction(number, &previous[number == SIGSEGV ? 0 : 1], nullptr);
}

/// A stack for the handler, for each thread of the host that runs kernels: the fiber's own may have
/// overflowed.
struct HandlerStack {
  static constexpr std::size_t kBytes = 64 * 1024;
  std::unique_ptr<std::byte[]> memory = std::make_unique<std::byte[]>(kBytes);
  HandlerStack() {
    stack_t old{};
    if (sigaltstack(nullptr, &old) == 0 && (old.ss_flags & SS_DISABLE) == 0) {
      memory.reset();  // somebody gave it one already
      return;
    }
    stack_t mine{};
    mine.ss_sp = memory.get();
    mine.ss_size = kBytes;
    sigaltstack(&mine, nullptr);
  }
  ~HandlerStack() {
    if (!memory) return;
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
  }
};

}  // namespace

void catch_crashes() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &previous[0]);
    sigaction(SIGBUS, &action, &previous[1]);
  });
}

void give_handler_stack() {
  thread_local HandlerStack stack;
  (void)stack;
}

}  // namespace llm::simt
