// Answers, choices, texts, classes. See evaluation.h.
#include "common/finetuning/evaluation.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/finetuning/policy.h"

namespace llm {

namespace {

/// Prompts of one length, run to their end together.
void answer_group(const GptStage& model, std::span<const std::vector<std::int32_t>> prompts,
                  std::span<const std::size_t> group, std::int32_t stop, const AnswerOptions& options,
                  std::vector<Answer>& answers) {
  const auto rows = static_cast<std::int64_t>(group.size());
  const auto length = static_cast<std::int64_t>(prompts[group.front()].size());
  const std::int64_t vocabulary = model.config().vocab_size;
  const std::int64_t most = std::min(options.max_new_tokens, model.config().context - length + 1);
  KvCache cache = model.make_cache(rows, std::min(model.config().context, length + most));
  Tensor tokens = Tensor::uninitialized({rows, length}, DType::i32);
  for (std::int64_t b = 0; b < rows; ++b)
    std::ranges::copy(prompts[group[static_cast<std::size_t>(b)]], tokens.data<std::int32_t>() + b * length);
  const Tensor logits({rows, vocabulary});
  std::int64_t running = rows;
  for (std::int64_t t = 0; t < most && running > 0; ++t) {
    model.decode(logits, cache, tokens);
    tokens = Tensor({rows, 1}, DType::i32);
    for (std::int64_t b = 0; b < rows; ++b) {
      const std::size_t i = group[static_cast<std::size_t>(b)];
      if (answers[i].stopped) continue;  // it keeps its row, and what it would write is dropped
      const std::int32_t token = sample_token(logits.span().subspan(static_cast<std::size_t>(b * vocabulary),
                                                                    static_cast<std::size_t>(vocabulary)),
                                              options.sampling, i, static_cast<std::uint64_t>(length + t));
      if (token == stop) {
        answers[i].stopped = true;
        --running;
      } else {
        answers[i].tokens.push_back(token);
        tokens.data<std::int32_t>()[b] = token;
      }
    }
  }
}

}  // namespace

std::vector<Answer> generate_answers(const GptStage& model,
                                     std::span<const std::vector<std::int32_t>> prompts, std::int32_t stop,
                                     const AnswerOptions& options) {
  validate(options.sampling);
  check(options.batch >= 1 && options.max_new_tokens >= 1, "answers need at least one row and one token");
  std::map<std::size_t, std::vector<std::size_t>> by_length;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    check(!prompts[i].empty(), "prompt {} is empty", i);
    check(static_cast<std::int64_t>(prompts[i].size()) <= model.config().context,
          "a prompt of {} tokens leaves no room for an answer in a context of {}", prompts[i].size(),
          model.config().context);
    by_length[prompts[i].size()].push_back(i);
  }
  std::vector<Answer> answers(prompts.size());
  for (const auto& [length, all] : by_length)
    for (std::size_t first = 0; first < all.size(); first += static_cast<std::size_t>(options.batch)) {
      const std::size_t count = std::min(static_cast<std::size_t>(options.batch), all.size() - first);
      answer_group(model, prompts, std::span(all).subspan(first, count), stop, options, answers);
    }
  return answers;
}

std::string trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1));
}

std::vector<MultipleChoice> read_multiple_choice(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  std::vector<MultipleChoice> items;
  std::size_t line = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view content(text.data() + begin, end - begin);
    begin = end + 1;
    ++line;
    if (trimmed(content).empty()) continue;
    const auto json = nlohmann::json::parse(content, nullptr, /*allow_exceptions=*/false);
    const bool whole = json.is_object() && json.contains("context") && json["context"].is_string() &&
                       json.contains("choices") && json["choices"].is_array() &&
                       json["choices"].size() >= 2 && json.contains("gold") &&
                       json["gold"].is_number_unsigned() && json["gold"] < json["choices"].size();
    check(
        whole && std::ranges::all_of(json["choices"],
                                     [](const auto& c) {
                                       return c.is_string() &&
                                              !c.template get_ref<const std::string&>().empty();
                                     }),
        "{}, line {}: expected {{\"context\": text, \"choices\": [texts], \"gold\": the right one's number}}",
        path.string(), line);
    items.push_back({json["context"].get<std::string>(), json["choices"].get<std::vector<std::string>>(),
                     json["gold"].get<std::size_t>()});
  }
  check(!items.empty(), "{} holds no items", path.string());
  return items;
}

std::size_t best_choice(std::span<const double> scores) {
  return static_cast<std::size_t>(std::ranges::max_element(scores) - scores.begin());
}

std::vector<double> scores_per_character(std::span<const double> scores,
                                         std::span<const std::string> choices) {
  check(scores.size() == choices.size(), "{} scores were given for {} choices", scores.size(),
        choices.size());
  std::vector<double> result;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    // Characters, not bytes: UTF-8 continues a character with bytes 10xxxxxx.
    const auto characters = std::ranges::count_if(
        choices[i], [](char c) { return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u; });
    result.push_back(scores[i] / static_cast<double>(std::max<std::ptrdiff_t>(1, characters)));
  }
  return result;
}

namespace {

/// The sum of the log-probabilities of each example's answer, in batches of examples of like length.
std::vector<double> answer_scores(GptStage& model, std::span<const Example> examples, std::int32_t padding,
                                  std::int64_t batch) {
  std::vector<std::size_t> order(examples.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(
      order, [&](auto a, auto b) { return examples[a].tokens.size() < examples[b].tokens.size(); });
  std::vector<double> scores(examples.size());
  PassBuffers buffers;
  for (std::size_t first = 0; first < order.size(); first += static_cast<std::size_t>(batch)) {
    const std::size_t last = std::min(order.size(), first + static_cast<std::size_t>(batch));
    std::vector<Example> rows;
    for (std::size_t i = first; i < last; ++i) rows.push_back(examples[order[i]]);
    const std::vector<double> sums = answer_log_probabilities(model, buffers, collate(rows, padding));
    for (std::size_t i = first; i < last; ++i) scores[order[i]] = sums[i - first];
  }
  return scores;
}

}  // namespace

MultipleChoiceResult evaluate_multiple_choice(GptStage& model, const Tokenizer& tokenizer,
                                              std::span<const MultipleChoice> items, std::int64_t batch) {
  check(!items.empty(), "there are no items to choose in");
  const auto end = tokenizer.end_of_text();
  check(end.has_value(), "multiple choice needs a tokenizer with an end-of-text token");
  const std::int64_t longest = model.config().context + 1;
  std::vector<Example> examples;
  for (const MultipleChoice& item : items) {
    const bool gap = !item.context.empty() && item.context.back() != ' ' && item.context.back() != '\n';
    const std::vector<std::int32_t> context = tokenizer.encode(item.context);
    for (const std::string& choice : item.choices) {
      // Both are encoded together, for words may join at the seam; what is behind the context's tokens is the
      // choice.
      std::vector<std::int32_t> all = tokenizer.encode(item.context + (gap ? " " : "") + choice);
      auto behind = static_cast<std::int64_t>(std::min(context.size(), all.size() - 1));
      all.insert(all.begin(), *end);
      ++behind;
      if (const auto over = static_cast<std::int64_t>(all.size()) - longest; over > 0) {
        check(behind - over >= 1, "a choice of {} tokens does not fit in a context of {}",
              static_cast<std::int64_t>(all.size()) - behind, longest - 1);
        all.erase(all.begin(), all.begin() + over);
        behind -= over;
      }
      examples.push_back({std::move(all), behind});
    }
  }
  const std::vector<double> scores = answer_scores(model, examples, *end, batch);
  MultipleChoiceResult result;
  result.items = static_cast<std::int64_t>(items.size());
  std::size_t at = 0;
  for (const MultipleChoice& item : items) {
    const auto own = std::span(scores).subspan(at, item.choices.size());
    at += item.choices.size();
    result.acc += best_choice(own) == item.gold ? 1 : 0;
    result.acc_norm += best_choice(scores_per_character(own, item.choices)) == item.gold ? 1 : 0;
  }
  result.acc /= static_cast<double>(items.size());
  result.acc_norm /= static_cast<double>(items.size());
  return result;
}

double TextLoss::perplexity() const {
  return std::exp(nats / static_cast<double>(tokens));
}
double TextLoss::bits_per_byte() const {
  return nats / static_cast<double>(bytes) / std::log(2.0);
}

TextLoss evaluate_texts(GptStage& model, const Tokenizer& tokenizer, std::span<const std::string> texts,
                        std::int64_t batch) {
  const auto end = tokenizer.end_of_text();
  check(end.has_value(), "texts are read from an end-of-text token on, which this tokenizer does not have");
  const auto window = model.config().context;
  TextLoss result;
  std::vector<Example> windows;
  for (const std::string& text : texts) {
    std::vector<std::int32_t> tokens = tokenizer.encode(text);
    result.bytes += static_cast<std::int64_t>(text.size());
    result.tokens += static_cast<std::int64_t>(tokens.size());
    tokens.insert(tokens.begin(), *end);
    // Token i is predicted from tokens up to i - 1. The last window begins earlier, to be a whole one; what
    // was predicted before is only read there.
    const auto count = static_cast<std::int64_t>(tokens.size());
    for (std::int64_t first = 1; first < count; first += window) {
      const std::int64_t behind = std::min(first + window, count);
      const std::int64_t begin = std::max<std::int64_t>(0, behind - window - 1);
      windows.push_back({{tokens.begin() + begin, tokens.begin() + behind}, first - begin});
    }
  }
  check(!windows.empty(), "there is no text to predict");
  for (const double score : answer_scores(model, windows, *end, batch)) result.nats -= score;
  return result;
}

std::int64_t ConfusionMatrix::total() const {
  std::int64_t sum = 0;
  for (const auto& row : counts) sum = std::accumulate(row.begin(), row.end(), sum);
  return sum;
}

double ConfusionMatrix::accuracy() const {
  std::int64_t right = 0;
  for (std::size_t c = 0; c < counts.size(); ++c) right += counts[c][c];
  return static_cast<double>(right) / static_cast<double>(total());
}

double ConfusionMatrix::precision(std::size_t c) const {
  std::int64_t called = 0;
  for (const auto& row : counts) called += row.at(c);
  return static_cast<double>(counts[c][c]) / static_cast<double>(called);
}

double ConfusionMatrix::recall(std::size_t c) const {
  const auto& row = counts.at(c);
  return static_cast<double>(row[c]) /
         static_cast<double>(std::accumulate(row.begin(), row.end(), std::int64_t{0}));
}

double ConfusionMatrix::f1(std::size_t c) const {
  const double p = precision(c), r = recall(c);
  return 2 * p * r / (p + r);
}

}  // namespace llm
