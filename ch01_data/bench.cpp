// How fast text moves: telling, judging, reading, cleaning, hashing, and making batches.
//
//   build/cpu/bin/ch01_data_bench
#include <benchmark/benchmark.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/core/philox.h"
#include "common/text/batches.h"
#include "common/text/deduplicate.h"
#include "common/text/documents.h"
#include "common/text/normalise.h"
#include "common/text/story.h"
#include "common/text/token_shard.h"
#include "common/text/utf8.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

/// 8 MB of stories, told once.
const std::vector<Document>& stories() {
  static const std::vector<Document> documents = [] {
    std::vector<Document> made;
    for (std::uint64_t i = 0; i < 20'000; ++i) made.push_back({generate_story(1, i).text, {}});
    return made;
  }();
  return documents;
}

std::int64_t total_bytes(const std::vector<Document>& documents) {
  std::int64_t bytes = 0;
  for (const Document& document : documents) bytes += static_cast<std::int64_t>(document.text.size());
  return bytes;
}

/// A folder that is gone when the program ends.
struct Scratch {
  fs::path path = fs::temp_directory_path() / ("ch01_bench_" + std::to_string(getpid()));
  Scratch() { fs::create_directories(path); }
  ~Scratch() { fs::remove_all(path); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};
const fs::path& scratch() {
  static const Scratch folder;
  return folder.path;
}

void BM_GenerateStory(benchmark::State& state) {
  std::uint64_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(generate_story(1, i++));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_GenerateStory);

void BM_JudgeStory(benchmark::State& state) {
  std::size_t i = 0;
  for (auto _ : state) benchmark::DoNotOptimize(judge_story(stories()[i++ % stories().size()].text));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_JudgeStory);

void BM_WriteJsonLines(benchmark::State& state) {
  for (auto _ : state) write_documents(scratch() / "write.jsonl", stories());
  state.SetBytesProcessed(state.iterations() * total_bytes(stories()));
}
BENCHMARK(BM_WriteJsonLines)->Unit(benchmark::kMillisecond);

void BM_ReadJsonLines(benchmark::State& state) {
  write_documents(scratch() / "read.jsonl", stories());
  for (auto _ : state) benchmark::DoNotOptimize(read_documents({scratch() / "read.jsonl"}));
  state.SetBytesProcessed(state.iterations() * total_bytes(stories()));
}
BENCHMARK(BM_ReadJsonLines)->Unit(benchmark::kMillisecond);

/// 0: ASCII; 1: every tenth word has an accent.
void BM_Normalise(benchmark::State& state) {
  std::string text;
  for (const Document& document : stories()) {
    text += document.text;
    text += state.range(0) == 1 ? " caf\xC3\xA9 na\xC3\xAFve d\xC3\xA9j\xC3\xA0 vu\n" : "\n";
  }
  for (auto _ : state) benchmark::DoNotOptimize(normalise(text));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}
BENCHMARK(BM_Normalise)->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

void BM_ValidateUtf8(benchmark::State& state) {
  std::string text;
  for (const Document& document : stories()) text += document.text;
  for (auto _ : state) benchmark::DoNotOptimize(find_invalid_utf8(text));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}
BENCHMARK(BM_ValidateUtf8)->Unit(benchmark::kMicrosecond);

void BM_RemoveExactCopies(benchmark::State& state) {
  for (auto _ : state) {
    auto documents = stories();
    benchmark::DoNotOptimize(remove_exact_copies(documents));
  }
  state.SetBytesProcessed(state.iterations() * total_bytes(stories()));
}
BENCHMARK(BM_RemoveExactCopies)->Unit(benchmark::kMillisecond);

void BM_RemoveNearCopies(benchmark::State& state) {
  std::vector<Document> some(stories().begin(), stories().begin() + 2000);
  for (auto _ : state) {
    auto documents = some;
    benchmark::DoNotOptimize(remove_near_copies(documents));
  }
  state.SetBytesProcessed(state.iterations() * total_bytes(some));
}
BENCHMARK(BM_RemoveNearCopies)->Unit(benchmark::kMillisecond);

/// Batches of 12 random windows of 1024 tokens from a mapped shard of 20 million.
void BM_RandomBatches(benchmark::State& state) {
  const fs::path path = scratch() / "tokens.bin";
  if (!fs::exists(path)) {
    TokenShardWriter writer(path);
    std::vector<std::uint16_t> tokens(1'000'000);
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::uint16_t>(i * 40503U);
    for (int i = 0; i < 20; ++i) writer.write(tokens);
    writer.commit();
  }
  const TokenShard shard(path);
  const Batch batch{Tensor({12, 1024}, DType::i32), Tensor({12, 1024}, DType::i32)};
  std::int64_t step = 0;
  for (auto _ : state) fill_batch(batch, shard.tokens(), random_starts(shard.size(), 1024, 1, step++, 0, 12));
  state.SetItemsProcessed(state.iterations() * batch.inputs.numel());
}
BENCHMARK(BM_RandomBatches);

}  // namespace
}  // namespace llm
