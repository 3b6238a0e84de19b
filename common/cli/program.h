// What every program of the book does the same way: options, exit codes, the first line.
//
//   int main(int argc, char** argv) {
//     CLI::App app{"Chapter 1: text becomes documents"};
//     llm::CommonOptions common;
//     llm::add_common_options(app, common);
//     std::int64_t bytes = 1'000'000;
//     CLI::App* generate = app.add_subcommand("generate", "write a story world");
//     generate->add_option("--bytes", bytes, "size of the corpus")->check(llm::between(1, 1e12));
//     return llm::run_program(argc, argv, app, common, [&] {
//       if (generate->parsed()) generate_stories(bytes, common.seed);
//       else walk(common);
//     });
//   }
//
// Include this in main.cpp only: CLI11 is slow to compile.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "common/core/device.h"

namespace llm {

/// The options that all programs share.
struct CommonOptions {
  std::uint64_t seed = 42;
  int threads = 0;  ///< 0: one per core; `run_program` sets the pool before the body runs
  Device device = Device::cpu;
  std::filesystem::path work = "work";  ///< where the chapters leave their artifacts for one another
  std::filesystem::path metrics;        ///< results as JSON lines (common/cli/metrics.h); empty: none

  bool uses_device = false;  ///< the program sets it if it has something to do for --device cuda

  /// What else the program computes with on a device, for its first line: the matrix library.
  std::string (*computes_with)(Device) = nullptr;
  bool says_where = true;  ///< prints that line; of several processes, one should
};

/// Adds --seed, --threads, --device, --work and --metrics. They may also stand behind a subcommand.
void add_common_options(CLI::App& app, CommonOptions& options);

/// Refuses what is no number from `low` to `high`, both included, NaN among it;
/// `add_option(...)->check(between(1, 4096))`.
CLI::Validator between(double low, double high);

/// Refuses what is no number greater than `low` and at most `high`: a learning rate, a temperature that
/// divides.
CLI::Validator above(double low, double high);

/// Parses the command line, says on stderr what the program runs on, runs `body`, and turns the outcome into
/// an exit code: 0 done; 1 failed; 2 wrong usage (CLI11's errors and UsageError). What went wrong is one
/// sentence on stderr.
///
/// stdout carries only the program's results, so they can be piped. A reader that goes away (SIGPIPE) or a
/// file-size limit (SIGXFSZ) is an error of the write, not a signal that kills.
int run_program(int argc, char** argv, CLI::App& app, CommonOptions& options,
                const std::function<void()>& body);

}  // namespace llm
