// How fast the tokenizers are: MB/s of splitting, encoding, decoding and training. The text is a corpus of
// stories and, if LLM_DATA is set, tinyshakespeare.txt with GPT-2's vocabulary, which other tokenizers can be
// timed with (tests/golden/tokenizer_speed.py).
#include <benchmark/benchmark.h>

#include <cstdlib>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/core/threads.h"
#include "common/text/story.h"
#include "common/tokenizer/bpe_tokenizer.h"
#include "common/tokenizer/bpe_trainer.h"
#include "common/tokenizer/simple_tokenizers.h"
#include "common/tokenizer/split.h"

namespace llm {
namespace {

const std::string& stories() {
  static const std::string text = [] {
    std::string all;
    for (std::uint64_t i = 0; all.size() < 4'000'000; ++i) all += generate_story(1, i).text + "\n";
    return all;
  }();
  return text;
}

BpeModel train(std::string_view text) {
  return train_bpe(count_pieces({&text, 1}), {});
}

void set_rate(benchmark::State& state, std::size_t bytes) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

void split(benchmark::State& state) {
  for (auto _ : state) {
    std::size_t pieces = 0;
    for (std::size_t at = 0; at < stories().size(); ++pieces) at = piece_end(stories(), at);
    benchmark::DoNotOptimize(pieces);
  }
  set_rate(state, stories().size());
}
BENCHMARK(split)->Unit(benchmark::kMillisecond);

void train_1024(benchmark::State& state) {
  set_thread_count(static_cast<int>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(train(stories()).merges.size());
  set_rate(state, stories().size());
}
BENCHMARK(train_1024)->Arg(1)->Arg(2)->ArgName("threads")->UseRealTime()->Unit(benchmark::kMillisecond);

void encode_with(benchmark::State& state, const Tokenizer& tokenizer, const std::string& text) {
  set_thread_count(static_cast<int>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.encode(text).data());
  set_rate(state, text.size());
}

void encode_stories(benchmark::State& state) {
  encode_with(state, BpeTokenizer(train(stories())), stories());
}
BENCHMARK(encode_stories)->Arg(1)->Arg(2)->ArgName("threads")->UseRealTime()->Unit(benchmark::kMillisecond);

void encode_bytes(benchmark::State& state) {
  encode_with(state, ByteTokenizer(), stories());
}
BENCHMARK(encode_bytes)->Arg(1)->ArgName("threads")->Unit(benchmark::kMillisecond);

// A megabyte without white space is one piece.
void encode_one_long_piece(benchmark::State& state) {
  std::string text;
  for (const char c : stories().substr(0, 1'250'000))
    if (c >= 'a' && c <= 'z') text += c;
  encode_with(state, BpeTokenizer(train(stories())), text);
}
BENCHMARK(encode_one_long_piece)->Arg(1)->ArgName("threads")->Unit(benchmark::kMillisecond);

void decode_stories(benchmark::State& state) {
  const BpeTokenizer tokenizer(train(stories()));
  const std::vector<std::int32_t> ids = tokenizer.encode(stories());
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer.decode(ids).data());
  set_rate(state, stories().size());
}
BENCHMARK(decode_stories)->Unit(benchmark::kMillisecond);

// ---- GPT-2's vocabulary on tinyshakespeare, as tokenizer_speed.py times it ----

struct Shakespeare {
  std::string text;
  std::vector<std::string_view> lines;  // in batches of about 1 kB, for encode_batch
  std::unique_ptr<Tokenizer> gpt2;
};

// nullptr, with the reason shown, if the data is not there.
const Shakespeare* shakespeare(benchmark::State& state) {
  static const std::unique_ptr<Shakespeare> loaded = []() -> std::unique_ptr<Shakespeare> {
    const char* data = std::getenv("LLM_DATA");
    if (!data) return nullptr;
    auto s = std::make_unique<Shakespeare>();
    s->text = read_file(std::filesystem::path(data) / "tinyshakespeare.txt");
    s->lines = split_parts(s->text, 1000);
    s->gpt2 = load_tokenizer(std::filesystem::path(data) / "gpt2");
    return s;
  }();
  if (!loaded) state.SkipWithError("set LLM_DATA to a folder with gpt2/ and tinyshakespeare.txt");
  return loaded.get();
}

void encode_gpt2(benchmark::State& state) {
  if (const Shakespeare* s = shakespeare(state)) encode_with(state, *s->gpt2, s->text);
}
BENCHMARK(encode_gpt2)->Arg(1)->Arg(2)->ArgName("threads")->UseRealTime()->Unit(benchmark::kMillisecond);

void encode_batch_gpt2(benchmark::State& state) {
  const Shakespeare* s = shakespeare(state);
  if (!s) return;
  set_thread_count(static_cast<int>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(s->gpt2->encode_batch(s->lines).data());
  set_rate(state, s->text.size());
}
BENCHMARK(encode_batch_gpt2)
    ->Arg(1)
    ->Arg(2)
    ->ArgName("threads")
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

// The first time: every piece is new to the cache.
void encode_gpt2_cold(benchmark::State& state) {
  const Shakespeare* s = shakespeare(state);
  if (!s) return;
  set_thread_count(1);
  const BpeModel& model = dynamic_cast<const BpeTokenizer&>(*s->gpt2).model();
  for (auto _ : state) {
    state.PauseTiming();
    auto fresh = std::make_unique<BpeTokenizer>(model);
    state.ResumeTiming();
    benchmark::DoNotOptimize(fresh->encode(s->text).data());
  }
  set_rate(state, s->text.size());
}
BENCHMARK(encode_gpt2_cold)->UseRealTime()->Unit(benchmark::kMillisecond);

void decode_gpt2(benchmark::State& state) {
  const Shakespeare* s = shakespeare(state);
  if (!s) return;
  const std::vector<std::int32_t> ids = s->gpt2->encode(s->text);
  for (auto _ : state) benchmark::DoNotOptimize(s->gpt2->decode(ids).data());
  set_rate(state, s->text.size());
}
BENCHMARK(decode_gpt2)->Unit(benchmark::kMillisecond);

void load_gpt2(benchmark::State& state) {
  if (!shakespeare(state)) return;
  const std::filesystem::path folder = std::filesystem::path(std::getenv("LLM_DATA")) / "gpt2";
  for (auto _ : state) benchmark::DoNotOptimize(load_tokenizer(folder)->vocab_size());
}
BENCHMARK(load_gpt2)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace llm
