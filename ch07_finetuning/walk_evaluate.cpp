// `evaluate` and `merge`.
#include <fmt/format.h>

#include <cmath>

#include "ch07_finetuning/finetuning.h"
#include "common/cli/format.h"
#include "common/core/error.h"
#include "common/finetuning/chat_format.h"
#include "common/text/documents.h"

namespace llm::ch07 {

void evaluate(const EvaluateCommand& command) {
  OpenModel open = open_model(command.model, command.placement);
  MetricsWriter metrics = command.metrics.empty() ? MetricsWriter() : MetricsWriter(command.metrics, true);
  if (command.choices.empty() && command.texts.empty() && command.questions == 0)
    fail_usage("there is nothing to evaluate on; give --choices, --text or --questions");
  if (!command.choices.empty()) {
    const auto items = read_multiple_choice(command.choices);
    const MultipleChoiceResult r = evaluate_multiple_choice(open.model, *open.tokenizer, items);
    const double error = std::sqrt(r.acc * (1 - r.acc) / std::max(1.0, static_cast<double>(r.items - 1)));
    fmt::print("Multiple choice, {} items: acc {:.4f} (standard error {:.4f}), acc_norm {:.4f}\n",
               with_commas(r.items), r.acc, error, r.acc_norm);
    metrics.write({{"items", r.items}, {"acc", r.acc}, {"acc_norm", r.acc_norm}});
  }
  if (!command.texts.empty()) {
    std::vector<std::string> texts;
    for (const Document& d : read_documents({command.texts})) texts.push_back(d.text);
    const TextLoss r = evaluate_texts(open.model, *open.tokenizer, texts);
    fmt::print("Text, {} documents, {} tokens, {} bytes: perplexity {:.3f} per token, {:.4f} bits per byte\n",
               with_commas(static_cast<std::int64_t>(texts.size())), with_commas(r.tokens),
               with_commas(r.bytes), r.perplexity(), r.bits_per_byte());
    metrics.write(
        {{"perplexity", r.perplexity()}, {"bits_per_byte", r.bits_per_byte()}, {"tokens", r.tokens}});
  }
  if (command.questions > 0) {
    const auto asked = story_questions(command.seed + 1, 0, command.questions, "chat");
    const ExactMatch r = ask_all(open, asked);
    fmt::print("Questions about stories: {} of {} answers are exact, {:.1f}%\n", r.exact, r.count,
               100 * r.share());
    metrics.write({{"questions", r.count}, {"exact", r.share()}});
  }
}

void merge(const MergeCommand& command) {
  OpenModel open = open_model(command.model, {});
  const LoraAdapters adapters = LoraAdapters::load_peft(command.adapter, open.model);
  adapters.merge(open.model);
  // Which template was taught stands beside the adapter, where this program made it.
  const bool said = fs::exists(command.adapter / "finetuning.json");
  save_model(open, command.out, load_chat_format(said ? command.adapter : command.model).name);
  fmt::print("Merged {} adapter parameters into {} and wrote {}\n",
             with_commas(adapters.parameters().count()), with_commas(open.model.parameters().count()),
             command.out.string());
}

}  // namespace llm::ch07
