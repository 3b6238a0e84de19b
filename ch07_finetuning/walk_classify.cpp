// `classify`: a pretrained model learns to name the class of a text.
#include <fmt/format.h>

#include <cmath>
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

ConfusionMatrix confusion(Classifier& classifier, const Encoded& part, std::int64_t longest,
                          std::int32_t padding) {
  ConfusionMatrix matrix(static_cast<std::size_t>(classifier.classes()));
  constexpr std::size_t kBatch = 32;
  for (std::size_t first = 0; first < part.tokens.size(); first += kBatch) {
    std::vector<std::size_t> chosen;
    for (std::size_t i = first; i < std::min(first + kBatch, part.tokens.size()); ++i) chosen.push_back(i);
    const auto predicted = classifier.predict(part.batch(chosen, longest, padding));
    for (std::size_t i = 0; i < chosen.size(); ++i)
      matrix.add(static_cast<std::size_t>(part.labels[chosen[i]]), static_cast<std::size_t>(predicted[i]));
  }
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
  const TuneOptions& tune = command.tune;
  const TrainedPart part = parse_trained_part(command.part);
  OpenModel open = open_model(tune.model, tune.placement);
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
  const std::int64_t context = open.model.config().context;
  const std::int64_t longest = command.longest > 0 ? std::min(command.longest, context) : context;

  Classifier classifier(open.model, classes, part, tune.seed, tune.lora.value_or(LoraOptions{}));
  fmt::print("Texts: {} to train, {} to watch, {} to test, as many of each class ({})\n",
             with_commas(static_cast<std::int64_t>(train.tokens.size())),
             with_commas(static_cast<std::int64_t>(validation.tokens.size())),
             with_commas(static_cast<std::int64_t>(test.tokens.size())), fmt::join(names, ", "));
  fmt::print("Training {}: {} of {} parameters\n", command.part, with_commas(classifier.trained_count()),
             with_commas(classifier.parameter_count()));
  Tuner tuner(classifier.stores(), tune.tuner());
  MetricsWriter metrics = tune.out.empty() ? MetricsWriter() : MetricsWriter(tune.out / "metrics.jsonl");
  std::vector<double> steps, losses, watched_steps, watched;
  const auto watch = [&](Progress& progress) {
    const double accuracy = confusion(classifier, validation, longest, open.end_of_text).accuracy();
    watched_steps.push_back(static_cast<double>(tuner.steps_done()));
    watched.push_back(accuracy);
    metrics.write({{"step", tuner.steps_done()}, {"validation_accuracy", accuracy}});
    progress.say(fmt::format("step {:>5}  validation accuracy {:.3f}", tuner.steps_done(), accuracy));
  };
  Progress progress("learning the classes", tune.steps, "steps");
  watch(progress);
  double sum = 0;
  std::int64_t since = 0;
  const std::int64_t every = std::max<std::int64_t>(1, tune.steps / 4);
  while (tuner.steps_done() < tuner.steps_total()) {
    const auto chosen = examples_of_step(train.tokens.size(), tune.batch, tune.seed, tuner.steps_done());
    ForwardOptions forward{
        .training = true, .seed = tune.seed, .step = static_cast<std::uint64_t>(tuner.steps_done())};
    const TunerReport r =
        tuner.step([&] { return classifier.train(train.batch(chosen, longest, open.end_of_text), forward); });
    steps.push_back(static_cast<double>(r.step));
    losses.push_back(r.loss);
    metrics.write({{"step", r.step}, {"loss", r.loss}, {"lr", r.learning_rate}});
    sum += r.loss;
    ++since;
    progress.update(r.step, fmt::format("loss {:.3f}", sum / static_cast<double>(since)));
    if (r.step % every == 0 && r.step < tune.steps) {
      watch(progress);
      sum = since = 0;
    }
  }
  progress.finish();

  const ConfusionMatrix matrix = confusion(classifier, test, longest, open.end_of_text);
  fmt::print("\nTest: {:.1f}% of {} texts right\n", 100 * matrix.accuracy(), with_commas(matrix.total()));
  print_report(matrix, names);
  if (!tune.metrics.empty())
    MetricsWriter(tune.metrics, true)
        .write({{"classify", command.part}, {"test_accuracy", matrix.accuracy()}, {"texts", matrix.total()}});
  if (!tune.out.empty()) {
    classifier.merge();
    save_model(open, tune.out, "classifier");
    const Tensor weight = classifier.head_weight().to(Device::cpu),
                 bias = classifier.head_bias().to(Device::cpu);
    write_safetensors(tune.out / "score.safetensors",
                      {{"score.weight", weight.shape(), [&] { return weight; }},
                       {"score.bias", bias.shape(), [&] { return bias; }}});
    write_file(tune.out / "confusion.svg", confusion_picture(matrix, names));
    draw_curve(tune.out / "loss.svg", "Learning the classes", "loss, and validation accuracy", steps, losses,
               watched_steps, watched);
    fmt::print("Wrote {} (the model, score.safetensors: its head, confusion.svg, loss.svg)\n",
               tune.out.string());
  }
  return matrix.accuracy();
}

}  // namespace llm::ch07
