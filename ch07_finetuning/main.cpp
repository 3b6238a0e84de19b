// Chapter 7: a story teller becomes something one can talk to. Without a command: the walk.
#include "ch07_finetuning/finetuning.h"
#include "ch07_finetuning/talking.h"
#include "common/cli/layout_options.h"
#include "common/cli/program.h"
#include "common/core/error.h"
#include "common/ops/ops.h"
#include "common/parallel/launch.h"

namespace {

/// What commands that load a model share.
void add_model(CLI::App* command, std::filesystem::path& model, llm::Placement& placement) {
  command->add_option("model", model, "model folder: config.json, model.safetensors, tokenizer")->required();
  command
      ->add_option_function<std::string>(
          "--dtype", [&](const std::string& text) { placement.dtype = llm::parse_dtype(text); },
          "f32, or bf16 with --device cuda")
      ->default_str("f32");
}

}  // namespace

int main(int argc, char** argv) {
  using namespace llm;
  choose_gpu_under_mpirun();
  CLI::App app{"Chapter 7: fine-tune a model, teach it preferences, and measure what it can do"};
  CommonOptions common;
  add_common_options(app, common);
  common.computes_with = describe_gemm;
  common.says_where = rank_under_mpirun() == 0;
  common.uses_device = true;

  LoraOptions lora;
  std::int64_t rank = 0;
  const auto add_tune = [&](CLI::App* command, ch07::TuneOptions& t) {
    command->add_option("--model", t.model, "model folder to start from")->required();
    command->add_option("--out", t.out, "folder for the new model, its metrics and pictures")->required();
    command->add_option("--steps", t.steps)->check(between(1, 1e9))->capture_default_str();
    command->add_option("--batch", t.batch, "examples of a step")
        ->check(between(1, 65536))
        ->capture_default_str();
    command->add_option("--lr", t.learning_rate, "largest learning rate")
        ->check(above(0, 10))
        ->capture_default_str();
    command->add_option("--weight-decay", t.weight_decay)->check(between(0, 10))->capture_default_str();
    command->add_option("--clip", t.clip, "largest norm of the gradients; 0: none")
        ->check(between(0, 1e9))
        ->capture_default_str();
  };
  const auto add_layout = [&](CLI::App* command, ch07::TuneOptions& t) {
    add_layout_options(
        command, t, "threads that are the ranks; 0: the processes that mpirun started, or --pp times --tp");
    command
        ->add_option(
            "--accumulate", t.accumulate,
            "micro-batches that a step's examples fall into, shared out over data-parallel ranks; 0: "
            "as few as the layout needs")
        ->check(between(0, 65536))
        ->capture_default_str();
  };
  const auto add_lora = [&](CLI::App* command) {
    command->add_option("--lora", rank, "train adapters of this rank instead of all parameters")
        ->check(between(1, 65536));
    command->add_option("--alpha", lora.alpha, "adapters are scaled by alpha / rank")
        ->check(above(0, 1e6))
        ->capture_default_str();
    command->add_option("--lora-dropout", lora.dropout)->check(between(0, 0.99))->capture_default_str();
    command->add_option("--targets", lora.targets, "layers with adapters, by the end of their names")
        ->delimiter(',')
        ->capture_default_str();
    command->add_flag("--split-qkv", lora.split_qkv, "adapters of their own for queries, keys and values");
  };

  ch07::ClassifyCommand c;
  CLI::App* classify = app.add_subcommand("classify", "a new head names the class of a text");
  add_tune(classify, c.tune);
  add_layout(classify, c.tune);
  add_lora(classify);
  classify->add_option("--data", c.data, "lines of label, tab, text; default: stories that end well or not");
  classify->add_option("--labels", c.labels, "of --data")->delimiter(',')->capture_default_str();
  classify->add_option("--stories", c.stories, "without --data")
      ->check(between(20, 1e7))
      ->capture_default_str();
  classify->add_option("--train", c.part, "head, last-block, everything, or lora")->capture_default_str();
  classify->add_option("--longest", c.longest, "tokens of a text, the rest is cut off; 0: the context")
      ->check(between(0, 1 << 20))
      ->capture_default_str();

  ch07::ClassifyCommand w;
  std::filesystem::path texts_out;
  CLI::App* texts = app.add_subcommand("texts", "labelled texts without those of the test, to pretrain on");
  texts->add_option("--data", w.data, "lines of label, tab, text")->required();
  texts->add_option("--labels", w.labels)->delimiter(',')->capture_default_str();
  texts->add_option("--out", texts_out, "JSON lines")->required();

  ch07::InstructCommand i;
  CLI::App* instruct = app.add_subcommand("instruct", "questions and answers");
  add_tune(instruct, i.tune);
  add_layout(instruct, i.tune);
  add_lora(instruct);
  instruct->add_option("--data", i.data, "instructions as JSON; default: questions about stories");
  instruct->add_option("--template", i.style, "chat or alpaca")->capture_default_str();
  instruct->add_option("--questions", i.questions, "without --data")
      ->check(between(1, 1e7))
      ->capture_default_str();
  instruct->add_option("--held-out", i.held_out)->check(between(1, 1e6))->capture_default_str();
  instruct->add_flag("!--no-mask", i.mask_prompt, "learn the prompts too, not only the answers");
  instruct->add_flag("--pack", i.packing,
                     "several examples per row of the context's length, none of which sees another");

  ch07::DpoCommand d;
  CLI::App* dpo = app.add_subcommand("dpo", "preferences: better and worse answers in pairs");
  add_tune(dpo, d.tune);
  add_layout(dpo, d.tune);
  add_lora(dpo);
  dpo->add_option("--data", d.data,
                  "instructions with \"chosen\" and \"rejected\"; default: endings of stories");
  dpo->add_option("--pairs", d.pairs, "without --data")->check(between(1, 1e7))->capture_default_str();
  dpo->add_option("--held-out", d.held_out)->check(between(1, 1e6))->capture_default_str();
  dpo->add_option("--beta", d.beta)->check(above(0, 100))->capture_default_str();

  ch07::GrpoCommand g;
  CLI::App* grpo = app.add_subcommand("grpo", "rewards: answers to stories' questions that can be checked");
  add_tune(grpo, g.tune);
  grpo->add_option("--group", g.group, "answers to each question")
      ->check(between(2, 4096))
      ->capture_default_str();
  grpo->add_option("--held-out", g.held_out)->check(between(1, 1e6))->capture_default_str();
  grpo->add_option("--updates", g.updates, "steps on the same answers")
      ->check(between(1, 1000))
      ->capture_default_str();
  grpo->add_option("--kl", g.grpo.kl, "weight of the divergence from the start")
      ->check(between(0, 100))
      ->capture_default_str();
  grpo->add_option("--ratio-clip", g.grpo.clip)->check(above(0, 0.999))->capture_default_str();

  ch07::EvaluateCommand e;
  CLI::App* evaluate = app.add_subcommand("evaluate", "multiple choice, text, questions");
  evaluate->add_option("--model", e.model, "model folder")->required();
  evaluate->add_option("--choices", e.choices, "JSON lines of context, choices, gold");
  evaluate->add_option("--text", e.texts, "a text, JSON lines of texts, or a folder of them");
  evaluate->add_option("--questions", e.questions, "how many of the stories' questions")
      ->check(between(0, 1e6))
      ->capture_default_str();

  ch07::MergeCommand m;
  CLI::App* merge = app.add_subcommand("merge", "add an adapter's products to a model's weights");
  merge->add_option("--model", m.model, "model folder")->required();
  merge->add_option("--adapter", m.adapter, "folder in PEFT's layout")->required();
  merge->add_option("--out", m.out, "folder for the merged model")->required();

  Placement talking;
  ch07::ChatCommand talk;
  CLI::App* chat = app.add_subcommand("chat", "talk to a model in the terminal");
  add_model(chat, talk.model, talking);
  chat->add_option("--temperature", talk.temperature, "0: always the most probable token")
      ->check(between(0, 100))
      ->capture_default_str();
  chat->add_option("--top-k", talk.top_k, "draw among the k most probable tokens; 0: all")
      ->check(between(0, 1e9))
      ->capture_default_str();
  chat->add_option("--top-p", talk.top_p, "draw among the fewest that have this probability")
      ->check(above(0, 1))
      ->capture_default_str();
  chat->add_option("--max-tokens", talk.max_tokens, "of one answer")
      ->check(between(1, 1e7))
      ->capture_default_str();

  ch07::ServeCommand s;
  CLI::App* serve =
      app.add_subcommand("serve", "OpenAI's interface and a page to talk to a model, over HTTP");
  add_model(serve, s.model, talking);
  serve->add_option("--address", s.address, "0.0.0.0 or :: lets other machines in")->capture_default_str();
  serve->add_option("--port", s.port, "0: any free one")->check(between(0, 65535))->capture_default_str();
  serve->add_option("--name", s.name, "what clients call the model; default: the folder's name");
  serve->add_option("--streams", s.streams, "answers decoded together")
      ->check(between(1, 4096))
      ->capture_default_str();
  serve->add_option("--queue", s.queue, "answers that may wait for their turn; more are told 503")
      ->check(between(0, 1e6))
      ->capture_default_str();
  serve->add_option("--max-tokens", s.max_tokens, "of one answer")
      ->check(between(1, 1e7))
      ->capture_default_str();
  serve->add_option("--time", s.seconds, "seconds that one answer may take")
      ->check(between(1, 1e6))
      ->capture_default_str();
  serve->add_option("--grace", s.grace, "seconds to finish answers in when told to stop")
      ->check(between(0, 1e6))
      ->capture_default_str();
  serve->add_option("--connections", s.connections, "at a time; more are told 503")
      ->check(between(1, 1e5))
      ->capture_default_str();
  serve->add_option("--body-bytes", s.body_bytes, "of one request; more are told 413")
      ->check(between(1, 1e9))
      ->capture_default_str();

  return run_program(argc, argv, app, common, [&] {
    const Placement placement{common.device, DType::f32};
    for (ch07::TuneOptions* t : {&c.tune, &i.tune, &d.tune, &g.tune}) {
      t->placement = placement;
      t->seed = common.seed;
      t->metrics = common.metrics;
      if (rank > 0) {
        lora.rank = rank;
        t->lora = lora;
      }
    }
    e.placement = placement;
    e.seed = common.seed;
    e.metrics = common.metrics;
    w.tune.seed = common.seed;
    if (ranks_started_by_mpirun() > 1 && !classify->parsed() && !instruct->parsed() && !dpo->parsed())
      fail_usage("classify, instruct and dpo run on several ranks; start the rest without mpirun");
    if (texts->parsed()) {
      ch07::write_texts(w, texts_out);
    } else if (classify->parsed()) {
      if (c.part == "lora" && rank == 0) c.tune.lora = lora;
      if (c.part != "lora" && rank > 0) fail_usage("--lora goes with --train lora");
      ch07::classify(c);
    } else if (instruct->parsed()) {
      ch07::instruct(i);
    } else if (dpo->parsed()) {
      ch07::dpo(d);
    } else if (grpo->parsed()) {
      ch07::grpo(g);
    } else if (evaluate->parsed()) {
      ch07::evaluate(e);
    } else if (merge->parsed()) {
      ch07::merge(m);
    } else if (chat->parsed() || serve->parsed()) {
      talking.device = common.device;
      if (talking.dtype == DType::bf16 && common.device == Device::cpu)
        fail_usage("--dtype bf16 needs --device cuda; the CPU computes in f32");
      talk.placement = s.placement = talking;
      talk.seed = common.seed;
      chat->parsed() ? ch07::chat(talk) : ch07::serve(s);
    } else {
      ch07::walk({common.work, common.seed, placement, common.metrics});
    }
  });
}
