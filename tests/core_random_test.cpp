// TorchRandom against PyTorch itself, bit for bit, and against numbers that others printed.
#include <gtest/gtest.h>

#include <bit>
#include <nlohmann/json.hpp>
#include <vector>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/core/torch_random.h"

namespace llm {
namespace {

std::vector<std::uint64_t> bits_of(const std::vector<float>& numbers) {
  std::vector<std::uint64_t> out;
  for (const float x : numbers) out.push_back(std::bit_cast<std::uint32_t>(x));
  return out;
}

std::vector<std::uint64_t> bits_of(const std::vector<std::int64_t>& numbers) {
  return {numbers.begin(), numbers.end()};
}

/// Draws what one line of the golden file says.
std::vector<std::uint64_t> draw(TorchRandom& random, const nlohmann::json& line) {
  const std::string op = line["op"];
  const std::size_t n = line["n"];
  std::vector<float> floats(n);
  if (op == "rand") {
    random.rand(floats);
  } else if (op == "uniform") {
    random.uniform(floats, line["low"], line["high"]);
  } else if (op == "randn") {
    random.randn(floats);
  } else if (op == "normal") {
    random.randn(floats, line["mean"], line["std"]);
  } else if (op == "randint") {
    return bits_of(random.randint(line["low"], line["high"], static_cast<std::int64_t>(n)));
  } else if (op == "randperm") {
    return bits_of(random.randperm(static_cast<std::int64_t>(n)));
  } else if (op == "linear") {
    const std::size_t in = line["in"];
    const bool bias = line["bias"];
    floats.resize(n * in + (bias ? n : 0));
    const std::span<float> all(floats);
    random.init_linear(all.first(n * in), all.subspan(n * in), static_cast<std::int64_t>(in));
  } else {
    EXPECT_EQ(op, "embedding");
    floats.resize(n * line["width"].get<std::size_t>());
    random.init_embedding(floats);
  }
  return bits_of(floats);
}

TEST(TorchRandom, DrawsPyTorchsNumbersBitForBit) {
  const auto golden = nlohmann::json::parse(read_file(LLM_GOLDEN_DIR "/torch_random.json"));
  for (const auto& test : golden["cases"]) {
    TorchRandom random(test["seed"].get<std::uint64_t>());
    for (const auto& line : test["draws"]) {
      nlohmann::json what = line;
      for (const char* key : {"bits", "first", "last", "fingerprint"}) what.erase(key);
      const std::vector<std::uint64_t> bits = draw(random, line);
      if (line.contains("bits")) {
        EXPECT_EQ(bits, line["bits"].get<std::vector<std::uint64_t>>()) << test["seed"] << " " << what;
        continue;
      }
      ASSERT_GT(bits.size(), 64u) << what;
      EXPECT_EQ((std::vector<std::uint64_t>{bits.begin(), bits.begin() + 4}), line["first"]) << what;
      EXPECT_EQ((std::vector<std::uint64_t>{bits.end() - 4, bits.end()}), line["last"]) << what;
      std::uint64_t fingerprint = 0;
      for (std::size_t i = 0; i < bits.size(); ++i) fingerprint += (i + 1) * bits[i];
      EXPECT_EQ(std::to_string(fingerprint), line["fingerprint"]) << test["seed"] << " " << what;
    }
  }
}

// Printed in PyTorch's own documentation and in many texts built on it.
TEST(TorchRandom, GivesTheNumbersThatTextsPrint) {
  TorchRandom random(123);
  std::vector<float> three(3);
  random.rand(three);  // torch.manual_seed(123); torch.rand(3) -> tensor([0.2961, 0.5166, 0.2517])
  EXPECT_NEAR(three[0], 0.2961F, 5e-5F);
  EXPECT_NEAR(three[1], 0.5166F, 5e-5F);
  EXPECT_NEAR(three[2], 0.2517F, 5e-5F);
  TorchRandom embedding(123);
  std::vector<float> table(6 * 3);
  embedding.init_embedding(table);  // nn.Embedding(6, 3).weight[0] -> [0.3374, -0.1778, -0.1690]
  EXPECT_NEAR(table[0], 0.3374F, 5e-5F);
  EXPECT_NEAR(table[1], -0.1778F, 5e-5F);
  EXPECT_NEAR(table[2], -0.1690F, 5e-5F);
}

TEST(TorchRandom, RefusesAnEmptyRange) {
  TorchRandom random(1);
  EXPECT_THROW(random.randint(3, 3, 1), Error);
  EXPECT_THROW(random.randperm(-1), Error);
}

}  // namespace
}  // namespace llm
