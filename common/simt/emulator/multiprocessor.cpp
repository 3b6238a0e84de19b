#include "common/simt/emulator/multiprocessor.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <exception>

#include "common/core/error.h"
#include "common/simt/emulator/checker.h"

constinit thread_local uint3 threadIdx{};
constinit thread_local uint3 blockIdx{};
constinit thread_local uint3 blockDim{};
constinit thread_local uint3 gridDim{};

namespace llm::simt {

constinit thread_local std::byte* dynamic_shared_memory = nullptr;
constinit Checker* checker = nullptr;

namespace {

constexpr std::size_t kSharedMapped = std::size_t{512} * 1024;
// Shared memory starts as this: every float and bf16 of it is not a number.
constexpr int kPoison = 0xff;

std::uint64_t mixed(std::uint64_t x) {  // splitmix64 (Steele, Lea, Flood 2014)
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constinit thread_local Multiprocessor* here = nullptr;

}  // namespace

Multiprocessor::Multiprocessor() : threads_(kMaxThreads) {
  for (unsigned i = 0; i < kMaxThreads; ++i) threads_[i].number = i;
  void* memory = mmap(nullptr, kSharedMapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(memory != MAP_FAILED, "there is no memory for a block's shared memory");
  shared_ = static_cast<std::byte*>(memory);
}

Multiprocessor::~Multiprocessor() {
  for (auto& fiber : fibers_) free_fiber(fiber);
  munmap(shared_, kSharedMapped);
}

Multiprocessor& Multiprocessor::of_this_thread() {
  if (here == nullptr) [[unlikely]] {
    static thread_local Multiprocessor instance;
    here = &instance;
  }
  return *here;
}

void Multiprocessor::prepare(const Kernel& kernel, const LaunchConfig& config, dim3 block,
                             std::uint64_t seed) {
  kernel_ = &kernel;
  blockIdx = {block.x, block.y, block.z};
  blockDim = {config.block.x, config.block.y, config.block.z};
  gridDim = {config.grid.x, config.grid.y, config.grid.z};
  count_ = config.block.x * config.block.y * config.block.z;
  done_ = at_barrier_ = unstarted_ = 0;
  predicates_ = 0;
  failed_ = false;

  for (unsigned i = 0; i < count_; ++i) {
    threads_[i].fiber = nullptr;
    threads_[i].done = false;
    threads_[i].waits = Thread::Waits::no;
  }
  for (unsigned w = 0; w * kWarp < count_; ++w) {
    const unsigned lanes = std::min<unsigned>(kWarp, count_ - w * kWarp);
    warps_[w].gone = lanes == kWarp ? 0 : ~0u << lanes;
    warps_[w].groups.clear();
  }

  ready_begin_ = ready_count_ = 0;
  shuffled_ = seed != 0;
  if (shuffled_) {
    const std::uint64_t number =
        block.x + std::uint64_t{config.grid.x} * (block.y + std::uint64_t{config.grid.y} * block.z);
    random_ = mixed(seed ^ mixed(number)) | 1u;
    for (unsigned i = 0; i < count_; ++i) ready_[i] = &threads_[i];
    ready_count_ = unstarted_ = count_;
  }

  dynamic_bytes_ = config.shared_bytes;
  std::memset(shared_, kPoison, dynamic_bytes_);
  dynamic_shared_memory = shared_;
  static_begin_ = shared_used_ = (dynamic_bytes_ + kSharedGap + 127) / 128 * 128;
  objects_.clear();
}

bool Multiprocessor::run_block(const Kernel& kernel, const LaunchConfig& config, dim3 block,
                               std::uint64_t seed) {
  prepare(kernel, config, block, seed);
  if (checker != nullptr)
    checker->block_begins(
        *this, block.x + std::uint64_t{config.grid.x} * (block.y + std::uint64_t{config.grid.y} * block.z));
  wake(host_, *next());  // and the rest follows; we are back when the block is over
  running_ = nullptr;
  if (!failed_ && checker != nullptr) checker->block_ends(*this);
  if (failed_) {  // the stacks of all threads are given up as they are
    idle_.clear();
    for (auto& fiber : fibers_) {
      reset_fiber(fiber, fiber_entry);
      idle_.push_back(&fiber);
    }
  }
  return !failed_;
}

// ---- Taking turns ----

Thread* Multiprocessor::next() {
  if (ready_count_ > 0) {
    --ready_count_;
    if (!shuffled_) {
      Thread* thread = ready_[ready_begin_];
      ready_begin_ = (ready_begin_ + 1) % kMaxThreads;
      return thread;
    }
    random_ ^= random_ << 13;  // xorshift64 (Marsaglia 2003)
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    std::swap(ready_[random_ % (ready_count_ + 1)], ready_[ready_count_]);
    return ready_[ready_count_];
  }
  return unstarted_ < count_ ? &threads_[unstarted_++] : nullptr;
}

void Multiprocessor::make_ready(Thread& thread) {
  const unsigned end = shuffled_ ? ready_count_ : (ready_begin_ + ready_count_) % kMaxThreads;
  ready_[end] = &thread;
  ++ready_count_;
}

/// Goes on with `thread`, in its fiber or in a new one.
void Multiprocessor::wake(Fiber& from, Thread& thread) {
  if (thread.fiber == nullptr) {
    if (idle_.empty()) {
      Fiber& made = fibers_.emplace_back();
      make_fiber(made, fibers_.size(), fiber_entry);
      idle_.push_back(&made);
    }
    thread.fiber = idle_.back();
    idle_.pop_back();
    thread.fiber->starts = &thread;
  }
  now_ = thread.fiber;
  switch_fiber(from, *thread.fiber);
}

void Multiprocessor::suspend(Thread& me) {
  Thread* other = next();
  if (other == nullptr) stuck();
  switch_to(me, *other);
}

/// Returns when it is the turn of `me` again.
void Multiprocessor::switch_to(Thread& me, Thread& other) {
  if (&other == &me) return;
  wake(*me.fiber, other);
  running_ = &me;
  threadIdx = me.index;
}

void Multiprocessor::fiber_entry(boost::context::detail::transfer_t transfer) {
  Multiprocessor& mp = of_this_thread();
  Fiber& self = *mp.now_;
  arrived(self, transfer);
  mp.fiber_loop(self);
}

void Multiprocessor::fiber_loop(Fiber& self) {
  while (true) {
    Thread* thread = self.starts;
    do {
      thread->fiber = &self;
      run(*thread);
      end(*thread);
      thread = next();
    } while (thread != nullptr && thread->fiber == nullptr);
    if (thread == nullptr && done_ != count_) stuck();
    idle_.push_back(&self);
    if (thread != nullptr) {
      wake(self, *thread);
    } else {
      now_ = &host_;
      switch_fiber(self, host_);
    }
  }
}

void Multiprocessor::run(Thread& thread) {
  running_ = &thread;
  if (blockDim.y == 1 && blockDim.z == 1)
    thread.index = {thread.number, 0, 0};
  else
    thread.index = {thread.number % blockDim.x, thread.number / blockDim.x % blockDim.y,
                    thread.number / (blockDim.x * blockDim.y)};
  threadIdx = thread.index;
  thread.copies.clear();
  thread.open_group = 0;
  thread.atomics = 0;
  thread.alone_since = 0;
  std::string thrown;
  try {
    kernel_->call(kernel_->arguments);
    return;
  } catch (const std::exception& error) {
    thrown = error.what();
  } catch (...) {
    thrown = "something that is no exception";
  }
  RawFault fault;
  fault.text = fmt::format("threw: {}", thrown);
  fail(std::move(fault));
}

void Multiprocessor::end(Thread& thread) {
  if (!thread.copies.empty()) finish_copies(thread, thread.open_group + 1);
  thread.done = true;
  thread.fiber = nullptr;
  ++done_;
  // It counts as arrived wherever others wait for it.
  const unsigned number = thread.number / kWarp;
  Warp& warp = warps_[number];
  warp.gone |= 1u << (thread.number % kWarp);
  if (checker != nullptr) checker->thread_ended(*this, thread);
  for (std::size_t i = warp.groups.size(); i-- > 0;) complete(number, i);
  if (at_barrier_ > 0 && at_barrier_ + done_ == count_) release_barrier();
}

void Multiprocessor::fail(RawFault fault) {
  if (fault.thread < 0 && running_ != nullptr) fault.thread = static_cast<int>(running_->number);
  if (checker != nullptr) checker->reconsider(*this, fault);
  fault_ = std::move(fault);
  failed_ = true;
  Fiber& from = *now_;
  now_ = &host_;
  leave_fiber(from, host_);
}

// ---- Shared memory ----

void* Multiprocessor::shared_object(const char* type_name, std::size_t bytes, std::size_t alignment) {
  for (const auto& object : objects_)
    if (object.type_name == type_name) return shared_ + object.offset;
  const std::size_t unit = std::max<std::size_t>(alignment, 128);
  const std::size_t offset = (shared_used_ + unit - 1) / unit * unit;
  std::size_t all = bytes;
  for (const auto& object : objects_) all += object.bytes;
  if (all > kStaticShared) {
    RawFault fault;
    fault.text =
        fmt::format("uses {} bytes of static shared memory; a block has at most {}", all, kStaticShared);
    fail(std::move(fault));
  }
  std::memset(shared_ + offset, kPoison, bytes);
  shared_used_ = offset + bytes + kSharedGap;
  objects_.push_back({type_name, offset, bytes});
  if (checker != nullptr) checker->shared_object_made(objects_.back());
  return shared_ + offset;
}

}  // namespace llm::simt
