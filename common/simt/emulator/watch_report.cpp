// What the checker says: the sentences of its faults, and what it calls the memory they are about.
#include <algorithm>

#include "common/core/error.h"
#include "common/simt/emulator/symbols.h"
#include "common/simt/emulator/watch.h"

namespace llm::simt {

/// Neither the thread's own stack, nor shared or global memory: the kernel's arguments or constants; or
/// memory of the host.
void Watch::elsewhere(const void* address, bool write, const void* where) {
  const auto* a = static_cast<const std::byte*>(address);
  const Fiber& fiber = mp_->running_fiber();
  const auto* arguments = static_cast<const std::byte*>(kernel_->arguments);
  if (a >= arguments && a < arguments + kernel_->argument_bytes) return;
  if (program_.contains(address)) return;
  RawFault fault;
  fault.kind = FaultKind::out_of_bounds;
  fault.where = where;
  if (constexpr std::size_t kBelow = 1 << 20; a < fiber.stack && a >= fiber.stack - kBelow) {
    fault.text = "uses more stack than a thread has";
    mp_->fail(std::move(fault));
  }
  fault.text = fmt::format("{} address {}", write ? "writes" : "reads", address);
  fault.end = ", which is no memory of the device";
  mp_->fail(std::move(fault));
}

RawFault Watch::describe_race(const Region& region, const Access& access, const Conflict& conflict) {
  RawFault fault;
  fault.kind = FaultKind::race;
  fault.memory = region.name;
  fault.text = fmt::format("{} {}", access.write ? "writes" : "reads", name(region, conflict.offset).what);
  fault.where = sites_.where(access.site);
  fault.other_where = sites_.where(conflict.site);
  const char* did = conflict.wrote ? "written" : "read";
  if (conflict.other_block) {
    auto it = std::upper_bound(starts_.begin(), starts_.end(), conflict.time,
                               [](std::uint32_t time, const BlockStart& start) { return time < start.time; });
    fault.other_text =
        fmt::format(", {} by thread {} of block {}", did, spell_thread(conflict.thread, ::blockDim),
                    spell_thread(static_cast<unsigned>(std::prev(it)->block), ::gridDim));
    fault.end = " in the same launch, and nothing orders blocks";
    return fault;
  }
  fault.other_text = fmt::format(", {} by thread {}", did, spell_thread(conflict.thread, ::blockDim));
  fault.end = conflict.thread / kWarp == access.thread / kWarp ? " with no barrier or __syncwarp between"
                                                               : " with no barrier between";
  // The reader came first and found nothing: it should have come second, and is told so.
  if (access.write && !conflict.wrote && !region.initialised.all(conflict.offset, 1)) {
    fault.thread = static_cast<int>(conflict.thread);
    fault.text = fmt::format("reads {}", name(region, conflict.offset).what);
    std::swap(fault.where, fault.other_where);
    fault.other_text = fmt::format(", written by thread {}", spell_thread(access.thread, ::blockDim));
  }
  return fault;
}

void Watch::report_bounds(const Region& region, std::size_t offset, std::size_t bytes, bool write,
                          const void* where) {
  const Named named = name(region, offset);
  RawFault fault;
  fault.kind = FaultKind::out_of_bounds;
  fault.memory = region.name;
  fault.text =
      fmt::format("{} {} byte{} at {}", write ? "writes" : "reads", bytes, bytes == 1 ? "" : "s", named.what);
  fault.where = where;
  fault.end = named.remark;
  mp_->fail(std::move(fault));
}

void Watch::suspect(const Region& region, std::size_t offset, const void* where) {
  if (suspect_.region == nullptr) suspect_ = {&region, offset, mp_->thread().number, where};
}

/// Nobody came to write what the suspect read.
void Watch::judge_suspect() {
  if (suspect_.region != nullptr) mp_->fail({});
}

void Watch::reconsider(Multiprocessor&, RawFault& fault) {
  // A race may be why nobody had written yet; everything else may come of reading rubbish.
  if (suspect_.region == nullptr || fault.kind == FaultKind::race) return;
  fault = {};
  fault.kind = FaultKind::uninitialised;
  fault.memory = suspect_.region->name;
  fault.thread = static_cast<int>(suspect_.thread);
  fault.text = fmt::format("reads {}", name(*suspect_.region, suspect_.offset).what);
  fault.where = suspect_.where;
  fault.end = ", which nobody has written";
  suspect_ = {};
}

Watch::Named Watch::name(const Region& region, std::size_t offset) {
  return &region == shared_.get() ? name_shared(offset) : name_global(offset);
}

/// "Tiles[+20]": byte 20 of the shared object of type Tiles.
Watch::Named Watch::name_shared(std::size_t offset) {
  const SharedObject* nearest = nullptr;
  for (const auto& object : mp_->shared_objects())
    if (object.offset <= offset) nearest = &object;
  const std::string what = nearest != nullptr ? type_name(nearest->type_name) : "dynamic shared memory";
  const std::size_t at = nearest != nullptr ? offset - nearest->offset : offset;
  const std::size_t bytes = nearest != nullptr ? nearest->bytes : mp_->dynamic_bytes();
  return {fmt::format("{}[+{}]", what, at), at < bytes ? "" : fmt::format(", past its {} bytes", bytes)};
}

/// "byte 20 of a block of 4096".
Watch::Named Watch::name_global(std::size_t offset) {
  const std::lock_guard lock(mutex_);
  const auto after = blocks_.upper_bound(offset);
  const bool has_before = after != blocks_.begin();
  const auto before = has_before ? std::prev(after) : after;
  if (after != blocks_.end() && after->second.live) {  // between two blocks: the nearer one
    const std::size_t end = has_before ? before->first + before->second.bytes : 0;
    if (offset >= end && after->first - offset < offset - end)
      return {fmt::format("byte -{} of a block of {}", after->first - offset, after->second.bytes), ""};
  }
  if (!has_before) return {"no block of device memory", ""};
  return {fmt::format("byte {} of a block of {}", offset - before->first, before->second.bytes),
          before->second.live ? "" : ", which was freed"};
}

}  // namespace llm::simt
