// Published measurements, read from CSV files: what the planner is fitted to and held against.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/parallel/planner/calibration.h"
#include "common/parallel/planner/layout.h"
#include "common/parallel/planner/model_shape.h"

namespace llm::planner {

/// The rows of a CSV file by the names in its first line; lines that begin with # are comments. Error if the
/// file is not there or a row has another number of cells. No quoting.
std::vector<std::map<std::string, std::string>> read_table(const std::filesystem::path& path);
/// A cell as a number; Error that names the column if it is none. "nan" is a number.
double number(const std::map<std::string, std::string>& row, const std::string& column);

/// One run of nanotron on H100 nodes (The Ultra-Scale Playbook, 2025: ultrascale_benchmarks.csv).
struct MeasuredRun {
  ModelShape shape{};
  Layout layout{};
  bool ran = false;       // else it crashed or ran out of memory
  double mfu = 0;         // of the peak, 0 to 1
  double memory = 0;      // bytes
  bool held_out = false;  // not for fitting: by a hash of the layout, about half of the runs
};
std::vector<MeasuredRun> read_ultrascale(const std::filesystem::path& tables);

/// One row of Narayanan et al. 2021, table 1 or 2 (megatron_sc21_*.csv), A100-80GB. The layout lacks what the
/// paper does not print, micro-batch and chunks in table 1; `fastest_fitting` chooses them.
struct ScalingRow {
  ModelShape shape{};
  Layout layout{};
  std::int64_t batch = 0;
  double teraflops = 0;  // per device, what was recomputed included
};
std::vector<ScalingRow> read_sc21_table1(const std::filesystem::path& tables);
std::vector<ScalingRow> read_sc21_table2(const std::filesystem::path& tables);

/// Korthikanti et al. 2022, table 5 (korthikanti_tables3_5.csv): seconds per iteration, all recomputed, and
/// with sequence parallelism and only attention recomputed.
struct IterationRow {
  ModelShape shape{};
  Layout full{}, selective{};
  double full_seconds = 0, selective_seconds = 0;
};
std::vector<IterationRow> read_korthikanti(const std::filesystem::path& tables);

/// The micro-batch (a power of two, up to 16) and number of chunks (up to 6) that make `layout` fastest for
/// `batch` sequences, among those that fit. Error if none does.
Layout fastest_fitting(const ModelShape& shape, const Hardware& hardware, const Layout& layout,
                       std::int64_t batch, const Calibration& calibration);

/// TFLOP/s per device that the planner predicts, recomputed operations included.
double predicted_teraflops(const ModelShape& shape, const Hardware& hardware, const Layout& layout,
                           const Calibration& calibration);

}  // namespace llm::planner
