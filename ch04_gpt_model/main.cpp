// Chapter 4: a GPT model. Without arguments the chapter's walk; with a subcommand the tool.
//
//   ch04_gpt_model generate --model DIR --prompt TEXT            a model folder goes on with a text
//   ch04_gpt_model logits --model DIR --tokens 1,2,3 --out FILE  its raw output, for comparison with others
#include <fmt/format.h>

#include <chrono>
#include <cstdio>

#include "ch04_gpt_model/walk.h"
#include "common/cli/format.h"
#include "common/cli/metrics.h"
#include "common/cli/program.h"
#include "common/core/error.h"
#include "common/generation/generate.h"
#include "common/model/huggingface.h"
#include "common/model/safetensors.h"
#include "common/ops/ops.h"
#include "common/tokenizer/stream_text.h"
#include "common/tokenizer/tokenizer.h"

namespace {

struct Arguments {
  std::string model, tokenizer, prompt, out;
  std::vector<std::int64_t> tokens;
  float temperature = 0.8F, top_p = 1;
  std::int64_t top_k = 0, max_tokens = 256;
  llm::Placement placement;
};

void print_now(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void generate(const Arguments& arguments, std::uint64_t seed, llm::MetricsWriter& metrics) {
  llm::GenerateOptions options;
  options.sampling = {
      .temperature = arguments.temperature, .top_k = arguments.top_k, .top_p = arguments.top_p, .seed = seed};
  options.max_new_tokens = arguments.max_tokens;
  llm::validate(options.sampling);
  const llm::GptStage model = llm::load_huggingface(arguments.model).placed(arguments.placement);
  const std::string folder = arguments.tokenizer.empty() ? arguments.model : arguments.tokenizer;
  const auto tokenizer = llm::load_tokenizer(folder);
  llm::check(tokenizer->vocab_size() == model.config().vocab_size,
             "the tokenizer in {} has {} tokens, but the model in {} has {}: they do not belong together",
             folder, tokenizer->vocab_size(), arguments.model, model.config().vocab_size);
  options.stop_token = tokenizer->end_of_text();

  std::vector<std::int32_t> prompt = tokenizer->encode(arguments.prompt);
  if (prompt.empty()) {  // a text begins where the one before ended
    if (!options.stop_token)
      llm::fail_usage("the prompt is empty, and the tokenizer has no end-of-text token to begin with");
    prompt.push_back(*options.stop_token);
  }
  print_now(arguments.prompt);
  const auto start = std::chrono::steady_clock::now();
  llm::StreamText stream;
  const llm::Generated result = llm::generate(model, prompt, options, [&](std::int32_t token) {
    print_now(stream.push(tokenizer->token_bytes(token)));
    return true;
  });
  print_now(stream.finish() + "\n");
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print(stderr, "{} tokens in {} ({:.0f} per second){}\n", result.tokens.size(),
             llm::duration_text(seconds), static_cast<double>(result.tokens.size()) / seconds,
             result.stopped ? "; the model ended the text" : "");
  metrics.write({{"what", "generate"},
                 {"prompt_tokens", static_cast<std::int64_t>(prompt.size())},
                 {"tokens", static_cast<std::int64_t>(result.tokens.size())},
                 {"stopped", result.stopped},
                 {"seconds", seconds},
                 {"text", arguments.prompt + tokenizer->decode(result.tokens)}});
}

void logits(const Arguments& arguments, llm::MetricsWriter& metrics) {
  const llm::GptStage model = llm::load_huggingface(arguments.model).placed(arguments.placement);
  const llm::GptConfig& config = model.config();
  const auto T = static_cast<std::int64_t>(arguments.tokens.size());
  llm::check(T <= config.context, "{} tokens do not fit into the model's context of {}", T, config.context);
  llm::Tensor tokens = llm::Tensor::uninitialized({1, T}, llm::DType::i32);
  for (std::int64_t t = 0; t < T; ++t) {
    const std::int64_t id = arguments.tokens[static_cast<std::size_t>(t)];
    llm::check(id >= 0 && id < config.vocab_size, "there is no token {}: the model's vocabulary has 0 to {}",
               id, config.vocab_size - 1);
    tokens.data<std::int32_t>()[t] = static_cast<std::int32_t>(id);
  }
  llm::StageActivations saved;
  model.forward(saved, tokens);
  const llm::Tensor result = llm::Tensor::uninitialized({T, config.vocab_size});
  model.logits(result.view({1, T, config.vocab_size}), saved);
  llm::write_safetensors(arguments.out, {{"logits", result.shape(), [&] { return result; }}});
  fmt::print("logits {} in {}\n", llm::to_string(result.shape()), arguments.out);
  metrics.write({{"what", "logits"}, {"tokens", T}, {"vocab_size", config.vocab_size}});
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Chapter 4: a GPT model. Without a subcommand: the chapter's walk."};
  llm::CommonOptions common;
  llm::add_common_options(app, common);
  common.computes_with = llm::describe_gemm;
  common.uses_device = true;
  Arguments arguments;

  CLI::App* generate_command = app.add_subcommand("generate", "go on with a text");
  generate_command
      ->add_option("--model", arguments.model, "model folder: config.json, model.safetensors, tokenizer")
      ->required();
  generate_command->add_option("--prompt", arguments.prompt, "the text to go on with")->required();
  generate_command->add_option("--tokenizer", arguments.tokenizer,
                               "folder of the tokenizer; default: the model's");
  generate_command->add_option("--temperature", arguments.temperature, "0: always the most probable token")
      ->capture_default_str()
      ->check(llm::between(0, 100));
  generate_command->add_option("--top-k", arguments.top_k, "draw among the k most probable tokens; 0: all")
      ->capture_default_str()
      ->check(llm::between(0, 1e9));
  generate_command->add_option("--top-p", arguments.top_p, "draw among the fewest that have this probability")
      ->capture_default_str()
      ->check(llm::above(0, 1));
  generate_command->add_option("--max-tokens", arguments.max_tokens, "stop after so many new tokens")
      ->capture_default_str()
      ->check(llm::between(0, 1e7));

  CLI::App* logits_command =
      app.add_subcommand("logits", "write the logits of all positions of a token sequence");
  logits_command->add_option("--model", arguments.model, "model folder: config.json and model.safetensors")
      ->required();
  logits_command->add_option("--tokens", arguments.tokens, "token ids: 1,2,3")->required()->delimiter(',');
  logits_command->add_option("--out", arguments.out, "a safetensors file with the tensor logits (T, V)")
      ->required();
  for (CLI::App* command : {generate_command, logits_command})
    command
        ->add_option_function<std::string>(
            "--dtype", [&](const std::string& text) { arguments.placement.dtype = llm::parse_dtype(text); },
            "f32, or bf16 with --device cuda")
        ->default_str("f32");
  app.require_subcommand(0, 1);

  return llm::run_program(argc, argv, app, common, [&] {
    arguments.placement.device = common.device;
    if (arguments.placement.dtype == llm::DType::bf16 && common.device == llm::Device::cpu)
      llm::fail_usage("--dtype bf16 needs --device cuda; the CPU computes in f32");
    llm::MetricsWriter metrics(common.metrics);
    if (generate_command->parsed())
      generate(arguments, common.seed, metrics);
    else if (logits_command->parsed())
      logits(arguments, metrics);
    else if (common.device == llm::Device::cuda)
      llm::fail_usage("the chapter's walk computes on the cpu; generate and logits take --device cuda");
    else
      llm::ch04::walk(common.work, common.seed, metrics);
  });
}
