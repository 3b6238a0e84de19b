// What the program prints and draws about a model: validation loss, judged samples, the loss curve.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "ch05_pretraining/pretraining.h"
#include "common/cli/format.h"
#include "common/cli/metrics.h"
#include "common/cli/progress.h"
#include "common/cli/svg.h"
#include "common/core/file.h"
#include "common/generation/generate.h"
#include "common/text/story.h"
#include "common/training/evaluate.h"

namespace llm::ch05 {

Validator::Validator(const TrainingData& folder, SampleKind kind, std::int64_t context, std::int64_t batch)
    : folder_(folder), kind_(kind), context_(context), batch_(batch) {
  if (kind == SampleKind::windows) {
    check(folder.val.size() > context,
          "{} holds {} tokens, too few for a context of {}; take a shorter context or more text",
          folder.val.path().string(), folder.val.size(), context);
    return;
  }
  documents_ = document_ranges(folder.val.tokens(), *folder.end_of_text);
  check(!documents_.empty(), "{} holds no documents", folder.val.path().string());
  texts_ = document_texts(*folder.tokenizer, folder.val.tokens(), documents_);
  std::vector<double> floor;
  for (const std::string& text : texts_) {
    const Verdict verdict = judge_story(text);
    if (!verdict.valid) return;
    floor.push_back(-verdict.log_probability);
  }
  floor_ = std::move(floor);
}

Validation Validator::evaluate(GptStage& model, std::int64_t max_batches) const {
  Validation result;
  result.kind = kind_;
  if (kind_ == SampleKind::windows) {
    const WindowLoss loss = evaluate_windows(model, folder_.val.tokens(), context_, batch_, max_batches);
    result.nats_per_token = loss.nats_per_token;
    result.tokens = loss.tokens;
    return result;
  }
  const auto all = static_cast<std::int64_t>(documents_.size());
  const std::int64_t count = max_batches > 0 ? std::min(all, max_batches * batch_) : all;
  const auto some = std::span(documents_).first(static_cast<std::size_t>(count));
  double sum = 0, floor = 0;
  for (const double nats :
       evaluate_documents(model, folder_.val.tokens(), some, *folder_.end_of_text, batch_))
    sum += nats;
  for (std::int64_t i = 0; i < count; ++i) {
    result.tokens += some[static_cast<std::size_t>(i)].size() + 1;
    if (stories()) floor += floor_[static_cast<std::size_t>(i)];
  }
  result.nats_per_token = sum / static_cast<double>(result.tokens);
  if (stories()) result.floor = floor / static_cast<double>(result.tokens);
  return result;
}

Validation report_validation(GptStage& model, const TrainingData& folder, const Validator& validator,
                             const fs::path& metrics) {
  const Validation v = validator.evaluate(model);
  // Bytes of the tokens that were targets; the end-of-text token stands for none.
  std::int64_t bytes = 0;
  if (v.kind == SampleKind::documents) {
    for (const std::string& text : validator.texts()) bytes += static_cast<std::int64_t>(text.size());
  } else {
    for (std::int64_t i = 1; i <= v.tokens; ++i) {
      const std::int32_t token = folder.val.tokens()[static_cast<std::size_t>(i)];
      if (token != folder.end_of_text)
        bytes += static_cast<std::int64_t>(folder.tokenizer->token_bytes(token).size());
    }
  }
  const double nats = v.nats_per_token * static_cast<double>(v.tokens);
  MetricRecord record = {{"validation_loss", v.nats_per_token},
                         {"validation_tokens", v.tokens},
                         {"validation_nats_per_byte", nats / static_cast<double>(bytes)}};
  fmt::print(
      "\nValidation, {} tokens: {:.4f} nats per token (perplexity {:.2f}), {:.4f} per byte ({:.3f} bits)\n",
      with_commas(v.tokens), v.nats_per_token, std::exp(v.nats_per_token), nats / static_cast<double>(bytes),
      nats / static_cast<double>(bytes) / std::log(2.0));
  if (v.floor) {
    const double floor_nats = *v.floor * static_cast<double>(v.tokens);
    const auto stories = static_cast<double>(validator.documents().size());
    fmt::print(
        "The lowest any model can reach on these {} stories: {:.4f} nats per token, {:.4f} per byte, {:.2f} "
        "per story; this model: {:.2f} per story\n",
        with_commas(static_cast<std::int64_t>(validator.documents().size())), *v.floor,
        floor_nats / static_cast<double>(bytes), floor_nats / stories, nats / stories);
    fmt::print("The model is {:.4f} nats per token above the floor ({:.2f} nats per story)\n",
               v.nats_per_token - *v.floor, (nats - floor_nats) / stories);
    record.emplace_back("floor_nats_per_token", *v.floor);
    record.emplace_back("above_floor_nats_per_token", v.nats_per_token - *v.floor);
    record.emplace_back("above_floor_nats_per_story", (nats - floor_nats) / stories);
  }
  if (!metrics.empty()) MetricsWriter(metrics, true).write(record);
  return v;
}

Samples report_samples(const GptStage& model, const Tokenizer& tokenizer, std::int64_t count,
                       float temperature, std::uint64_t seed, const fs::path& metrics) {
  GenerateOptions options;
  options.sampling.temperature = temperature;
  options.sampling.seed = seed;
  options.stop_token = tokenizer.end_of_text();
  options.max_new_tokens = model.config().context - 1;
  const auto prompt = default_prompt(tokenizer);
  Samples samples;
  samples.count = count;
  std::int64_t tokens = 0;
  {
    Progress progress("writing stories", count, "stories");
    const auto generated =
        generate_many(model, prompt, count, options, 100, [&](std::int64_t done) { progress.update(done); });
    progress.finish();
    samples.seconds = progress.seconds();
    for (const Generated& g : generated) {
      tokens += static_cast<std::int64_t>(g.tokens.size()) + 1;
      samples.texts.push_back(tokenizer.decode(g.tokens));
      const Verdict verdict = judge_story(samples.texts.back());
      samples.valid += verdict.valid ? 1 : 0;
      samples.verdicts.push_back(verdict.valid ? "" : verdict.reason);
    }
  }
  const double share =
      static_cast<double>(samples.valid) / static_cast<double>(std::max<std::int64_t>(count, 1));
  fmt::print("\n{} stories at temperature {:g} in {:.1f} s ({} tokens/s): {} are valid, {:.1f}%\n", count,
             temperature, samples.seconds, short_count(static_cast<double>(tokens) / samples.seconds),
             samples.valid, 100 * share);
  int shown = 0;
  for (std::size_t i = 0; i < samples.verdicts.size() && shown < 3; ++i) {
    if (samples.verdicts[i].empty()) continue;
    if (shown++ == 0) fmt::print("What broke, for example:\n");
    fmt::print("  story {}: {}\n", i, samples.verdicts[i]);
  }
  if (!metrics.empty())
    MetricsWriter(metrics, true)
        .write({{"samples", count},
                {"temperature", temperature},
                {"valid", samples.valid},
                {"valid_share", share},
                {"tokens_per_s", static_cast<double>(tokens) / samples.seconds}});
  return samples;
}

void print_story(const std::string& text) {
  constexpr std::size_t kWidth = 96;
  std::string line;
  const auto flush = [&] {
    if (!line.empty()) fmt::print("    {}\n", line);
    line.clear();
  };
  std::size_t begin = 0;
  while (begin < text.size()) {
    std::size_t end = text.find_first_of(" \n", begin);
    if (end == std::string::npos) end = text.size();
    if (line.size() + 1 + end - begin > kWidth) flush();
    if (end > begin) line += (line.empty() ? "" : " ") + text.substr(begin, end - begin);
    if (end < text.size() && text[end] == '\n') flush();
    begin = end + 1;
  }
  flush();
}

void draw_loss_curve(const fs::path& folder) {
  Series raw{"each step", {}, {}, true, false}, smooth{"training, smoothed", {}, {}, false, false},
      validation{"validation", {}, {}, false, true};
  std::optional<double> floor;
  const std::string text = read_file(folder / "metrics.jsonl");
  double average = 0, weight = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const auto j = nlohmann::json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                         text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    begin = end + 1;
    if (!j.is_object() || !j.contains("step")) continue;
    const double step = j.value("step", 0.0);
    if (j.contains("loss") && j["loss"].is_number()) {
      // An exponential average over some 20 records, corrected for its start.
      const double loss = j["loss"].get<double>();
      average = 0.95 * average + 0.05 * loss;
      weight = 0.95 * weight + 0.05;
      raw.x.push_back(step);
      raw.y.push_back(loss);
      smooth.x.push_back(step);
      smooth.y.push_back(average / weight);
    }
    if (j.contains("val_loss") && j["val_loss"].is_number()) {
      validation.x.push_back(step);
      validation.y.push_back(j["val_loss"].get<double>());
    }
    if (j.contains("floor") && j["floor"].is_number()) floor = j["floor"].get<double>();
  }
  LinePlot plot;
  plot.title = "Loss during training";
  plot.x_label = "step";
  plot.y_label = "nats per token";
  plot.series = {raw, smooth, validation};
  if (floor) plot.references.push_back({*floor, fmt::format("entropy floor {:.3f}", *floor)});
  plot.log_y = true;
  write_file(folder / "loss.svg", svg(plot));
}

}  // namespace llm::ch05
