#include "common/cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "common/cli/format.h"

namespace llm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSecondsPerFrame = 0.1;  // on a terminal
constexpr double kSecondsPerLine = 10;    // elsewhere

double seconds_between(Clock::time_point a, Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

bool is_terminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb";
}

int terminal_width() {
  winsize size{};
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// A bar of `width` columns in steps of an eighth of a column.
std::string bar(double fraction, int width) {
  static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int eighths = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * width * 8);
  std::string text;
  for (int i = 0; i < eighths / 8; ++i) text += "█";
  text += kEighths[eighths % 8];
  return pad(text, width);
}

}  // namespace

Progress::Progress(std::string label, std::int64_t total, std::string unit)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      terminal_(is_terminal()),
      start_(Clock::now()),
      last_draw_(start_) {
  if (terminal_) draw(false);
}

Progress::~Progress() {
  if (line_open_) std::fputs("\n", stderr);
}

double Progress::seconds() const {
  return seconds_between(start_, Clock::now());
}

void Progress::start_at(std::int64_t done) {
  const std::lock_guard lock(mutex_);
  done_ = first_ = done;
  start_ = Clock::now();
}

void Progress::update(std::int64_t done, std::string_view note) {
  const std::lock_guard lock(mutex_);
  done_ = done;
  note_ = note;
  if (!finished_ &&
      seconds_between(last_draw_, Clock::now()) >= (terminal_ ? kSecondsPerFrame : kSecondsPerLine))
    draw(false);
}

void Progress::advance(std::int64_t more) {
  const std::lock_guard lock(mutex_);
  done_ += more;
  if (!finished_ &&
      seconds_between(last_draw_, Clock::now()) >= (terminal_ ? kSecondsPerFrame : kSecondsPerLine))
    draw(false);
}

void Progress::say(std::string_view line) {
  const std::lock_guard lock(mutex_);
  if (line_open_) std::fputs("\r\x1b[K", stderr);
  fmt::print("{}\n", line);
  std::fflush(stdout);
  if (line_open_) draw(false);
}

void Progress::finish(std::string_view note) {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  if (!note.empty()) note_ = note;
  draw(true);
}

std::string Progress::describe(bool last) const {
  const bool bytes = unit_ == "B";
  const auto amount = [&](double n) { return bytes ? byte_text(n) : short_count(n); };
  const auto exact = [&](std::int64_t n) {
    return bytes ? byte_text(static_cast<double>(n)) : with_commas(n);
  };
  const std::string unit = bytes || unit_.empty() ? "" : " " + unit_;
  const double elapsed = seconds();
  const double rate = elapsed > 0 ? static_cast<double>(done_ - first_) / elapsed : 0;

  if (last) {
    std::string text = fmt::format("{}{} in {}", exact(done_), unit, duration_text(elapsed));
    if (elapsed > 0.05) text += fmt::format(", {}/s", amount(rate));
    return text + (note_.empty() ? "" : "  " + note_);
  }
  std::string text =
      total_ > 0 ? fmt::format("{} of {}{}", exact(done_), exact(total_), unit) : exact(done_) + unit;
  if (rate > 0) text += fmt::format(", {}/s", amount(rate));
  if (rate > 0 && total_ > done_)
    text += fmt::format(", {} left", duration_text(static_cast<double>(total_ - done_) / rate));
  return text + (note_.empty() ? "" : "  " + note_);
}

void Progress::draw(bool last) {
  last_draw_ = Clock::now();
  const std::string text = describe(last);
  if (!terminal_) {
    fmt::print(stderr, "{}: {}\n", label_, text);
    return;
  }
  std::string line = label_ + "  ";
  if (last) {
    fmt::print(stderr, "\r\x1b[K{}{}\n", line, text);
    line_open_ = false;
    return;
  }
  constexpr int kBar = 20;
  if (total_ > 0) line += "│" + bar(static_cast<double>(done_) / static_cast<double>(total_), kBar) + "│ ";
  fmt::print(stderr, "\r\x1b[K{}", shorten(line + text, terminal_width() - 1));
  std::fflush(stderr);
  line_open_ = true;
}

}  // namespace llm
