#include "ch03_attention/walk_pictures.h"

#include <fmt/format.h>

#include <limits>

#include "ch03_attention/walk.h"
#include "common/cli/svg.h"
#include "common/cli/text_plot.h"
#include "common/core/error.h"
#include "common/core/file.h"
#include "common/model/huggingface.h"
#include "common/ops/ops.h"
#include "common/tokenizer/stream_text.h"

namespace llm::ch03 {

namespace {

/// As UTF-8, line breaks as \n: a token may be part of a character.
std::string printable(std::string_view bytes) {
  StreamText stream;
  std::string text;
  for (const char c : stream.push(bytes) + stream.finish())
    if (c == '\n')
      text += "\\n";
    else
      text += c;
  return text;
}

}  // namespace

std::string readable_token(const Tokenizer& tokenizer, std::int32_t id) {
  return "'" + printable(tokenizer.token_bytes(id)) + "'";
}

std::string show_tokens(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids) {
  std::string text;
  for (const std::int32_t id : ids) text += (text.empty() ? "" : "|") + printable(tokenizer.token_bytes(id));
  return text;
}

void show_heat_map(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids, const float* weights,
                   bool causal, const std::string& title, const std::filesystem::path& svg_file) {
  // Weights above a half are rare; a scale that ends there shows the others.
  HeatMap map{.title = title, .row_title = "query", .column_title = "key", .low = 0.0, .high = 0.5};
  const std::size_t T = ids.size();
  for (std::size_t row = 0; row < T; ++row) {
    map.row_labels.push_back(printable(tokenizer.token_bytes(ids[row])));
    map.column_labels.push_back(map.row_labels.back());
    map.values.emplace_back();
    for (std::size_t column = 0; column < T; ++column)
      map.values.back().push_back(causal && column > row ? std::numeric_limits<double>::quiet_NaN()
                                                         : static_cast<double>(weights[row * T + column]));
  }
  fmt::print("{}\n", text_plot(map));
  write_file(svg_file, svg(map));
  fmt::print("in colour: {}\n", svg_file.string());
}

void show_model(const std::filesystem::path& folder, const std::string& text, std::int64_t layer,
                const std::filesystem::path& work) {
  const GptStage model = load_huggingface(folder);
  const auto tokenizer = load_tokenizer(folder);
  const GptConfig& c = model.config();
  check(tokenizer->vocab_size() == c.vocab_size,
        "the tokenizer in {} has {} tokens, but the model has {}: they do not belong together",
        folder.string(), tokenizer->vocab_size(), c.vocab_size);
  check(layer < c.layers, "there is no layer {}: the model has layers 0 to {}", layer, c.layers - 1);
  std::vector<std::int32_t> ids;
  if (const auto end = tokenizer->end_of_text()) ids.push_back(*end);  // where a story begins
  tokenizer->encode_append(text, ids);
  const auto T = static_cast<std::int64_t>(ids.size());
  check(T >= 1 && T <= c.context, "the text has {} tokens; the model takes 1 to {}", T, c.context);

  StageActivations saved;
  model.forward(saved, Tensor::from(std::span<const std::int32_t>(ids), {1, T}));
  const Tensor& qkv = saved.blocks[static_cast<std::size_t>(layer)].qkv;
  Tensor y({1, T, c.channels}), weights({1, c.heads, T, T});
  attention_naive_forward(y, weights, qkv, {.heads = c.heads});
  for (std::int64_t head = 0; head < c.heads; ++head) {
    fmt::print("\nlayer {}, head {}\n\n", layer, head);
    show_heat_map(*tokenizer, ids, weights.data() + head * T * T, true,
                  fmt::format("attention, layer {}, head {}", layer, head),
                  work / "ch03_attention" / fmt::format("layer_{}_head_{}.svg", layer, head));
  }
}

}  // namespace llm::ch03
