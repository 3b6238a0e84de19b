// Templates, masks, padding and packing. See examples.h.
#include "common/finetuning/examples.h"

#include <algorithm>

#include "common/core/error.h"

namespace llm {

std::string alpaca_prompt(std::string_view instruction, std::string_view input) {
  if (input.empty())
    return fmt::format(
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\n{}\n\n### Response:\n",
        instruction);
  return fmt::format(
      "Below is an instruction that describes a task, paired with an input that provides further context. "
      "Write a response that appropriately completes the request.\n\n### Instruction:\n{}\n\n### "
      "Input:\n{}\n\n### Response:\n",
      instruction, input);
}

std::string chat_prompt(std::span<const Turn> turns) {
  std::string text;
  for (const Turn& turn : turns) {
    if (turn.speaker == "system") {
      text += turn.text + "\n";
      continue;
    }
    check(turn.speaker == "user" || turn.speaker == "assistant",
          "a turn is the user's, the assistant's or the system's, not \"{}\"", turn.speaker);
    text += fmt::format("{}: {}\n", turn.speaker == "user" ? "User" : "Assistant", turn.text);
  }
  return text + "Assistant:";
}

std::string chat_prompt(std::string_view question) {
  const Turn turn{"user", std::string(question)};
  return chat_prompt(std::span(&turn, 1));
}

namespace {

std::int32_t end_token(const Tokenizer& tokenizer) {
  const auto end = tokenizer.end_of_text();
  check(end.has_value(), "fine-tuning needs a tokenizer with an end-of-text token; this one has none");
  return *end;
}

}  // namespace

Example make_example(const Tokenizer& tokenizer, std::string_view prompt, std::string_view answer,
                     std::int64_t longest) {
  const std::int32_t end = end_token(tokenizer);
  const bool gap = prompt.empty() || (prompt.back() != ' ' && prompt.back() != '\n');
  std::vector<std::int32_t> said = tokenizer.encode(gap ? " " + std::string(answer) : std::string(answer));
  said.push_back(end);
  const auto room = longest - 1 - static_cast<std::int64_t>(said.size());
  check(room >= 1, "an answer of {} tokens leaves no room for its prompt in {} tokens", said.size(), longest);
  std::vector<std::int32_t> asked = tokenizer.encode(prompt);
  if (static_cast<std::int64_t>(asked.size()) > room)
    asked.erase(asked.begin(), asked.end() - static_cast<std::ptrdiff_t>(room));
  Example example{{end}, 0};
  example.tokens.insert(example.tokens.end(), asked.begin(), asked.end());
  example.answer = static_cast<std::int64_t>(example.tokens.size());
  example.tokens.insert(example.tokens.end(), said.begin(), said.end());
  return example;
}

std::vector<std::int32_t> make_prompt(const Tokenizer& tokenizer, std::string_view prompt,
                                      std::int64_t longest) {
  check(longest >= 2, "a prompt needs room for two tokens, got {}", longest);
  std::vector<std::int32_t> asked = tokenizer.encode(prompt);
  if (static_cast<std::int64_t>(asked.size()) > longest - 1)
    asked.erase(asked.begin(), asked.end() - static_cast<std::ptrdiff_t>(longest - 1));
  asked.insert(asked.begin(), end_token(tokenizer));
  return asked;
}

namespace {

/// Writes an example's inputs and targets from element `at` on.
void place(const Batch& batch, std::int64_t at, const Example& example, const MaskOptions& mask) {
  std::int32_t* inputs = batch.inputs.data<std::int32_t>() + at;
  std::int32_t* targets = batch.targets.data<std::int32_t>() + at;
  const auto positions = static_cast<std::int64_t>(example.tokens.size()) - 1;
  for (std::int64_t t = 0; t < positions; ++t) {
    const std::int32_t next = example.tokens[static_cast<std::size_t>(t + 1)];
    inputs[t] = example.tokens[static_cast<std::size_t>(t)];
    targets[t] = mask.prompt && t + 1 < example.answer ? -1 : next;
  }
}

Batch padded_batch(std::int64_t rows, std::int64_t length, std::int32_t padding) {
  Batch batch{Tensor::uninitialized({rows, length}, DType::i32),
              Tensor::uninitialized({rows, length}, DType::i32)};
  std::ranges::fill(batch.inputs.span<std::int32_t>(), padding);
  std::ranges::fill(batch.targets.span<std::int32_t>(), -1);
  return batch;
}

}  // namespace

Batch collate(std::span<const Example> examples, std::int32_t padding, const MaskOptions& mask) {
  check(!examples.empty(), "a batch needs at least one example");
  std::int64_t length = 0;
  for (const Example& e : examples) {
    check(e.tokens.size() >= 2, "an example needs at least two tokens, got {}", e.tokens.size());
    length = std::max(length, static_cast<std::int64_t>(e.tokens.size()) - 1);
  }
  const Batch batch = padded_batch(static_cast<std::int64_t>(examples.size()), length, padding);
  for (std::size_t row = 0; row < examples.size(); ++row)
    place(batch, static_cast<std::int64_t>(row) * length, examples[row], mask);
  return batch;
}

PackedBatch pack(std::span<const Example> examples, std::size_t& first, std::int64_t rows,
                 std::int64_t length, std::int32_t padding, const MaskOptions& mask) {
  check(first < examples.size() && rows >= 1, "there is nothing to pack");
  // Where each example goes: behind the one before it, or at the start of the next row.
  std::vector<std::int64_t> starts;
  std::int64_t row = 0, used = 0;
  std::size_t next = first;
  for (; next < examples.size(); ++next) {
    const auto positions = static_cast<std::int64_t>(examples[next].tokens.size()) - 1;
    check(positions >= 1 && positions <= length, "an example of {} tokens does not fit in rows of {}",
          positions + 1, length);
    if (used + positions > length) {
      ++row;
      used = 0;
    }
    if (row == rows) break;
    starts.push_back(row * length + used);
    used += positions;
  }
  const std::int64_t last_row = starts.back() / length;
  PackedBatch packed{padded_batch(last_row + 1, length, padding), {}};
  for (std::size_t i = 0; i < starts.size(); ++i) {
    const Example& example = examples[first + i];
    place(packed.batch, starts[i], example, mask);
    packed.documents.push_back(starts[i]);
    // What is left of the row is a document of padding.
    const std::int64_t end = starts[i] + static_cast<std::int64_t>(example.tokens.size()) - 1;
    const std::int64_t next_start = i + 1 < starts.size() ? starts[i + 1] : (last_row + 1) * length;
    if (end < next_start) packed.documents.push_back(end);
  }
  first = next;
  return packed;
}

std::int64_t target_count(const Batch& batch) {
  return std::ranges::count_if(batch.targets.span<std::int32_t>(), [](std::int32_t t) { return t >= 0; });
}

LabelledSplit balanced_split(std::vector<LabelledText> texts, std::int64_t classes, double train,
                             double validation, std::uint64_t seed) {
  check(classes >= 2 && train > 0 && validation >= 0 && train + validation <= 1,
        "texts of {} classes cannot be split into shares of {} and {}", classes, train, validation);
  std::vector<std::vector<LabelledText>> by_class(static_cast<std::size_t>(classes));
  for (LabelledText& text : texts) {
    check(text.label >= 0 && text.label < classes, "a text has the label {}, but there are {} classes",
          text.label, classes);
    by_class[static_cast<std::size_t>(text.label)].push_back(std::move(text));
  }
  std::size_t fewest = by_class.front().size();
  for (std::size_t c = 0; c < by_class.size(); ++c) {
    check(!by_class[c].empty(), "there is no text of class {}", c);
    fewest = std::min(fewest, by_class[c].size());
  }
  std::vector<LabelledText> balanced;
  for (std::size_t c = 0; c < by_class.size(); ++c) {
    const auto order =
        shuffled_order(static_cast<std::int64_t>(by_class[c].size()), seed, static_cast<std::int64_t>(c));
    for (std::size_t i = 0; i < fewest; ++i)
      balanced.push_back(std::move(by_class[c][static_cast<std::size_t>(order[i])]));
  }
  const auto n = static_cast<std::int64_t>(balanced.size());
  const auto first = static_cast<std::int64_t>(train * static_cast<double>(n) + 1e-9);
  const auto second = first + static_cast<std::int64_t>(validation * static_cast<double>(n) + 1e-9);
  LabelledSplit split;
  const auto order = shuffled_order(n, seed, classes);
  for (std::int64_t i = 0; i < n; ++i) {
    auto& part = i < first ? split.train : i < second ? split.validation : split.test;
    part.push_back(std::move(balanced[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])]));
  }
  return split;
}

TextBatch collate_texts(std::span<const std::vector<std::int32_t>> tokens,
                        std::span<const std::int64_t> labels, std::int64_t longest, std::int32_t padding) {
  check(!tokens.empty() && tokens.size() == labels.size(), "{} texts need as many labels, got {}",
        tokens.size(), labels.size());
  TextBatch batch;
  std::int64_t length = 0;
  for (const auto& text : tokens) {
    check(!text.empty(), "a text without tokens cannot be classified");
    batch.lengths.push_back(std::min(longest, static_cast<std::int64_t>(text.size())));
    length = std::max(length, batch.lengths.back());
  }
  const auto rows = static_cast<std::int64_t>(tokens.size());
  batch.inputs = Tensor::uninitialized({rows, length}, DType::i32);
  batch.labels = Tensor::uninitialized({rows}, DType::i32);
  std::ranges::fill(batch.inputs.span<std::int32_t>(), padding);
  for (std::int64_t b = 0; b < rows; ++b) {
    const auto i = static_cast<std::size_t>(b);
    std::copy_n(tokens[i].begin(), batch.lengths[i], batch.inputs.data<std::int32_t>() + b * length);
    batch.labels.data<std::int32_t>()[b] = static_cast<std::int32_t>(labels[i]);
  }
  return batch;
}

}  // namespace llm
