// Without a GPU: what the software GPU counts, and what follows from it for a GPU (walk_rungs_measured.cpp:
// with one).
#ifndef LLM_CUDA
#include <fmt/format.h>

#include <algorithm>

#include "ch03_attention/walk_rungs.h"
#include "common/cli/format.h"
#include "common/cli/table.h"
#include "common/core/error.h"
#include "common/simt/report.h"

namespace llm::ch03 {
namespace {

/// A GPU by its data sheet.
struct Gpu {
  const char* name;
  double bytes_per_second;       // global memory
  double shared_per_second;      // turns of 128 bytes of shared memory: one per multiprocessor and cycle
  double operations_per_second;  // f32
  double tensor_operations_per_second;  // bf16 in, f32 sums, dense
};
// NVIDIA H100 SXM5: 132 multiprocessors at up to 1.98 GHz, each with 128 f32 lanes; HBM3.
constexpr Gpu kGpu = {"H100 (SXM)", 3.35e12, 132 * 1.98e9, 66.9e12, 989.4e12};

simt::Counts total(const std::vector<simt::Counts>& launches) {
  simt::Counts sum;
  for (const simt::Counts& c : launches) {
    sum.global_load_sectors += c.global_load_sectors;
    sum.global_store_sectors += c.global_store_sectors;
    sum.warp_loads += c.warp_loads;
    sum.warp_stores += c.warp_stores;
    sum.shared_loads += c.shared_loads;
    sum.shared_stores += c.shared_stores;
    sum.shared_turns += c.shared_turns;
    sum.bank_conflicts += c.bank_conflicts;
    sum.barriers += c.barriers;
    sum.mma_operations += c.mma_operations;
  }
  return sum;
}

std::string per_access(std::int64_t sectors, std::int64_t accesses) {
  return accesses == 0 ? "-"
                       : fmt::format("{:.1f}", static_cast<double>(sectors) / static_cast<double>(accesses));
}

}  // namespace

bool measured() {
  return false;
}

void show_rungs(const std::vector<Rung>& rungs, MetricsWriter& metrics) {
  if (!simt::checked()) {
    for (const Rung& rung : rungs) rung.run();
    fmt::print("The kernels ran; this build of the software GPU does not count (preset cpu does).\n");
    return;
  }
  Table counts({"kernel", "launches", "moved", "sectors/load", "/store", "shared accesses", "bank conflicts",
                "barriers"});
  Table roofline({"kernel", "operations", "per byte", "limited by", "predicted ms", "roofline ms", "factor"});
  for (const Rung& rung : rungs) {
    simt::clear_counts();
    rung.run();
    const std::vector<simt::Counts> launches = simt::counted_launches();
    const simt::Counts c = total(launches);
    const double moved = 32.0 * static_cast<double>(c.global_load_sectors + c.global_store_sectors);
    counts.add({rung.name, std::to_string(launches.size()), byte_text(moved),
                per_access(c.global_load_sectors, c.warp_loads),
                per_access(c.global_store_sectors, c.warp_stores),
                with_commas(c.shared_loads + c.shared_stores), with_commas(c.bank_conflicts),
                with_commas(c.barriers)});

    const double peak = rung.tensor_cores ? kGpu.tensor_operations_per_second : kGpu.operations_per_second;
    const double done =
        rung.tensor_cores ? 2.0 * 16 * 8 * 16 * static_cast<double>(c.mma_operations) : rung.cost.operations;
    const std::pair<double, const char*> limits[] = {
        {rung.times * moved / kGpu.bytes_per_second, "global memory"},
        {rung.times * static_cast<double>(c.shared_turns) / kGpu.shared_per_second, "shared memory"},
        {rung.times * done / peak, rung.tensor_cores ? "tensor cores" : "arithmetic"}};
    const auto [seconds, limit] = *std::max_element(std::begin(limits), std::end(limits));
    const double ideal = std::max(rung.full.bytes / kGpu.bytes_per_second, rung.full.operations / peak);
    roofline.add({rung.name, short_count(done), fmt::format("{:.2f}", done / moved), limit,
                  fmt::format("{:.3f}", 1e3 * seconds), fmt::format("{:.3f}", 1e3 * ideal),
                  fmt::format("{:.1f}", seconds / ideal)});
    metrics.write({{"what", "kernel_counts"},
                   {"kernel", rung.name},
                   {"bytes_moved", moved},
                   {"load_sectors", c.global_load_sectors},
                   {"warp_loads", c.warp_loads},
                   {"store_sectors", c.global_store_sectors},
                   {"warp_stores", c.warp_stores},
                   {"shared_accesses", c.shared_loads + c.shared_stores},
                   {"bank_conflicts", c.bank_conflicts},
                   {"operations", done},
                   {"predicted_on", kGpu.name},
                   {"predicted_ms", 1e3 * seconds},
                   {"roofline_ms", 1e3 * ideal}});
  }
  counts.print();
  fmt::print(
      "\nA prediction, not a measurement: an {} by its data sheet, all of it busy, nothing kept in "
      "caches:\n\n",
      kGpu.name);
  roofline.print();
}

void show_report(const std::function<void()>& body) {
  if (!simt::checked()) return;
  try {
    body();
  } catch (const Error& error) {
    fmt::print("  {}\n", error.what());
    return;
  }
  fail("the software GPU has nothing to say about a kernel that is wrong");
}

}  // namespace llm::ch03
#endif
