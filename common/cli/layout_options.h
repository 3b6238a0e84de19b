// The options that lay a run out over ranks, which chapters 6 and 7 share. Include this in main.cpp only, as
// program.h.
#pragma once

#include "common/cli/program.h"

namespace llm {

/// Adds them to a command that has `ranks`, `nccl`, `deadline` and `parallel` (ParallelOptions).
template <typename Command>
void add_layout_options(CLI::App* app, Command& c, const char* ranks) {
  app->add_option("--ranks", c.ranks, ranks)->check(between(0, 1024))->capture_default_str();
  app->add_option("--pp", c.parallel.layout.pp, "pipeline stages")
      ->check(between(1, 1024))
      ->capture_default_str();
  app->add_option("--tp", c.parallel.layout.tp,
                  "tensor-parallel ranks; --ranks / (pp * tp) are data-parallel")
      ->check(between(1, 1024))
      ->capture_default_str();
  app->add_option("--zero", c.parallel.zero, "ZeRO stage")->check(between(0, 3))->capture_default_str();
  app->add_flag("--no-sync", c.parallel.no_sync,
                "ZeRO 2 and 3: add up a rank's micro-batches before they are reduced");
  app->add_flag("--nccl", c.nccl, "under mpirun: numbers go from GPU to GPU, over NCCL");
  app->add_option("--deadline", c.deadline, "seconds that a rank waits for another; 0: LLM_DEADLINE or 60")
      ->check(between(0, 1e6))
      ->capture_default_str();
}

}  // namespace llm
