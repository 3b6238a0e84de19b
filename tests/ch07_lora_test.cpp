// LoRA against peft: the layer, a whole adapted model, and the files both ways.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/core/file.h"
#include "common/finetuning/lora.h"
#include "common/model/huggingface.h"
#include "common/training/adamw.h"
#include "tests/ch04_model_helpers.h"
#include "tests/ch07_golden.h"

namespace llm {
namespace {

using namespace testing;
namespace fs = std::filesystem;

const fs::path kModel = fs::path(LLM_GOLDEN_DIR) / "model_tied";
const fs::path kAdapter = fs::path(LLM_GOLDEN_DIR) / "peft_tied";

TEST(Lora, LayerAgreesWithPeft) {
  const FinetuningGolden golden;
  for (int i = 0; i < 3; ++i) {
    const auto g = [&](const char* part) { return golden.tensor("lora", i, part); };
    const Tensor x = g("x"), w = g("w"), y = poisoned(g("y").shape());
    const LowRank m{g("A"), g("B"), static_cast<float>(golden.number("lora", i, "scale")), 1};
    const std::int64_t rows = x.numel() / w.dim(1), r = m.rank();
    const Tensor h = poisoned({rows, r}), dh = poisoned({rows, r});
    linear_forward(y, x, w, g("bias"));
    lora_forward(y, x, m, h);
    expect_close(y, g("y"), "y");
    const Tensor dx = poisoned(x.shape()), da(m.a.shape()), db(m.b.shape());
    linear_backward(dx, Tensor(), Tensor(), g("dy"), x, w);
    lora_backward(dx, da, db, g("dy"), x, m, h, dh);
    expect_close(dx, g("dx"), "dx");
    expect_close(da, g("dA"), "dA");
    expect_close(db, g("dB"), "dB");
    lora_merge(w, m);
    expect_close(w, g("merged"), "merged");
  }
}

TEST(Lora, SplitPartsAreLayersOfTheirOwn) {
  // One layer of 3 parts, against three layers on the thirds of its rows.
  const Tensor x = normal({6, 5}, 1), a = normal({3 * 2, 5}, 2), b = normal({3 * 4, 2}, 3),
               dy = normal({6, 12}, 4);
  const Tensor y({6, 12}), dx({6, 5}), da({6, 5}), db({12, 2}), h({6, 6}), dh({6, 6});
  const LowRank all{a, b, 0.5F, 3};
  lora_forward(y, x, all, h);
  lora_backward(dx, da, db, dy, x, all, h, dh);
  const Tensor merged({12, 5}), expected_dx({6, 5});
  lora_merge(merged, all);
  for (std::int64_t p = 0; p < 3; ++p) {
    const LowRank one{a.slice(2 * p, 2 * p + 2), b.slice(4 * p, 4 * p + 4), 0.5F, 1};
    const Tensor yp({6, 4}), dyp({6, 4}), dap({2, 5}), dbp({4, 2}), hp({6, 2}), dhp({6, 2}), wp({4, 5});
    for (std::int64_t n = 0; n < 6; ++n)
      for (std::int64_t o = 0; o < 4; ++o) dyp.data()[n * 4 + o] = dy.data()[n * 12 + p * 4 + o];
    lora_forward(yp, x, one, hp);
    lora_backward(expected_dx, dap, dbp, dyp, x, one, hp, dhp);
    lora_merge(wp, one);
    for (std::int64_t n = 0; n < 6; ++n)
      for (std::int64_t o = 0; o < 4; ++o)
        EXPECT_NEAR(y.data()[n * 12 + p * 4 + o], yp.data()[n * 4 + o], 1e-5);
    expect_close(da.slice(2 * p, 2 * p + 2), dap, "dA");
    expect_close(db.slice(4 * p, 4 * p + 4), dbp, "dB");
    expect_close(merged.slice(4 * p, 4 * p + 4), wp, "merged");
  }
  expect_close(dx, expected_dx, "dx");
}

/// Everything frozen but the adapters.
void freeze(GptStage& model) {
  model.set_trainable([](const Parameter&) { return false; });
}

TEST(Lora, ModelAgreesWithPeft) {
  GptStage model = load_huggingface(kModel);
  LoraAdapters adapters = LoraAdapters::load_peft(kAdapter, model);
  const SafetensorsFile given(kModel / "answers.safetensors"), answers(kAdapter / "answers.safetensors");
  const Tensor tokens = read_ids(given, "tokens"), targets = read_ids(given, "targets");
  freeze(model);
  model.attach(&adapters);
  StageActivations saved;
  StageScratch scratch;
  model.forward(saved, tokens);
  const Tensor logits = poisoned(read_tensor(answers, "logits").shape());
  model.logits(logits, saved);
  expect_close(logits, read_tensor(answers, "logits"), "logits");
  model.loss(saved, scratch, targets, 1.0F);
  expect_close(saved.losses, read_tensor(answers, "losses"), "losses");
  model.backward(saved, scratch, tokens);
  for (const Parameter& p : adapters.parameters().all())
    expect_close(p.gradient, read_tensor(answers, "grad." + p.name), p.name);
  for (const Parameter& p : model.parameters().all()) {
    if (p.shape.size() != 2) continue;
    EXPECT_EQ(squared_norm(p.gradient), 0) << "a frozen matrix has a gradient: " << p.name;
  }

  // Merged, the same logits.
  model.attach(nullptr);
  adapters.merge(model);
  model.forward(saved, tokens);
  model.logits(logits, saved);
  expect_close(logits, read_tensor(answers, "logits"), "merged logits");
}

TEST(Lora, GeneratesWithAndWithoutMerging) {
  GptStage model = load_huggingface(kModel);
  LoraAdapters adapters = LoraAdapters::load_peft(kAdapter, model);
  const Tensor prompt = random_ids(2, 5, 61, 1), next = random_ids(2, 1, 61, 2);
  const auto last_logits = [&] {
    KvCache cache = model.make_cache(2, 6);
    const Tensor logits({2, 61});
    model.decode(logits, cache, prompt);
    model.decode(logits, cache, next);
    return logits;
  };
  const Tensor bare = last_logits();
  model.attach(&adapters);
  const Tensor attached = last_logits();
  EXPECT_GT(relative_distance(attached.span(), bare.span()), 1e-2) << "the adapters must change something";
  model.attach(nullptr);
  adapters.merge(model);
  expect_close(last_logits(), attached, "logits of the merged model");
}

TEST(Lora, StartsAtTheModelAsItIs) {
  GptStage model = load_huggingface(kModel);
  const Tensor tokens = random_ids(2, 7, model.config().vocab_size, 1);
  StageActivations saved;
  const std::vector<float> before = copy(model.forward(saved, tokens));
  LoraAdapters adapters(model, {}, 5);
  model.attach(&adapters);
  EXPECT_EQ(before, copy(model.forward(saved, tokens)));
}

TEST(Lora, CountsWhatAPublishedTextCounts) {
  // Raschka 2024, "Build a Large Language Model (From Scratch)", appendix E: rank 16 on every linear layer,
  // queries, keys and values each, and on a head of two classes: 2,666,528 parameters train of 124,441,346.
  const GptConfig c = gpt2_config("gpt2-124m");
  GptConfig thin = c;  // the adapters do not depend on the embedding
  thin.vocab_size = 1;
  thin.context = 1;
  const GptStage model(thin);
  const LoraAdapters adapters(model, {.rank = 16, .split_qkv = true}, 1);
  const std::int64_t head = 16 * (c.channels + 2);
  EXPECT_EQ(adapters.parameters().count() + head, 2'666'528);
  EXPECT_EQ(parameter_count(c) + 2 * c.channels + 2, 124'441'346);
}

TEST(Lora, FilesComeBack) {
  const fs::path folder = fs::temp_directory_path() / ("llm_ch07_lora_" + std::to_string(getpid()));
  GptStage model = load_huggingface(kModel);
  for (const bool split : {false, true}) {
    fs::remove_all(folder);
    LoraAdapters adapters(model, {.rank = 2, .alpha = 3, .split_qkv = split}, 7);
    for (const Parameter& p : adapters.parameters().all())
      p.value.copy_from(normal(p.shape, stream_id(p.name), 0.3F));
    adapters.save_peft(folder, "model_tied");
    LoraAdapters back = LoraAdapters::load_peft(folder, model);
    const Tensor tokens = random_ids(2, 9, model.config().vocab_size, 1);
    StageActivations saved;
    model.attach(&adapters);
    const Tensor expected = model.forward(saved, tokens).clone();
    model.attach(&back);
    expect_close(model.forward(saved, tokens), expected, "output with the adapters read back");
  }
  // PEFT's own adapter, read and written, has the same tensors.
  LoraAdapters::load_peft(kAdapter, model).save_peft(folder, "model_tied");
  const SafetensorsFile ours(folder / "adapter_model.safetensors"),
      theirs(kAdapter / "adapter_model.safetensors");
  ASSERT_EQ(ours.entries().size(), theirs.entries().size());
  for (const SafetensorsEntry& entry : theirs.entries()) {
    ASSERT_NE(ours.find(entry.name), nullptr) << entry.name;
    expect_close(read_tensor(ours, entry.name), read_tensor(theirs, entry.name), entry.name, 0);
  }
  fs::remove_all(folder);
}

TEST(Lora, RefusesFilesThatDoNotFit) {
  const fs::path folder = fs::temp_directory_path() / ("llm_ch07_badlora_" + std::to_string(getpid()));
  const GptStage model = load_huggingface(kModel);
  const auto expect_refused = [&](const std::string& part) {
    try {
      LoraAdapters::load_peft(folder, model);
      ADD_FAILURE() << "accepted; expected a sentence with: " << part;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  expect_refused("there is no");
  const auto with = [&](const std::string& key, const nlohmann::json& value) {
    fs::remove_all(folder);
    fs::create_directories(folder);
    nlohmann::json config = nlohmann::json::parse(read_file(kAdapter / "adapter_config.json"));
    config[key] = value;
    write_file(folder / "adapter_config.json", config.dump());
    fs::copy_file(kAdapter / "adapter_model.safetensors", folder / "adapter_model.safetensors");
  };
  with("peft_type", "IA3");
  expect_refused("no LoRA adapter");
  with("peft_type", 7);
  expect_refused("no LoRA adapter");
  with("r", 4);
  expect_refused("has rank 4, but its matrices have rank 3");
  with("lora_alpha", "many");
  expect_refused("must be a positive number");
  with("use_dora", true);
  expect_refused("only plain LoRA");
  write_file(folder / "adapter_config.json", "{");
  expect_refused("no JSON object");
  with("r", 3);
  fs::resize_file(folder / "adapter_model.safetensors", 5000);
  expect_refused("truncated");
  GptConfig other = model.config();
  other.layers = 2;
  EXPECT_THROW(LoraAdapters::load_peft(kAdapter, GptStage(other)), Error)
      << "adapts a layer that is not there";
  fs::remove_all(folder);
}

TEST(Lora, RefusesWhatMakesNoSense) {
  const GptStage model(small_config());
  EXPECT_THROW(LoraAdapters(model, {.rank = 0}, 1), UsageError);
  EXPECT_THROW(LoraAdapters(model, {.alpha = 0}, 1), UsageError);
  EXPECT_THROW(LoraAdapters(model, {.dropout = 1}, 1), UsageError);
  EXPECT_THROW(LoraAdapters(model, {.targets = {}}, 1), UsageError);
  EXPECT_THROW(LoraAdapters(model, {.targets = {"c_attn", "q_proj"}}, 1), UsageError);
}

TEST(Lora, DropoutGoesBackThroughItsMask) {
  // The directional derivative of the loss along the adapters' gradient, by differences.
  GptStage model(small_config());
  randomize(model, 3);
  freeze(model);
  LoraAdapters adapters(model, {.rank = 2, .alpha = 4, .dropout = 0.4F}, 1);
  for (const Parameter& p : adapters.parameters().all())
    p.value.copy_from(normal(p.shape, stream_id(p.name), 0.2F));
  model.attach(&adapters);
  const Tensor tokens = random_ids(2, 6, 41, 1), targets = random_ids(2, 6, 41, 2);
  const ForwardOptions options{.training = true, .seed = 1, .step = 3};
  run(model, tokens, targets, options);
  const Tensor gradient = adapters.parameters().gradients().clone();
  const double norm = std::sqrt(squared_norm(gradient));
  const auto loss_at = [&](double step) {
    const Tensor values = adapters.parameters().values();
    const Tensor before = values.clone();
    for (std::int64_t i = 0; i < values.numel(); ++i)
      values.data()[i] += static_cast<float>(step * gradient.data()[i] / norm);
    const double loss = run(model, tokens, targets, options);
    values.copy_from(before);
    return loss;
  };
  const double slope = (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2;
  EXPECT_NEAR(slope, norm, 5e-3 * norm);
}

TEST(Freezing, TrainsWhatIsAskedForOnly) {
  GptStage model(small_config());
  randomize(model, 3);
  const Tensor tokens = random_ids(2, 6, 41, 1), targets = random_ids(2, 6, 41, 2);
  run(model, tokens, targets);
  const Tensor all = model.parameters().gradients().clone();
  const auto last_block = [](const Parameter& p) {
    return p.name.starts_with("h.2.") || p.name.starts_with("ln_f");
  };
  model.set_trainable(last_block);
  AdamW optimizer(model.parameters(), {.weight_decay = 0.5F});
  EXPECT_EQ(optimizer.first_moment.numel(), model.parameters().trained_count()) << "what is frozen has none";
  const std::vector<float> before = copy(model.parameters().values());
  run(model, tokens, targets);
  double squares = 0;
  for (const Parameter& p : model.parameters().all()) {
    if (!p.trains) continue;
    expect_close(p.gradient, all.range(p.offset, p.shape), p.name, 0);
    squares += squared_norm(p.gradient);
  }
  EXPECT_NEAR(gradient_norm(model.parameters()), std::sqrt(squares), 1e-9 * std::sqrt(squares));
  optimizer.step(0.1);
  for (const Parameter& p : model.parameters().all())
    for (std::int64_t i = 0; i < p.value.numel(); ++i) {
      const bool same = p.value.data()[i] == before[static_cast<std::size_t>(p.offset + i)];
      ASSERT_TRUE(p.trains || same) << p.name << " moved";
    }
}

TEST(PackedDocuments, EqualTheDocumentsAlone) {
  GptStage model = load_huggingface(kModel);
  const FinetuningGolden golden;
  const Tensor tokens = golden.ids("packed", 0, "tokens");
  const std::vector<std::int64_t> starts = {0, 5, 12, 15, 20};
  StageActivations saved;
  model.forward(saved, tokens, {.documents = starts});
  const Tensor logits({2, 12, model.config().vocab_size});
  model.logits(logits, saved);
  expect_close(logits, golden.tensor("packed", 0, "logits"), "logits");
}

TEST(PackedDocuments, GradientsAreTheSumOfTheDocuments) {
  GptStage model = load_huggingface(kModel);
  const Tensor tokens = random_ids(1, 11, 61, 4), targets = random_ids(1, 11, 61, 5);
  const std::vector<std::int64_t> starts = {0, 3, 4};
  run(model, tokens, targets, {.documents = starts});
  const Tensor packed = model.parameters().gradients().clone();
  const Tensor sum(packed.shape());
  for (const auto& [begin, end] : {std::pair(0, 3), std::pair(3, 4), std::pair(4, 11)}) {
    run(model, tokens.range(begin, {1, end - begin}), targets.range(begin, {1, end - begin}));
    add(sum, sum, model.parameters().gradients());
  }
  expect_close(packed, sum, "gradients");
}

TEST(PackedDocuments, MustLieWithinTheirRows) {
  GptStage model(small_config());
  const Tensor tokens = random_ids(2, 6, 41, 1);
  StageActivations saved;
  for (const std::vector<std::int64_t>& starts :
       {std::vector<std::int64_t>{1, 6}, {0, 3}, {0, 6, 6}, {0, 6, 3}, {0, 6, 12}})
    EXPECT_THROW(model.forward(saved, tokens, {.documents = starts}), Error);
}

}  // namespace
}  // namespace llm
