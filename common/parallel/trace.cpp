#include "common/parallel/trace.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "common/core/file.h"

namespace llm {

namespace {

using Kind = Operation::Kind;

/// Bytes sent on average over `n` ranks, times n.
std::int64_t bytes_times_ranks(const Operation& o, int n) {
  const std::int64_t bytes = o.count * static_cast<std::int64_t>(size_of(o.dtype));
  switch (o.kind) {
    case Kind::all_reduce:
      return 2 * (n - 1) * bytes;
    case Kind::reduce_scatter:
    case Kind::all_gather:
    case Kind::broadcast:
      return (n - 1) * bytes;
    case Kind::send:
      return n * bytes;
    default:
      return 0;
  }
}

}  // namespace

double Trace::now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

double Trace::bytes_sent() const {
  double sum = 0;
  for (const auto& [key, count] : counts_) sum += count.bytes();
  return sum;
}

double Trace::bytes_sent(const std::string& communicator) const {
  double sum = 0;
  for (const auto& [key, count] : counts_)
    if (key.first == communicator) sum += count.bytes();
  return sum;
}

double Trace::waited_s() const {
  double sum = 0;
  for (const auto& [key, count] : counts_) sum += count.waited_s;
  return sum;
}

void Trace::span(const std::string& what, double begin_us, double end_us) {
  if (!keep_events_) return;
  auto entry = std::make_shared<Entry>();
  entry->what = what;
  entry->begin_us = begin_us;
  entry->end_us = end_us;
  events_.push_back(std::move(entry));
}

void Trace::count(const Operation& operation, const std::string& communicator, int ranks) {
  Count& count = counts_[{communicator, operation.kind}];
  count.operations += 1;
  count.sent += bytes_times_ranks(operation, ranks);
  count.ranks = ranks;
}

std::shared_ptr<Trace::Entry> Trace::begin(const Operation& operation, const std::string& communicator,
                                           int ranks) {
  count(operation, communicator, ranks);
  auto entry = std::make_shared<Entry>();
  entry->what = describe(operation, communicator);
  entry->communicator = communicator;
  entry->begin_us = now_us();
  last_.push_back(entry);
  if (last_.size() > kKept) last_.pop_front();
  if (keep_events_) events_.push_back(entry);
  return entry;
}

void Trace::end(Entry& entry, Kind kind) {
  if (entry.end_us >= 0) return;
  entry.end_us = now_us();
  if (entry.wait_us >= 0)
    counts_[{entry.communicator, kind}].waited_s += (entry.end_us - entry.wait_us) / 1e6;
}

std::string Trace::history() const {
  std::string text;
  const double now = now_us();
  for (const auto& entry : last_) {
    const std::string state =
        entry->end_us >= 0    ? fmt::format("done in {:.3f} ms", (entry->end_us - entry->begin_us) / 1e3)
        : entry->wait_us >= 0 ? fmt::format("waited for since {:.3f} s", (now - entry->wait_us) / 1e6)
                              : std::string("under way");
    text += fmt::format("  {:.3f} s ago: {}: {}\n", (now - entry->begin_us) / 1e6, entry->what, state);
  }
  return text;
}

std::string Trace::chrome_events(int rank, double start_us) const {
  using Json = nlohmann::json;
  std::string text;
  const auto add = [&](const Json& event) { text += (text.empty() ? "" : ",\n") + event.dump(); };
  // Rows: spans, waiting, then the communicators.
  std::vector<std::string> rows = {"work", "waiting"};
  const auto row = [&](const std::string& name) {
    const auto place = std::find(rows.begin() + 2, rows.end(), name);
    if (place == rows.end()) rows.push_back(name);
    return static_cast<int>((place == rows.end() ? rows.end() - 1 : place) - rows.begin());
  };
  int id = 0;
  for (const auto& entry : events_) {
    const double end = entry->end_us >= 0 ? entry->end_us : now_us();
    const double begin = entry->begin_us - start_us;
    if (entry->communicator.empty()) {
      add({{"ph", "X"},
           {"name", entry->what},
           {"pid", rank},
           {"tid", 0},
           {"ts", begin},
           {"dur", end - entry->begin_us}});
      continue;
    }
    // Operations overlap, which only "async" events may; waits do not.
    const std::string where = fmt::format("{}.{}", rank, ++id);
    const int tid = row(entry->communicator);
    add({{"ph", "b"},
         {"cat", entry->communicator},
         {"id", where},
         {"name", entry->what},
         {"pid", rank},
         {"tid", tid},
         {"ts", begin}});
    add({{"ph", "e"},
         {"cat", entry->communicator},
         {"id", where},
         {"name", entry->what},
         {"pid", rank},
         {"tid", tid},
         {"ts", end - start_us}});
    if (entry->wait_us >= 0)
      add({{"ph", "X"},
           {"name", entry->what},
           {"pid", rank},
           {"tid", 1},
           {"ts", entry->wait_us - start_us},
           {"dur", end - entry->wait_us}});
  }
  add({{"ph", "M"},
       {"name", "process_name"},
       {"pid", rank},
       {"args", {{"name", fmt::format("rank {}", rank)}}}});
  for (std::size_t i = 0; i < rows.size(); ++i)
    add({{"ph", "M"},
         {"name", "thread_name"},
         {"pid", rank},
         {"tid", static_cast<int>(i)},
         {"args", {{"name", rows[i]}}}});
  return text;
}

void write_chrome_trace(Communicator& world, const Trace& trace, const std::filesystem::path& path) {
  // All times count from the first rank's first event on. Times travel as two whole numbers.
  const double now = Trace::now_us();
  const Tensor start = Tensor::from(
      std::vector<std::int32_t>{static_cast<std::int32_t>(now / 1e9),
                                static_cast<std::int32_t>(now - 1e9 * static_cast<std::int32_t>(now / 1e9))},
      {2});
  world.broadcast(start, 0).wait();
  const auto* time = start.data<std::int32_t>();
  // Bytes travel as i32: the longest text decides how many.
  const std::string text = trace.chrome_events(world.rank(), time[0] * 1e9 + time[1]);
  const Tensor length = Tensor::from(std::vector<std::int32_t>{static_cast<std::int32_t>(text.size())}, {1});
  const Tensor longest = length.clone();
  const Tensor lengths({world.size()}, DType::i32);
  world.all_reduce(longest, ReduceOp::max).wait();
  world.all_gather(lengths, length).wait();
  const std::int64_t words = (longest.data<std::int32_t>()[0] + 3) / 4;
  const Tensor mine({words}, DType::i32), all({words * world.size()}, DType::i32);
  std::memcpy(mine.raw(), text.data(), text.size());
  world.all_gather(all, mine).wait();
  if (world.rank() == 0) {
    AtomicFile file(path);
    file.write("{\"traceEvents\": [\n");
    for (int rank = 0; rank < world.size(); ++rank) {
      if (rank > 0) file.write(",\n");
      file.write(std::string_view(static_cast<const char*>(all.raw()) + rank * words * 4,
                                  static_cast<std::size_t>(lengths.data<std::int32_t>()[rank])));
    }
    file.write("\n]}\n");
    file.commit();
  }
  world.barrier();  // nobody goes on before the file is there
}

}  // namespace llm
