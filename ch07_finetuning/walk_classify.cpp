// `classify`: a pretrained model learns to name the class of a text.
#include <fmt/format.h>

#include <cmath>
#include <optional>
#include <set>

#include "ch07_finetuning/finetuning.h"
#include "common/cli/format.h"
#include "common/cli/progress.h"
#include "common/cli/svg.h"
#include "common/cli/table.h"
#include "common/core/error.h"
#include "common/core/file.h"
#include "common/finetuning/datasets.h"
#include "common/model/safetensors.h"
#include "common/text/documents.h"
#include "common/text/story_labels.h"

namespace llm::ch07 {

namespace {

/// Texts of one part as tokens, each behind an end-of-text token, as in training.
struct Encoded {
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<std::int64_t> labels;
  TextBatch batch(std::span<const std::size_t> chosen, std::int64_t longest, std::int32_t padding) const {
    std::vector<std::vector<std::int32_t>> some;
    std::vector<std::int64_t> their_labels;
    for (const std::size_t i : chosen) {
      some.push_back(tokens[i]);
      their_labels.push_back(labels[i]);
    }
    return collate_texts(some, their_labels, longest, padding);
  }
};

Encoded encode(const OpenModel& open, const std::vector<LabelledText>& texts) {
  Encoded result;
  for (const LabelledText& text : texts) {
    std::vector<std::int32_t> ids = {open.end_of_text};
    open.tokenizer->encode_append(text.text, ids);
    result.tokens.push_back(std::move(ids));
    result.labels.push_back(text.label);
  }
  return result;
}

ConfusionMatrix confusion(ParallelTuner& tuner, const Encoded& part, std::int64_t classes,
                          std::int64_t longest, std::int32_t padding) {
  constexpr std::size_t kBatch = 32;
  std::vector<TextBatch> batches;
  for (std::size_t first = 0; first < part.tokens.size(); first += kBatch) {
    std::vector<std::size_t> chosen;
    for (std::size_t i = first; i < std::min(first + kBatch, part.tokens.size()); ++i) chosen.push_back(i);
    batches.push_back(part.batch(chosen, longest, padding));
  }
  const auto predicted = predict(tuner, batches);
  ConfusionMatrix matrix(static_cast<std::size_t>(classes));
  for (std::size_t i = 0; i < predicted.size(); ++i)
    matrix.add(static_cast<std::size_t>(part.labels[i]), static_cast<std::size_t>(predicted[i]));
  return matrix;
}

std::string confusion_picture(const ConfusionMatrix& matrix, const std::vector<std::string>& names) {
  HeatMap map;
  map.title = "What the classifier says";
  map.row_title = "is";
  map.column_title = "was called";
  map.row_labels = map.column_labels = names;
  for (const auto& row : matrix.counts) map.values.emplace_back(row.begin(), row.end());
  map.low = 0;
  map.numbers = true;
  return svg(map);
}

void print_report(const ConfusionMatrix& matrix, const std::vector<std::string>& names) {
  std::vector<std::string> headers = {"is"};
  for (const std::string& name : names) headers.push_back("called " + name);
  for (const char* measure : {"precision", "recall", "F1"}) headers.emplace_back(measure);
  Table table(headers);
  for (std::size_t c = 0; c < names.size(); ++c) {
    std::vector<std::string> cells = {names[c]};
    for (const std::int64_t count : matrix.counts[c]) cells.push_back(with_commas(count));
    for (const double value : {matrix.precision(c), matrix.recall(c), matrix.f1(c)})
      cells.push_back(fmt::format("{:.3f}", value));
    table.add(cells);
  }
  table.print();
}

LabelledSplit split_of(const ClassifyCommand& command, std::vector<LabelledText> texts) {
  const auto classes = static_cast<std::int64_t>(command.data.empty() ? 2 : command.labels.size());
  return balanced_split(std::move(texts), classes, 0.7, 0.1, command.tune.seed);
}

}  // namespace

void write_texts(const ClassifyCommand& command, const fs::path& out) {
  const std::vector<LabelledText> all = read_labelled_lines(command.data, command.labels);
  std::set<std::string> tested;
  for (const LabelledText& text : split_of(command, all).test) tested.insert(text.text);
  DocumentWriter writer(out);
  for (const LabelledText& text : all)
    if (!tested.contains(text.text)) writer.write(text.text);
  writer.commit();
  fmt::print("Wrote {} texts to {}; the {} of the test are not among them\n", with_commas(writer.documents()),
             out.string(), with_commas(static_cast<std::int64_t>(tested.size())));
}

double classify(const ClassifyCommand& command) {
  const TrainedPart part = parse_trained_part(command.part);
  OpenModel open = open_model(command.tune.model, {});
  const GptConfig config = open.model.config();
  const TuneOptions tune = with_layout(command.tune, config);
  std::vector<std::string> names = {"happy", "sad"};
  std::vector<LabelledText> texts;
  if (command.data.empty()) {
    for (std::int64_t i = 0; i < command.stories; ++i) {
      LabelledStory story = make_labelled_story(tune.seed, static_cast<std::uint64_t>(i));
      texts.push_back({std::move(story.text), story.label == names[1]});
    }
  } else {
    names = command.labels;
    texts = read_labelled_lines(command.data, names);
  }
  const auto classes = static_cast<std::int64_t>(names.size());
  const LabelledSplit split = split_of(command, std::move(texts));
  const Encoded train = encode(open, split.train), validation = encode(open, split.validation),
                test = encode(open, split.test);
  const std::int64_t longest =
      command.longest > 0 ? std::min(command.longest, config.context) : config.context;
  if (leads())
    fmt::print("Texts: {} to train, {} to watch, {} to test, as many of each class ({})\n",
               with_commas(static_cast<std::int64_t>(train.tokens.size())),
               with_commas(static_cast<std::int64_t>(validation.tokens.size())),
               with_commas(static_cast<std::int64_t>(test.tokens.size())), fmt::join(names, ", "));

  ParallelTunerOptions options = tune.parallel_tuner();
  options.trains = trained_by(part, config);
  if (part == TrainedPart::lora && !options.lora) options.lora = LoraOptions{};
  ConfusionMatrix matrix(names.size());
  std::vector<double> steps, losses, watched_steps, watched;
  const auto head = train_on_ranks(open, tune, options, [&](ParallelTuner& tuner, bool leads) {
    tuner.add_head(classes);
    const std::int64_t trained = tuner.model().trained_count();
    MetricsWriter metrics;
    std::optional<Progress> progress;
    if (leads) {
      fmt::print("Training {}: {} of {} parameters\n", command.part, with_commas(trained),
                 with_commas(classifier_parameter_count(config, classes)));
      if (!tune.out.empty()) metrics = MetricsWriter(tune.out / "metrics.jsonl");
      progress.emplace("learning the classes", tune.steps, "steps");
    }
    const auto measure = [&](const Encoded& texts_of_part) {
      return confusion(tuner, texts_of_part, classes, longest, open.end_of_text);
    };
    const auto watch = [&] {
      const double accuracy = measure(validation).accuracy();
      if (!leads) return;
      watched_steps.push_back(static_cast<double>(tuner.steps_done()));
      watched.push_back(accuracy);
      metrics.write({{"step", tuner.steps_done()}, {"validation_accuracy", accuracy}});
      progress->say(fmt::format("step {:>5}  validation accuracy {:.3f}", tuner.steps_done(), accuracy));
    };
    watch();
    double sum = 0;
    std::int64_t since = 0;
    const std::int64_t every = std::max<std::int64_t>(1, tune.steps / 4);
    while (tuner.steps_done() < tuner.steps_total()) {
      const auto chosen = examples_of_step(train.tokens.size(), tune.batch, tune.seed, tuner.steps_done());
      std::vector<TextBatch> batches;
      for (std::int64_t i = 0; i < tune.accumulate; ++i)
        batches.push_back(train.batch(micro_batch(chosen, i, tune.accumulate), longest, open.end_of_text));
      const ForwardOptions forward{
          .training = true, .seed = tune.seed, .step = static_cast<std::uint64_t>(tuner.steps_done())};
      const auto examples = static_cast<double>(tune.batch);
      const TunerReport r = tuner.step(class_passes(tuner, batches, examples, forward), examples);
      if (leads) {
        steps.push_back(static_cast<double>(r.step));
        losses.push_back(r.loss);
        metrics.write({{"step", r.step}, {"loss", r.loss}, {"lr", r.learning_rate}});
        sum += r.loss;
        ++since;
        progress->update(r.step, fmt::format("loss {:.3f}", sum / static_cast<double>(since)));
      }
      if (r.step % every == 0 && r.step < tune.steps) {
        watch();
        sum = since = 0;
      }
    }
    if (leads) progress->finish();
    const ConfusionMatrix tested = measure(test);
    if (leads) matrix = tested;
  });
  if (!leads()) return 0;

  fmt::print("\nTest: {:.1f}% of {} texts right\n", 100 * matrix.accuracy(), with_commas(matrix.total()));
  print_report(matrix, names);
  if (!tune.metrics.empty())
    MetricsWriter(tune.metrics, true)
        .write({{"classify", command.part}, {"test_accuracy", matrix.accuracy()}, {"texts", matrix.total()}});
  if (!tune.out.empty()) {
    save_model(open, tune.out, "classifier");
    write_safetensors(tune.out / "score.safetensors",
                      {{"score.weight", head->weight().shape(), [&] { return head->weight(); }},
                       {"score.bias", head->bias().shape(), [&] { return head->bias(); }}});
    write_file(tune.out / "confusion.svg", confusion_picture(matrix, names));
    draw_curve(tune.out / "loss.svg", "Learning the classes", "loss, and validation accuracy", steps, losses,
               watched_steps, watched);
    fmt::print("Wrote {} (the model, score.safetensors: its head, confusion.svg, loss.svg)\n",
               tune.out.string());
  }
  return matrix.accuracy();
}

}  // namespace llm::ch07
