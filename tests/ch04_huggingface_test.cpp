// Hugging Face directories: what is written, what is read back, and what is refused.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/model/huggingface.h"
#include "tests/ch04_model_helpers.h"

namespace llm {
namespace {

namespace fs = std::filesystem;
using testing::copy;
using testing::small_config;

class HuggingFace : public ::testing::Test {
 protected:
  void SetUp() override {
    folder = fs::temp_directory_path() /
             ("llm_" + std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) +
              std::to_string(::getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }

  /// The sentence that loading `folder` ends with.
  std::string refusal() const {
    try {
      load_huggingface(folder);
      return "accepted";
    } catch (const Error& error) {
      return error.what();
    }
  }
  /// Changes config.json.
  void edit_config(const std::function<void(nlohmann::json&)>& edit) const {
    auto json = nlohmann::json::parse(read_file(folder / "config.json"));
    edit(json);
    write_file(folder / "config.json", json.dump());
  }
  /// Writes model.safetensors anew from the one that is there.
  void edit_tensors(const std::function<void(std::vector<TensorToWrite>&)>& edit) const {
    std::vector<TensorToWrite> tensors;
    {
      const SafetensorsFile file(folder / "model.safetensors");
      for (const SafetensorsEntry& entry : file.entries()) {
        const Tensor t = testing::read_tensor(file, entry.name);
        tensors.push_back({entry.name, t.shape(), [t] { return t; }});
      }
    }
    edit(tensors);
    write_safetensors(folder / "model.safetensors", tensors);
  }
  /// Writes a safetensors file of this header and so many bytes of tensors.
  void write_raw(const std::string& header, std::size_t data_bytes) const {
    const std::uint64_t length = header.size();
    std::string text(reinterpret_cast<const char*>(&length), 8);
    write_file(folder / "model.safetensors", text + header + std::string(data_bytes, '\0'));
  }

  fs::path folder;
};

TEST_F(HuggingFace, WhatIsWrittenIsReadBackToTheBit) {
  for (int variant = 0; variant < 8; ++variant) {
    GptConfig config = small_config();
    config.bias = variant & 1;
    config.qkv_bias = variant & 2;
    config.tied_head = variant & 4;
    config.dropout = 0.15F;
    config.layer_norm_eps = 2e-5F;
    config.initializer_range = 0.05F;
    if (variant == 7) config.mlp_channels = 0;
    GptStage model(config);
    testing::randomize(model, 4);
    save_huggingface(model, folder);
    const GptStage back = load_huggingface(folder);
    EXPECT_EQ(copy(back.parameters().values()), copy(model.parameters().values()));
    EXPECT_EQ(back.config().vocab_size, config.vocab_size);
    EXPECT_EQ(back.config().context, config.context);
    EXPECT_EQ(back.config().heads, config.heads);
    EXPECT_EQ(back.config().mlp_channels, config.mlp_channels);
    EXPECT_EQ(back.config().dropout, config.dropout);
    EXPECT_EQ(back.config().layer_norm_eps, config.layer_norm_eps);
    EXPECT_EQ(back.config().initializer_range, config.initializer_range);
    EXPECT_EQ(back.config().bias, config.bias);
    EXPECT_EQ(back.config().qkv_bias, config.qkv_bias);
    EXPECT_EQ(back.config().tied_head, config.tied_head);
  }
}

// The keys, shapes and bytes of transformers' own file, read and written again: then it loads there as well.
TEST_F(HuggingFace, WritesExactlyTheTensorsThatTransformersWrites) {
  for (const std::string name : {"tied", "untied"}) {
    const fs::path golden = std::string(LLM_GOLDEN_DIR) + "/model_" + name;
    save_huggingface(load_huggingface(golden), folder);
    const SafetensorsFile theirs(golden / "model.safetensors");
    const SafetensorsFile ours(folder / "model.safetensors");
    EXPECT_EQ(ours.entries().size(), theirs.entries().size());
    for (const SafetensorsEntry& entry : theirs.entries()) {
      const SafetensorsEntry* found = ours.find(entry.name);
      ASSERT_NE(found, nullptr) << entry.name;
      EXPECT_EQ(found->shape, entry.shape) << entry.name;
      EXPECT_EQ(copy(testing::read_tensor(ours, entry.name)), copy(testing::read_tensor(theirs, entry.name)))
          << entry.name;
    }
    const auto our_config = nlohmann::json::parse(read_file(folder / "config.json"));
    const auto their_config = nlohmann::json::parse(read_file(golden / "config.json"));
    for (const char* key :
         {"architectures", "model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head",
          "n_inner", "activation_function", "layer_norm_epsilon", "tie_word_embeddings"})
      EXPECT_EQ(our_config[key], their_config[key]) << key;
  }
}

TEST_F(HuggingFace, ReadsOlderDirectories) {
  GptStage model(small_config());
  testing::randomize(model, 4);
  save_huggingface(model, folder);
  edit_tensors([](std::vector<TensorToWrite>& tensors) {
    Tensor head;
    for (TensorToWrite& t : tensors) {
      t.name = t.name.substr(std::string("transformer.").size());  // as the first GPT-2 files
      if (t.name == "wte.weight") head = t.values();
    }
    tensors.push_back({"h.0.attn.bias", {1, 1, 19, 19}, [] { return Tensor({1, 1, 19, 19}); }});
    tensors.push_back({"h.0.attn.masked_bias", {}, [] { return Tensor(Shape{}); }});
    tensors.push_back({"lm_head.weight", head.shape(), [head] { return head; }});
  });
  EXPECT_EQ(copy(load_huggingface(folder).parameters().values()), copy(model.parameters().values()));
  edit_tensors([](std::vector<TensorToWrite>& tensors) { tensors.back().values().data()[3] += 1; });
  EXPECT_NE(refusal().find("tied"), std::string::npos);
}

TEST_F(HuggingFace, NamesTheFirstTensorThatIsWrong) {
  const auto fresh = [&] {
    GptStage model(small_config());
    testing::randomize(model, 4);
    save_huggingface(model, folder);
  };
  const auto expect_refused = [&](const std::string& part) {
    const std::string sentence = refusal();
    EXPECT_NE(sentence.find(part), std::string::npos) << sentence;
  };
  fresh();
  edit_tensors([](auto& tensors) { tensors.erase(tensors.begin() + 5); });
  expect_refused("has no tensor \"h.0.attn.c_attn.bias\"");
  fresh();
  edit_tensors([](auto& tensors) { tensors[4].name = "transformer.h.0.attn.c_attn.weights"; });
  expect_refused("\"transformer.h.0.attn.c_attn.weights\", which a GPT-2 of 3 layers does not have");
  fresh();
  edit_tensors([](auto& tensors) {
    tensors[4].shape = {63, 21};
    tensors[4].values = [] { return Tensor({63, 21}); };
  });
  expect_refused("has shape (63, 21), expected (21, 63)");
  fresh();
  edit_tensors([](auto& tensors) { tensors.push_back({"wte.weight", tensors[0].shape, tensors[0].values}); });
  expect_refused("twice");
  fresh();
  GptStage bad(small_config());
  bad.parameters().find("h.1.mlp.c_fc.weight")->value.data()[7] = std::numeric_limits<float>::quiet_NaN();
  save_huggingface(bad, folder);
  expect_refused("\"transformer.h.1.mlp.c_fc.weight\" has nan");
  bad.parameters().find("h.1.mlp.c_fc.weight")->value.data()[7] = -std::numeric_limits<float>::infinity();
  save_huggingface(bad, folder);
  expect_refused("has -inf");
}

TEST_F(HuggingFace, RefusesConfigurationsWithASentence) {
  const auto expect_refused = [&](const std::string& part, const std::function<void(nlohmann::json&)>& edit) {
    save_huggingface(GptStage(small_config()), folder);
    edit_config(edit);
    const std::string sentence = refusal();
    EXPECT_NE(sentence.find(part), std::string::npos) << sentence;
  };
  expect_refused("accepted", [](auto&) {});
  expect_refused("must be \"gpt2\"", [](auto& j) { j["model_type"] = "llama"; });
  expect_refused("\"model_type\" must be a string", [](auto& j) { j["model_type"] = 3; });
  expect_refused("has no \"n_embd\"", [](auto& j) { j.erase("n_embd"); });
  expect_refused("\"n_embd\" must be a whole number", [](auto& j) { j["n_embd"] = "21"; });
  expect_refused("\"n_embd\" must be a whole number", [](auto& j) { j["n_embd"] = 21.5; });
  expect_refused("no multiple", [](auto& j) { j["n_head"] = 4; });
  expect_refused("layers must be from 1", [](auto& j) { j["n_layer"] = 0; });
  expect_refused("vocabulary size must be from 1", [](auto& j) {
    j["vocab_size"] = 1e18;
    j["vocab_size"] = 1ULL << 63;
  });
  expect_refused("has only", [](auto& j) {
    j["n_layer"] = 1000;
    j["n_embd"] = 99999;
    j["n_head"] = 1;
  });
  expect_refused("layer_norm_epsilon\" must be a number", [](auto& j) { j["layer_norm_epsilon"] = nullptr; });
  expect_refused("activation function", [](auto& j) { j["activation_function"] = "relu"; });
  expect_refused("expected", [](auto& j) { j["vocab_size"] = 42; });
  write_file(folder / "config.json", "{\"model_type\": \"gpt2\"");
  EXPECT_NE(refusal().find("no JSON object"), std::string::npos);
  fs::remove(folder / "config.json");
  EXPECT_NE(refusal().find("has no config.json"), std::string::npos);
  save_huggingface(GptStage(small_config()), folder);
  fs::remove(folder / "model.safetensors");
  EXPECT_NE(refusal().find("has no model.safetensors"), std::string::npos);
  fs::remove_all(folder);
  EXPECT_NE(refusal().find("there is no model folder"), std::string::npos);
}

TEST_F(HuggingFace, RefusesBrokenFilesWithASentence) {
  save_huggingface(GptStage(small_config()), folder);
  const fs::path path = folder / "model.safetensors";
  const std::string whole = read_file(path);
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{5}, std::size_t{8}, std::size_t{300}, whole.size() - 1}) {
    write_file(path, whole.substr(0, size));
    EXPECT_NE(refusal(), "accepted") << size;
  }
  write_file(path, whole + "x");
  EXPECT_NE(refusal().find("its header accounts for"), std::string::npos);

  const std::string f32 = R"("dtype":"F32","shape":[2])";
  const std::map<std::string, std::string> headers = {
      {"not json", "no JSON object"},
      {"[1,2]", "no JSON object"},
      {R"({"a":3})", "needs \"dtype\""},
      {R"({"a":{)" + f32 + R"(,"data_offsets":[0,7]}})", "needs 8 bytes"},
      {R"({"a":{)" + f32 + R"(,"data_offsets":[8,16]}})", "leave a gap"},
      {R"({"a":{)" + f32 + R"(,"data_offsets":[16,8]}})", "offsets are 16 to 8"},
      {R"({"a":{)" + f32 + R"(,"data_offsets":[0,8]},"b":{)" + f32 + R"(,"data_offsets":[4,12]}})",
       "overlap"},
      {R"({"a":{)" + f32 + R"(,"data_offsets":[0,-8]}})", "whole number"},
      {R"({"a":{)" + f32 + R"(,"data_offsets":[0]}})", "malformed"},
      {R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", "unknown dtype"},
      {R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", "absurd shape"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", "absurd shape"},
      {R"({"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}})", "truncated"},
  };
  for (const auto& [header, part] : headers) {
    write_raw(header, 16);
    std::string sentence = "accepted";
    try {
      const SafetensorsFile file(path);
    } catch (const Error& error) {
      sentence = error.what();
    }
    EXPECT_NE(sentence.find(part), std::string::npos) << header << ": " << sentence;
  }
  write_raw(R"({"a":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}})", 16);
  const SafetensorsFile file(path);
  Tensor out({2});
  EXPECT_THROW(file.read(*file.find("a"), out.span()), Error) << "integers are no weights";
}

// All 65,536 half-precision numbers, against the definition of the format.
TEST_F(HuggingFace, WidensHalfPrecisionExactly) {
  std::string data;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits)
    if ((bits >> 10 & 31) != 31) data.append({static_cast<char>(bits), static_cast<char>(bits >> 8)});
  const std::size_t n = data.size() / 2;
  const std::string header =
      nlohmann::json{{"a", {{"dtype", "F16"}, {"shape", {n}}, {"data_offsets", {0, 2 * n}}}}}.dump();
  const std::uint64_t length = header.size();
  write_file(folder / "half", std::string(reinterpret_cast<const char*>(&length), 8) + header + data);
  const SafetensorsFile file(folder / "half");
  const Tensor read = testing::read_tensor(file, "a");
  std::size_t i = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const int exponent = static_cast<int>(bits >> 10 & 31);
    if (exponent == 31) continue;
    const double fraction = (bits & 0x3ff) / 1024.0;
    const double magnitude =
        exponent == 0 ? std::ldexp(fraction, -14) : std::ldexp(1 + fraction, exponent - 15);
    ASSERT_EQ(read.data()[i++], static_cast<float>(bits & 0x8000 ? -magnitude : magnitude)) << bits;
  }
}

}  // namespace
}  // namespace llm
