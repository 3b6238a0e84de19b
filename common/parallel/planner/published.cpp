#include "common/parallel/planner/published.h"

#include <cmath>
#include <cstdlib>
#include <sstream>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/parallel/planner/memory.h"
#include "common/parallel/planner/step_time.h"

namespace llm::planner {

namespace {

using Row = std::map<std::string, std::string>;

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> cells;
  std::stringstream stream(line);
  for (std::string cell; std::getline(stream, cell, ',');) cells.push_back(cell);
  if (line.ends_with(',')) cells.emplace_back();
  return cells;
}

int whole(const Row& row, const std::string& column) {
  return static_cast<int>(number(row, column));
}

/// FNV-1a: the same everywhere and at any time.
std::uint64_t hash(const std::string& text) {
  std::uint64_t h = 0xcbf29ce484222325;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return h;
}

ModelShape megatron_shape(std::int64_t layers, std::int64_t hidden, std::int64_t heads) {
  return {"GPT", layers, hidden, heads, heads, 4 * hidden, 51200, 2048, false, true, true};
}

/// The two models of the benchmark. What its MFU counts says that keys and values have all heads, that the
/// vocabulary is 131,072, and that the 1B model ties its head to the embedding where both are on one rank.
ModelShape nanotron_shape(const std::string& name, bool tied) {
  if (name == "1B") return {name, 16, 2048, 32, 32, 8192, 131072, 4096, true, false, tied};
  if (name == "8B") return {name, 32, 4096, 32, 32, 14336, 131072, 4096, true, false, false};
  fail("there is no model '{}' in this table", name);
}

}  // namespace

std::vector<Row> read_table(const std::filesystem::path& path) {
  std::istringstream text(read_file(path));
  std::vector<std::string> names;
  std::vector<Row> rows;
  for (std::string line; std::getline(text, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line.starts_with('#')) continue;
    const std::vector<std::string> cells = split(line);
    if (names.empty()) {
      names = cells;
      continue;
    }
    check(cells.size() == names.size(), "{}: a row has {} cells, expected {}: {}", path.string(),
          cells.size(), names.size(), line);
    Row row;
    for (std::size_t i = 0; i < names.size(); ++i) row[names[i]] = cells[i];
    rows.push_back(std::move(row));
  }
  return rows;
}

double number(const Row& row, const std::string& column) {
  const auto cell = row.find(column);
  check(cell != row.end(), "the table has no column '{}'", column);
  char* end = nullptr;
  const double value = std::strtod(cell->second.c_str(), &end);
  check(end != cell->second.c_str() && (*end == 0 || *end == '*'), "column '{}' has '{}', expected a number",
        column, cell->second);
  return value;
}

std::vector<MeasuredRun> read_ultrascale(const std::filesystem::path& tables) {
  std::vector<MeasuredRun> runs;
  for (const Row& row : read_table(tables / "ultrascale_benchmarks.csv")) {
    MeasuredRun run;
    Layout& l = run.layout;
    l.pp = whole(row, "pp");
    l.dp = whole(row, "dp");
    l.tp = whole(row, "tp");
    l.zero = whole(row, "zero");
    l.micro_batch = whole(row, "mbs");
    l.micro_batches = whole(row, "grad_acc");
    l.sequence_parallel = l.tp > 1;
    run.shape = nanotron_shape(row.at("model"), l.pp == 1 && row.at("model") == "1B");
    run.ran = !std::isnan(number(row, "mfu_pct"));
    run.mfu = number(row, "mfu_pct") / 100;
    run.memory = number(row, "gpu_mem_gb") * 1024.0 * 1024 * 1024;
    std::string key = row.at("model");
    for (const char* column : {"nodes", "dp", "tp", "pp", "zero", "mbs", "grad_acc"})
      key += "," + row.at(column);
    run.held_out = (hash(key) >> 32) % 2 == 1;
    runs.push_back(std::move(run));
  }
  return runs;
}

std::vector<ScalingRow> read_sc21_table1(const std::filesystem::path& tables) {
  std::vector<ScalingRow> rows;
  for (const Row& row : read_table(tables / "megatron_sc21_table1.csv")) {
    ScalingRow r;
    r.shape = megatron_shape(whole(row, "layers"), whole(row, "hidden"), whole(row, "heads"));
    r.layout.tp = whole(row, "tp");
    r.layout.pp = whole(row, "pp");
    r.layout.dp = whole(row, "gpus") / (r.layout.tp * r.layout.pp);
    r.layout.recompute = Recompute::full;
    r.batch = whole(row, "batch");
    r.teraflops = number(row, "achieved_tflops_per_gpu");
    rows.push_back(r);
  }
  return rows;
}

std::vector<ScalingRow> read_sc21_table2(const std::filesystem::path& tables) {
  std::vector<ScalingRow> rows;
  for (const Row& row : read_table(tables / "megatron_sc21_table2_ptdp_vs_zero3.csv")) {
    ScalingRow r;
    // Section 5.2: GPT-3 with 175B parameters, and the 530B model of table 1.
    const bool large = number(row, "params_billion") > 300;
    r.shape = large ? megatron_shape(105, 20480, 128) : megatron_shape(96, 12288, 96);
    const bool zero3 = row.at("scheme") == "ZeRO-3";
    r.layout.tp = zero3 ? 1 : 8;
    r.layout.pp = whole(row, "model_parallel_size") / r.layout.tp;
    r.layout.dp = whole(row, "gpus") / whole(row, "model_parallel_size");
    r.layout.zero = zero3 ? 3 : 0;
    r.layout.recompute = Recompute::full;
    r.layout.micro_batch = whole(row, "micro_batch");
    r.batch = whole(row, "batch");
    r.layout.micro_batches = r.batch / (r.layout.dp * r.layout.micro_batch);
    r.teraflops = number(row, "achieved_tflops_per_gpu");
    rows.push_back(r);
  }
  return rows;
}

std::vector<IterationRow> read_korthikanti(const std::filesystem::path& tables) {
  std::vector<IterationRow> rows;
  for (const Row& row : read_table(tables / "korthikanti_tables3_5.csv")) {
    IterationRow r;
    r.shape = megatron_shape(whole(row, "layers"), whole(row, "hidden"), whole(row, "heads"));
    Layout& l = r.full;
    l.tp = whole(row, "tp");
    l.pp = whole(row, "pp");
    l.micro_batch = whole(row, "micro_batch");
    l.micro_batches = whole(row, "global_batch") / l.micro_batch;
    l.chunks = whole(row, "interleave");
    if (l.chunks > 1) l.schedule = PipelineKind::interleaved;
    l.recompute = Recompute::full;
    r.selective = l;
    r.selective.recompute = Recompute::attention;
    r.selective.sequence_parallel = true;
    r.full_seconds = number(row, "full_recompute_s");
    r.selective_seconds = number(row, "present_s");
    rows.push_back(r);
  }
  return rows;
}

Layout fastest_fitting(const ModelShape& shape, const Hardware& hw, const Layout& layout, std::int64_t batch,
                       const Calibration& c) {
  Layout best;
  double least = 0;
  for (const std::int64_t micro_batch : {1, 2, 4, 8, 16})
    for (int chunks = 1; chunks <= (layout.pp > 1 ? 6 : 1); ++chunks) {
      if (batch % (layout.dp * micro_batch) != 0 || shape.layers % (std::int64_t{layout.pp} * chunks) != 0)
        continue;
      Layout l = layout;
      l.micro_batch = micro_batch;
      l.micro_batches = batch / (layout.dp * micro_batch);
      l.chunks = chunks;
      if (chunks > 1) {
        if (l.micro_batches % l.pp != 0) continue;
        l.schedule = PipelineKind::interleaved;
      }
      if (memory_per_rank(shape, l, c).total() > hw.memory) continue;
      const double time = step_time(shape, hw, l, c).total();
      if (least == 0 || time < least) {
        least = time;
        best = l;
      }
    }
  check(least > 0, "no micro-batch of {} fits into {}", shape.name, hw.name);
  return best;
}

double predicted_teraflops(const ModelShape& shape, const Hardware& hw, const Layout& layout,
                           const Calibration& c) {
  return hardware_flops_per_step(shape, layout) / step_time(shape, hw, layout, c).total() / layout.devices() /
         1e12;
}

}  // namespace llm::planner
