// The planner against published tables. They are read from $LLM_DATA/published_tables; without it those tests
// are skipped, and what can be computed by hand remains.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>

#include "common/core/error.h"
#include "common/parallel/planner/memory.h"
#include "common/parallel/planner/plan.h"
#include "common/parallel/planner/published.h"
#include "common/parallel/planner/step_time.h"
#include "common/parallel/schedule_check.h"

namespace llm::planner {
namespace {

namespace fs = std::filesystem;

class PublishedTables : public testing::Test {
 protected:
  void SetUp() override {
    const char* data = std::getenv("LLM_DATA");
    if (data == nullptr || !fs::exists(fs::path(data) / "published_tables"))
      GTEST_SKIP() << "LLM_DATA does not name a folder with published_tables";
    tables_ = fs::path(data) / "published_tables";
  }
  fs::path tables_;
};

/// One unit of the last digit that a number is printed with: "41.3" -> 0.1.
double last_digit(const std::string& printed) {
  const std::size_t point = printed.find('.');
  return point == std::string::npos ? 1 : std::pow(10.0, -double(printed.size() - point - 1));
}

/// A formula of numbers, the variables a s h t, and + * / ( ), as table 2 of Korthikanti et al. prints them.
class Formula {
 public:
  Formula(std::string text, std::map<char, double> variables)
      : text_(std::move(text)), variables_(std::move(variables)) {
    text_.erase(std::remove(text_.begin(), text_.end(), ' '), text_.end());
  }
  double value() {
    at_ = 0;
    const double result = sum();
    EXPECT_EQ(at_, text_.size()) << text_;
    return result;
  }

 private:
  double sum() {
    double result = product();
    while (at_ < text_.size() && text_[at_] == '+') ++at_, result += product();
    return result;
  }
  double product() {
    double result = factor();
    while (at_ < text_.size() && (text_[at_] == '*' || text_[at_] == '/'))
      if (text_[at_++] == '*')
        result *= factor();
      else
        result /= factor();
    return result;
  }
  double factor() {
    if (at_ < text_.size() && text_[at_] == '(') {
      ++at_;
      const double result = sum();
      ++at_;  // the closing one
      return result;
    }
    if (at_ < text_.size() && variables_.count(text_[at_])) return variables_.at(text_[at_++]);
    std::size_t digits = 0;
    const double result = std::stod(text_.substr(at_), &digits);
    at_ += digits;
    return result;
  }
  std::string text_;
  std::map<char, double> variables_;
  std::size_t at_ = 0;
};

/// Ranks of values, equal ones share theirs; and the correlation of two such lists (Spearman's).
std::vector<double> ranks_of(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t first = 0; first < order.size();) {
    std::size_t last = first;
    while (last + 1 < order.size() && values[order[last + 1]] == values[order[first]]) ++last;
    for (std::size_t i = first; i <= last; ++i) ranks[order[i]] = double(first + last) / 2;
    first = last + 1;
  }
  return ranks;
}
double rank_correlation(const std::vector<double>& x, const std::vector<double>& y) {
  const std::vector<double> a = ranks_of(x), b = ranks_of(y);
  const double mean = double(a.size() - 1) / 2;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean) * (b[i] - mean);
    aa += (a[i] - mean) * (a[i] - mean);
    bb += (b[i] - mean) * (b[i] - mean);
  }
  return ab / std::sqrt(aa * bb);
}

// ---- Memory -----------------------------------------------------------------------------------------

TEST_F(PublishedTables, ZeroTable1ToTheLastPrintedDigit) {
  int right = 0, cells = 0;
  for (const auto& row : read_table(tables_ / "zero_table1.csv")) {
    int zero = 1;
    for (const char* column : {"p_os_gb", "p_os_g_gb", "p_os_g_p_gb"}) {
      const double gb =
          model_states(1e9 * number(row, "params_billion"), int(number(row, "dp_degree")), zero++).total() /
          1e9;
      ++cells;
      const bool close = std::abs(gb - number(row, column)) < last_digit(row.at(column)) * (1 + 1e-9);
      right += close;
      EXPECT_TRUE(close) << row.at("params_billion") << "B, dp " << row.at("dp_degree") << ", " << column
                         << ": " << gb << ", printed " << row.at(column);
    }
  }
  EXPECT_EQ(cells, 54);
  std::printf("ZeRO table 1: %d of %d\n", right, cells);
}

TEST_F(PublishedTables, ActivationsOfOneLayerFollowKorthikanti) {
  struct Case {
    const char* configuration;
    bool tensor, sequence;
    Recompute recompute;
  };
  const std::vector<Case> cases = {
      {"no parallelism", false, false, Recompute::none},
      {"tensor parallel (baseline)", true, false, Recompute::none},
      {"tensor + sequence parallel", true, true, Recompute::none},
      {"tensor parallel + selective recompute", true, false, Recompute::attention},
      {"tensor + sequence parallel + selective recompute", true, true, Recompute::attention},
      {"full recompute", true, false, Recompute::full},
  };
  const auto rows = read_table(tables_ / "korthikanti_table2_activation_formulas.csv");
  ASSERT_EQ(rows.size(), cases.size());
  for (const char* model : {"gpt-22b", "gpt-175b", "gpt-530b", "gpt-1t"}) {
    const ModelShape shape = model_shape(model);
    const double s = double(shape.sequence), h = double(shape.hidden), a = double(shape.heads);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      ASSERT_EQ(rows[i].at("configuration"), cases[i].configuration);
      for (const int t : {1, 2, 8}) {
        if (t > 1 && !cases[i].tensor) continue;
        const double b = 4;
        const double formula =
            s * b * h *
            Formula(rows[i].at("coefficient_of_sbh"), {{'a', a}, {'s', s}, {'h', h}, {'t', t}}).value();
        EXPECT_NEAR(layer_activations(shape, b, t, cases[i].sequence, cases[i].recompute) / formula, 1, 0.01)
            << model << ", t " << t << ", " << cases[i].configuration;
      }
    }
  }
}

TEST_F(PublishedTables, ActivationsOfWholeModelsFollowTheUltraScalePlaybook) {
  // Its figures use the formula of a feed-forward layer of 4 h for Llama's models, with or without the
  // scores.
  int compared = 0;
  for (const auto& row : read_table(tables_ / "ultrascale_memory_figures.csv")) {
    if (row.at("component") != "activations") continue;
    const std::string &figure = row.at("figure"), &panel = row.at("panel");
    ModelShape shape = model_shape("8b");
    if (panel.find("70B") != std::string::npos || figure.starts_with("tp_")) shape = model_shape("70b");
    if (panel.find("405B") != std::string::npos) shape = model_shape("405b");
    if (panel.find("1B") != std::string::npos) shape = model_shape("1b");
    if (figure.starts_with("cp_")) continue;  // context parallelism: not ours
    shape.gated = false;
    shape.ffn = 4 * shape.hidden;
    shape.kv_heads = shape.heads;
    shape.sequence = std::int64_t(number(row, "seq_len"));
    const bool scores = figure == "memusage_activations", sequence = figure == "tp_sp_memoryusage";
    int tp = 1;
    if (panel.find("TP=8") != std::string::npos) tp = 8;
    if (panel.find("TP=16") != std::string::npos) tp = 16;
    const double gib =
        double(shape.layers) *
        layer_activations(shape, 1, tp, sequence, scores ? Recompute::none : Recompute::attention) /
        (1024.0 * 1024 * 1024);
    EXPECT_NEAR(gib / number(row, "gib"), 1, 0.01) << figure << ", " << panel << ", " << shape.sequence;
    ++compared;
  }
  EXPECT_GT(compared, 40);
}

TEST(PlannerMemory, PipelinesHoldWhatTheScheduleHolds) {
  // layers_in_flight is a formula; the schedule itself counts.
  const ModelShape shape = model_shape("gpt-22b");  // 48 layers
  for (const int pp : {2, 4, 8})
    for (const int m : {8, 16, 32})
      for (const int chunks : {1, 2, 3}) {
        for (const PipelineKind kind :
             {PipelineKind::gpipe, PipelineKind::one_f_one_b, PipelineKind::interleaved}) {
          if (chunks > 1 && kind != PipelineKind::interleaved) continue;
          Layout layout;
          layout.pp = pp;
          layout.micro_batches = m;
          layout.chunks = chunks;
          layout.schedule = kind;
          const std::vector<int> peaks = peak_in_flight(schedule_of(layout));
          const auto stages = stages_of(shape, layout, calibration("formulas"));
          for (int rank = 0; rank < pp; ++rank)
            EXPECT_DOUBLE_EQ(layers_in_flight(layout, rank, stages),
                             peaks[std::size_t(rank)] * 48.0 / (pp * chunks))
                << to_string(layout) << ", rank " << rank;
        }
      }
}

TEST(PlannerShape, CountsParametersAsPublished) {
  // Narayanan et al. 2021, equation 2: P = 12 l h^2 (1 + 13 / (12 h) + (V + s) / (12 l h)).
  const ModelShape shape = model_shape("gpt-175b");
  const double l = 96, h = 12288, V = 51200, s = 2048;
  EXPECT_NEAR(shape.parameters() / (12 * l * h * h * (1 + 13 / (12 * h) + (V + s) / (12 * l * h))), 1, 1e-6);
  // What the book's model has, is what its shape says.
  for (const std::string& name : gpt2_config_names())
    EXPECT_DOUBLE_EQ(model_shape(name).parameters(), double(parameter_count(gpt2_config(name)))) << name;
  EXPECT_DOUBLE_EQ(model_shape(gpt2_config("gpt2-124m")).parameters(), 124439808);
  // Llama 3.1's model cards: 8,030,261,248, 70,553,706,496 and 405,853,388,800 (keys and values as
  // published).
  EXPECT_DOUBLE_EQ(model_shape("8b").parameters(), 8030261248);
  EXPECT_DOUBLE_EQ(model_shape("70b").parameters(), 70553706496);
  // Equation 3, without what is recomputed: 72 B s l h^2 (1 + s / (6h) + V / (12 l h)).
  EXPECT_NEAR(shape.flops_per_token() / (72 * l * h * h * (1 + s / (6 * h) + V / (12 * l * h))), 1, 1e-6);
}

// ---- Time -------------------------------------------------------------------------------------------

TEST_F(PublishedTables, EachRowOfSc21Table1Within15Percent) {
  const Hardware a100 = hardware("a100-80g");
  const Calibration& c = calibration("megatron");
  double worst = 0;
  const auto rows = read_sc21_table1(tables_);
  EXPECT_EQ(rows.size(), 10U);
  for (const ScalingRow& row : rows) {
    const Layout layout = fastest_fitting(row.shape, a100, row.layout, row.batch, c);
    const double predicted = predicted_teraflops(row.shape, a100, layout, c);
    EXPECT_NEAR(predicted / row.teraflops, 1, 0.15) << to_string(layout);
    worst = std::max(worst, std::abs(predicted / row.teraflops - 1));
  }
  std::printf("SC21 table 1: at most %.1f%% off\n", 100 * worst);
}

TEST_F(PublishedTables, Sc21Table2AndKorthikantiTable5) {
  const Hardware a100 = hardware("a100-80g");
  const Calibration& c = calibration("megatron");
  double worst = 0, worst_iteration = 0;
  for (const ScalingRow& row : read_sc21_table2(tables_)) {
    const double ratio = predicted_teraflops(row.shape, a100, row.layout, c) / row.teraflops;
    EXPECT_NEAR(ratio, 1, 0.15) << to_string(row.layout);
    worst = std::max(worst, std::abs(ratio - 1));
  }
  for (const IterationRow& row : read_korthikanti(tables_)) {
    const double full = step_time(row.shape, a100, row.full, c).total() / row.full_seconds;
    const double selective = step_time(row.shape, a100, row.selective, c).total() / row.selective_seconds;
    EXPECT_NEAR(full, 1, 0.15) << to_string(row.full);
    EXPECT_NEAR(selective, 1, 0.15) << to_string(row.selective);
    worst_iteration = std::max({worst_iteration, std::abs(full - 1), std::abs(selective - 1)});
  }
  std::printf("SC21 table 2: at most %.1f%% off; Korthikanti table 5: %.1f%%\n", 100 * worst,
              100 * worst_iteration);
}

TEST_F(PublishedTables, TheHeldOutHalfOfTheUltraScaleRuns) {
  const Hardware h100 = hardware("h100-80g");
  const Calibration& c = calibration("nanotron");
  double right = 0, runs = 0, ran = 0;
  std::vector<double> predicted, measured, memory_errors;
  for (const MeasuredRun& run : read_ultrascale(tables_)) {
    if (!run.held_out) continue;
    ++runs;
    ran += run.ran;
    const bool possible = run.layout.pp == 1 || run.layout.pp * c.min_stage_layers <= run.shape.layers;
    const bool fits =
        possible && memory_per_rank(run.shape, run.layout, c).total() <= c.usable_memory * h100.memory;
    right += fits == run.ran;
    if (!run.ran) continue;
    Calibration any = c;  // it ran although it should not: still to be ranked
    any.min_stage_layers = 1;
    predicted.push_back(estimate(run.shape, h100, run.layout, any).mfu);
    measured.push_back(run.mfu);
    memory_errors.push_back(std::abs(memory_per_rank(run.shape, run.layout, any).total() / run.memory - 1));
  }
  const double correlation = rank_correlation(predicted, measured);
  std::sort(memory_errors.begin(), memory_errors.end());
  std::printf(
      "%.0f runs held out, %.0f of which ran: fits or not right for %.1f%%, rank correlation of MFU %.3f, "
      "median error "
      "of memory %.1f%%\n",
      runs, ran, 100 * right / runs, correlation, 100 * memory_errors[memory_errors.size() / 2]);
  EXPECT_GT(runs, 700);
  EXPECT_GE(right / runs, 0.9);
  EXPECT_GE(correlation, 0.8);
}

TEST(PlannerTime, TrafficFollowsTheFormulas) {
  ModelShape shape = model_shape("gpt2-124m");
  Layout layout;
  layout.dp = 4;
  layout.micro_batches = 3;
  const Calibration c;
  const double P = shape.layers * shape.layer_parameters() + shape.embedding_parameters();
  const double times[][4] = {{2, 2, 2, 3}, {2, 2, 4, 9}};  // P (n-1)/n, with 1 and with 3 micro-batches
  for (const int m : {1, 3})
    for (const int zero : {0, 1, 2, 3}) {
      layout.micro_batches = m;
      layout.zero = zero;
      EXPECT_DOUBLE_EQ(traffic(shape, layout, c).data, times[m / 3][zero] * P * 3 / 4 * 2)
          << m << " " << zero;
    }
  layout = Layout{};
  layout.tp = 2;
  layout.micro_batch = 5;
  // 12 layers, 4 all-reduces, 2 (t-1)/t = 1, of 5 sequences of 1024 x 768 in 2 bytes.
  EXPECT_DOUBLE_EQ(traffic(shape, layout, c).tensor, 12.0 * 4 * 5 * 1024 * 768 * 2);
  layout = Layout{};
  layout.pp = 2;
  layout.micro_batches = 7;
  EXPECT_DOUBLE_EQ(traffic(shape, layout, c).pipeline, 2.0 * 7 * 1024 * 768 * 2);
}

// ---- Plans ------------------------------------------------------------------------------------------

TEST(Plan, FitsAndAddsUp) {
  const ModelShape shape = model_shape("70b");
  const Hardware h100 = hardware("h100-80g");
  PlanOptions options;
  options.devices = 1024;
  options.batch = 1024;
  const Plan plan = make_plan(shape, h100, calibration("fused"), options);
  ASSERT_FALSE(plan.best.empty());
  double last = 0;
  for (const Candidate& candidate : plan.best) {
    EXPECT_EQ(candidate.layout.devices(), 1024);
    EXPECT_EQ(candidate.layout.batch(), 1024);
    EXPECT_LE(candidate.memory.total(), 80e9);
    EXPECT_GE(candidate.time.total(), last);
    EXPECT_GT(candidate.mfu, 0);
    EXPECT_LT(candidate.mfu, 0.75);
    last = candidate.time.total();
    if (candidate.layout.pp > 1 && candidate.layout.micro_batches <= 64) {
      EXPECT_NO_THROW(check_schedule(schedule_of(candidate.layout)));
    }
  }
  ASSERT_FALSE(plan.refused.empty());
  for (const Refusal& refusal : plan.refused) EXPECT_FALSE(refusal.reason.empty());
}

TEST(Plan, OneGpuIsNotEnoughForALargeModel) {
  PlanOptions options;
  options.devices = 1;
  options.batch = 1;
  const auto plan_for = [&](const char* model) {
    return make_plan(model_shape(model), hardware("h100-80g"), calibration("fused"), options);
  };
  EXPECT_EQ(plan_for("gpt2-124m").best.size(), 1U);
  const Plan plan = plan_for("70b");
  EXPECT_TRUE(plan.best.empty());
  ASSERT_EQ(plan.refused.size(), 1U);
  // 16 bytes for each of 70.55 billion parameters.
  EXPECT_NE(plan.refused[0].reason.find("model states 1129 GB"), std::string::npos) << plan.refused[0].reason;
  EXPECT_THROW(best_layout(model_shape("70b"), hardware("h100-80g"), calibration("fused"), options), Error);
}

TEST(Plan, ATrainerGetsALayoutItCanRun) {
  GptConfig config = gpt2_config("gpt2-124m");
  PlanOptions options;
  options.devices = 8;
  options.batch = 8;
  options.max_tp = 8;
  const Layout layout =
      best_layout(model_shape(config), hardware("laptop"), calibration("formulas"), options);
  EXPECT_EQ(layout.devices(), 8);
  EXPECT_EQ(layout.batch(), 8);
}

TEST(Plan, ReadsModelsFromJson) {
  const fs::path file = fs::temp_directory_path() / ("llm_shape_" + std::to_string(::getpid()) + ".json");
  const auto write = [&](const std::string& text) { std::ofstream(file) << text; };
  write(R"({"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024})");
  EXPECT_DOUBLE_EQ(model_shape(file.string()).parameters(), 124439808);
  write(R"({"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8,
            "intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 8192,
            "tie_word_embeddings": false})");
  EXPECT_DOUBLE_EQ(model_shape(file.string()).parameters(), 8030261248);
  for (const char* bad :
       {"", "[]", "{\"n_layer\": 12}", "{\"n_layer\": -1}", "{\"n_layer\": \"x\"}",
        R"({"n_layer": 1, "n_embd": 10, "n_head": 3, "vocab_size": 5, "n_positions": 5})"}) {
    write(bad);
    EXPECT_THROW(model_shape(file.string()), Error) << bad;
  }
  fs::remove(file);
  EXPECT_THROW(model_shape("no-such-model"), UsageError);
  EXPECT_THROW(model_shape("/no/such/file.json"), Error);
}

}  // namespace
}  // namespace llm::planner
