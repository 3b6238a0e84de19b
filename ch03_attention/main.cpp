// Chapter 3: attention. Without arguments the chapter's walk.
//
//   ch03_attention look --model DIR [--text TEXT] [--layer N]   the attention of a trained model
#include "ch03_attention/walk.h"
#include "common/cli/metrics.h"
#include "common/cli/program.h"
#include "common/ops/ops.h"

int main(int argc, char** argv) {
  CLI::App app{"Chapter 3: how tokens look at one another. Without a subcommand: the chapter's walk."};
  llm::CommonOptions common;
  llm::add_common_options(app, common);
  common.computes_with = llm::describe_gemm;

  std::string model;
  std::string text = "Mia wanted to give the kite to Tom.";
  std::int64_t layer = 0;
  CLI::App* look = app.add_subcommand("look", "draw what each head of a trained model looks at");
  look->add_option("--model", model, "model folder: config.json, model.safetensors, tokenizer")->required();
  look->add_option("--text", text, "what the model reads")->capture_default_str();
  look->add_option("--layer", layer, "which layer, from 0")
      ->capture_default_str()
      ->check(llm::between(0, 1000));
  app.require_subcommand(0, 1);

  return llm::run_program(argc, argv, app, common, [&] {
    llm::MetricsWriter metrics(common.metrics);
    if (look->parsed())
      llm::ch03::show_model(model, text, layer, common.work);
    else
      llm::ch03::walk(common.work, common.seed, metrics);
  });
}
