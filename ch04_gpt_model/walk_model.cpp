// The walk through chapter 4.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "ch04_gpt_model/walk.h"
#include "common/cli/format.h"
#include "common/cli/table.h"
#include "common/core/error.h"
#include "common/core/file.h"
#include "common/core/torch_random.h"
#include "common/generation/generate.h"
#include "common/model/huggingface.h"
#include "common/ops/ops.h"
#include "common/text/batches.h"
#include "common/text/token_shard.h"
#include "common/tokenizer/story_tokens.h"
#include "common/tokenizer/stream_text.h"
#include "common/tokenizer/tokenizer.h"

namespace llm::ch04 {
namespace {

namespace fs = std::filesystem;

void headline(std::string_view text) {
  fmt::print("\n{}\n{}\n\n", text, std::string(text.size(), '-'));
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Root mean square of all elements.
double size_of_numbers(const Tensor& t) {
  return std::sqrt(squared_norm(t.view({t.numel()})) / static_cast<double>(t.numel()));
}

/// In one line, and as UTF-8: what is no character becomes U+FFFD.
std::string printable(std::string_view bytes) {
  StreamText stream;
  std::string text = stream.push(bytes) + stream.finish();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

GptConfig story_config(std::int64_t vocabulary) {
  GptConfig config;
  config.vocab_size = vocabulary;
  config.context = 128;
  config.channels = 128;
  config.layers = 4;
  config.heads = 4;
  return config;
}

void show_block(const GptStage& model, const Batch& batch) {
  headline("1. One block, step by step");
  const GptConfig& c = model.config();
  StageActivations saved;
  model.forward(saved, batch.inputs);
  const BlockActivations& a = saved.blocks[0];
  fmt::print("A GPT of {} layers, {} heads, {} channels reads B = {} pieces of stories of T = {} tokens.\n\n",
             c.layers, c.heads, c.channels, batch.inputs.dim(0), batch.inputs.dim(1));
  Table table({"step", "shape", "size of the numbers"});
  const auto row = [&](const char* step, const Tensor& t) {
    table.add({step, to_string(t.shape()), fmt::format("{:.4f}", size_of_numbers(t))});
  };
  table.add({"tokens", to_string(batch.inputs.shape()), "(ids)"});
  row("x = token + position embedding", a.input);
  row("norm 1: mean 0, variance 1", a.norm1);
  row("q, k, v side by side", a.qkv);
  row("attention: weighted values", a.attention);
  row("x + projection", a.middle);
  row("norm 2", a.norm2);
  row("up: 4 times as wide", a.up);
  row("GELU", a.gelu);
  row("x + down", c.layers > 1 ? saved.blocks[1].input : saved.output);
  table.print();
  fmt::print("\nThe last shape is the first: blocks can be stacked. After {} of them the size is {:.4f}.\n",
             c.layers, size_of_numbers(saved.output));
}

void show_untrained(GptStage& model, const Tokenizer& tokenizer, const Batch& batch, std::uint64_t seed,
                    MetricsWriter& metrics) {
  headline("2. What it says before it has learned anything");
  StageActivations saved;
  StageScratch scratch;
  model.forward(saved, batch.inputs);
  const double loss =
      model.loss(saved, scratch, batch.targets, std::nullopt) / static_cast<double>(batch.inputs.numel());
  fmt::print("Loss on the {} tokens above: {:.3f} nats per token. Guessing blindly: ln {} = {:.3f}.\n",
             batch.inputs.numel(), loss, model.config().vocab_size,
             std::log(static_cast<double>(model.config().vocab_size)));
  GenerateOptions options;
  options.sampling.seed = seed;
  options.max_new_tokens = 40;
  const std::string prompt = "One morning";
  const Generated result = generate(model, tokenizer.encode(prompt), options);
  fmt::print("\n  {}{}\n", prompt, printable(tokenizer.decode(result.tokens)));
  metrics.write({{"what", "untrained"}, {"loss", loss}});
}

void show_parameters() {
  headline("3. Where the 124,439,808 parameters are");
  const GptConfig c = gpt2_config("gpt2-124m");
  const std::int64_t V = c.vocab_size, T = c.context, C = c.channels, L = c.layers;
  Table table({"part", "formula", "parameters"});
  table.add({"token embedding (and head)", "V C", with_commas(V * C)});
  table.add({"position embedding", "T C", with_commas(T * C)});
  table.add({"12 x q, k, v", "L (3 C C + 3 C)", with_commas(L * (3 * C * C + 3 * C))});
  table.add({"12 x projection", "L (C C + C)", with_commas(L * (C * C + C))});
  table.add({"12 x up", "L (4 C C + 4 C)", with_commas(L * (4 * C * C + 4 * C))});
  table.add({"12 x down", "L (4 C C + C)", with_commas(L * (4 * C * C + C))});
  table.add({"25 norms", "(2 L + 1) 2 C", with_commas((2 * L + 1) * 2 * C)});
  table.add({"all", "", with_commas(parameter_count(c))});
  table.print();
  fmt::print("\nGPT-2 124M: V = 50257 tokens, T = 1024 positions, C = 768 channels, L = 12 layers.\n");
}

void show_costs(MetricsWriter& metrics) {
  headline("4. What the four sizes of GPT-2 cost");
  Table table({"model", "layers", "channels", "parameters", "weights", "to train", "+ activations",
               "FLOPs per token"});
  for (const std::string& name : gpt2_config_names()) {
    const GptConfig c = gpt2_config(name);
    const auto parameters = static_cast<double>(parameter_count(c));
    const auto activations = static_cast<double>(activation_bytes(c, 4, 256));
    const double flops = training_flops_per_token(c, 1024);
    table.add({name, std::to_string(c.layers), std::to_string(c.channels), with_commas(parameter_count(c)),
               byte_text(4 * parameters), byte_text(16 * parameters), byte_text(activations),
               short_count(flops)});
    metrics.write({{"what", "size"},
                   {"model", name},
                   {"parameters", parameter_count(c)},
                   {"activation_bytes", activation_bytes(c, 4, 256)},
                   {"flops_per_token", flops}});
  }
  table.print();
  fmt::print(
      "\nTo train: 16 bytes per parameter (value, gradient, two moments of AdamW, 4 bytes each). "
      "Activations: 4\n"
      "sequences of 256 tokens. FLOPs: forward and backward at 1024 tokens.\n");
}

void show_pytorch(MetricsWriter& metrics) {
  headline("5. The numbers of a PyTorch text, without PyTorch");
  const auto start = std::chrono::steady_clock::now();
  GptConfig config = gpt2_config("gpt2-124m");
  config.tied_head = false;
  config.qkv_bias = false;
  GptStage model(config);
  TorchRandom random(123);
  model.initialize_like_torch(random);
  const double initialised = seconds_since(start);
  const std::vector<std::int32_t> prompt = {15496, 11, 314, 716};
  GenerateOptions options;
  options.sampling.temperature = 0;
  options.max_new_tokens = 10;
  const Generated result = generate(model, prompt, options);
  fmt::print(
      "torch.manual_seed(123), then a GPT of {} parameters (untied head), untrained, goes on with\n\"Hello, "
      "I am\":\n\n",
      with_commas(parameter_count(config)));
  fmt::print("  {} -> {}\n\n", fmt::join(prompt, " "), fmt::join(result.tokens, " "));
  const std::vector<std::int32_t> published = {27018, 24086, 47843, 30961, 42348,
                                               7267,  49706, 43231, 47062, 34657};
  fmt::print("Published for PyTorch: {}. ({:.1f} s to draw the weights, {:.1f} s to generate.)\n",
             result.tokens == published ? "the same ten" : "others", initialised,
             seconds_since(start) - initialised);
  metrics.write({{"what", "pytorch"}, {"same", result.tokens == published}});
}

void leave_model(const GptStage& model, const Tokenizer& tokenizer, const fs::path& work) {
  headline("6. What is left for the next chapters");
  const fs::path out = work / "ch04_gpt_model";
  write_folder(out, [&](const fs::path& fresh) {
    save_huggingface(model, fresh);
    tokenizer.save(fresh);
  });
  fmt::print("{}: the small model, untrained, as transformers writes it. Try\n\n", out.string());
  fmt::print("  ch04_gpt_model generate --model {} --prompt \"One morning\"\n\n", out.string());
  fmt::print("Next: ch05_pretraining teaches it to tell stories.\n");
}

}  // namespace

void walk(const fs::path& work, std::uint64_t seed, MetricsWriter& metrics) {
  const fs::path tokens =
      story_token_folder(work, seed, [](std::string_view line) { fmt::print("{}\n", line); });
  const auto tokenizer = load_tokenizer(tokens);
  const TokenShard shard(tokens / "val.bin");
  shard.check_vocabulary(tokenizer->vocab_size());
  GptStage model(story_config(tokenizer->vocab_size()));
  model.initialize(seed);
  constexpr std::int64_t B = 4, T = 64;
  const Batch batch = make_batch(shard.tokens(), random_starts(shard.size(), T, seed, 0, 0, B), T);

  show_block(model, batch);
  show_untrained(model, *tokenizer, batch, seed, metrics);
  show_parameters();
  show_costs(metrics);
  show_pytorch(metrics);
  leave_model(model, *tokenizer, work);
}

}  // namespace llm::ch04
