// What one rank said to the others: how many bytes, when, and how long it waited.
//
// Bytes are counted as the best known algorithms send them, on average over the ranks: with B bytes on n
// ranks, a ring sends
//
//   all_reduce of B                 2 (n-1)/n B       (a reduce_scatter and an all_gather)
//   reduce_scatter of x, B bytes      (n-1)/n B
//   all_gather into B bytes           (n-1)/n B
//   broadcast of B                    (n-1)/n B       (all ranks but the last pass it on)
//   send of B                                 B
//
// and that is what the MPI backend sends too. Chapter 6 explains it.
#pragma once

#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/parallel/operation.h"

namespace llm {

class Trace {
 public:
  /// `keep_events`: also remember every operation, for a Chrome trace; otherwise the last 64 only.
  explicit Trace(bool keep_events = false) : keep_events_(keep_events) {}

  struct Count {
    std::int64_t operations = 0;
    std::int64_t sent = 0;  // bytes times `ranks`: a whole number
    int ranks = 1;
    double waited_s = 0;
    double bytes() const { return static_cast<double>(sent) / ranks; }
  };
  /// By name of the communicator and operation; a message counts as a send or recv also within an exchange.
  const std::map<std::pair<std::string, Operation::Kind>, Count>& counts() const { return counts_; }
  /// Bytes sent: over all communicators, or over those of one name.
  double bytes_sent() const;
  double bytes_sent(const std::string& communicator) const;
  double waited_s() const;
  void reset_counts() { counts_.clear(); }

  /// A piece of this rank's own work ("forward 3"), for the Chrome trace. Times are of now_us().
  void span(const std::string& what, double begin_us, double end_us);
  static double now_us();  // the same clock for all processes of a machine

  /// The last operations, one a line, oldest first: what was done, and what is still under way.
  std::string history() const;
  /// This rank's events, as objects of Chrome's trace format with commas between; `rank` is their process.
  std::string chrome_events(int rank, double start_us) const;

  // For the tracing wrapper.
  struct Entry {
    std::string what;          // "all_reduce #5 of 1024 f32 on 'world'"
    std::string communicator;  // its row in the Chrome trace; empty: a span
    double begin_us = 0, end_us = -1;
    double wait_us = -1;  // when this rank began to wait
  };
  std::shared_ptr<Entry> begin(const Operation& operation, const std::string& communicator, int ranks);
  void count(const Operation& operation, const std::string& communicator, int ranks);
  void end(Entry& entry, Operation::Kind kind);

 private:
  static constexpr std::size_t kKept = 64;
  bool keep_events_;
  std::map<std::pair<std::string, Operation::Kind>, Count> counts_;
  std::deque<std::shared_ptr<Entry>> last_;
  std::vector<std::shared_ptr<Entry>> events_;
};

/// Gathers all ranks' events and writes them, on rank 0, as one JSON file for chrome://tracing or Perfetto:
/// a process per rank, in it a row per communicator, one for waiting and one for spans.
void write_chrome_trace(Communicator& world, const Trace& trace, const std::filesystem::path& path);

}  // namespace llm
