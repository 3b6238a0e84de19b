// How far a long loop is: one line that redraws itself on a terminal, a line now and then elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace llm {

/// Shows, on stderr, `label`, how much of `total` is done, the rate and the time left.
///
///   Progress progress("tokenizing", bytes, "B");
///   for (...) { ...; progress.advance(document.size()); }
///   progress.finish();
///
/// A call costs a clock reading; several threads may call at once.
class Progress {
 public:
  /// `total` 0: not known beforehand. `unit` names what is counted ("steps", "tokens", "B").
  Progress(std::string label, std::int64_t total, std::string unit = "");
  /// Ends the line; without `finish` it stays where the loop stopped (an error follows, most likely).
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// `done` of `total`; `note` is shown behind ("loss 1.234").
  void update(std::int64_t done, std::string_view note = "");
  void advance(std::int64_t more = 1);
  /// Prints a line on stdout above the progress line.
  void say(std::string_view line);
  /// All is done: leaves one line with the total, the time it took and the rate.
  void finish(std::string_view note = "");

  /// Work that was done before (a resumed run): it counts as done, not towards the rate.
  void start_at(std::int64_t done);
  double seconds() const;

 private:
  void draw(bool last);
  std::string describe(bool last) const;

  std::mutex mutex_;
  std::string label_, unit_, note_;
  std::int64_t total_, done_ = 0, first_ = 0;
  bool terminal_, finished_ = false, line_open_ = false;
  std::chrono::steady_clock::time_point start_, last_draw_;
};

}  // namespace llm
