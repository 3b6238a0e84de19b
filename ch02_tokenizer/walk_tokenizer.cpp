// The walk through chapter 2: what the text explains, on real data, in the same order.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "ch02_tokenizer/walk.h"
#include "common/cli/format.h"
#include "common/cli/progress.h"
#include "common/cli/table.h"
#include "common/core/error.h"
#include "common/core/philox.h"
#include "common/core/tensor.h"
#include "common/ops/ops.h"
#include "common/text/batches.h"
#include "common/text/documents_folder.h"
#include "common/text/token_shard.h"
#include "common/text/utf8.h"
#include "common/tokenizer/bpe_tokenizer.h"
#include "common/tokenizer/split.h"
#include "common/tokenizer/token_folder.h"

namespace llm::ch02 {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;

constexpr std::int64_t kVocabSize = 1024;

void headline(std::string_view text) {
  fmt::print("\n{}\n{}\n\n", text, std::string(text.size(), '-'));
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// A token as one can read it: quotes around it, a line break as \n, a byte that is not a character as \xC3.
std::string readable(std::string_view bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size();) {
    const Character c = character_at(bytes, i);
    if (bytes[i] == '\n')
      text += "\\n";
    else if (c.code_point < 0x20)
      text += fmt::format("\\x{:02X}", static_cast<unsigned char>(bytes[i]));
    else
      text += bytes.substr(i, c.length);
    i += c.length;
  }
  return text;
}

// The tokens of a text one after the other: on a terminal with changing background, elsewhere with bars
// between.
std::string show_tokens(const Tokenizer& tokenizer, const Ids& ids) {
  static constexpr std::array<std::string_view, 4> kBackgrounds = {"\x1b[48;5;153;30m", "\x1b[48;5;223;30m",
                                                                   "\x1b[48;5;157;30m", "\x1b[48;5;218;30m"};
  const bool color = isatty(STDOUT_FILENO) && !std::getenv("NO_COLOR");
  std::string text;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::string token = readable(tokenizer.token_bytes(ids[i]));
    if (color)
      text += std::string(kBackgrounds[i % kBackgrounds.size()]) + token + "\x1b[0m";
    else
      text += (i > 0 ? "|" : "") + token;
  }
  return text;
}

// `text` in lines of at most about 100 bytes, broken at spaces; bars and escapes count, which is good enough.
std::string wrap(std::string_view text) {
  std::string lines = "  ";
  std::size_t column = 0;
  for (const char c : text) {
    if (c == ' ' && column > 88) {
      lines += "\n  ";
      column = 0;
    }
    lines += c;
    ++column;
  }
  return lines;
}

void make_documents(const fs::path& folder, std::uint64_t seed) {
  if (is_documents_folder(folder)) return;
  fmt::print("{} is not there yet: writing stories, as chapter 1 does\n", folder.string());
  StoryCorpusOptions options;
  options.seed = seed;
  Progress progress("stories", options.bytes, "B");
  write_story_corpus(folder, options, [&](std::int64_t bytes) { progress.update(bytes); });
  progress.finish();
}

void show_characters_and_bytes() {
  headline("1. Text is characters, characters are bytes");
  Table table({"text", "characters", "bytes", "in hexadecimal"});
  for (const std::string_view text : {"kite", "café", "東京", "👍"}) {
    std::string hex;
    for (const char byte : text) hex += fmt::format("{:02x} ", static_cast<unsigned char>(byte));
    table.add({std::string(text), std::to_string(count_characters(text)), std::to_string(text.size()), hex});
  }
  table.print();
  fmt::print(
      "\nOne token per character: a vocabulary of up to 150,000, most never seen. One per byte: 256, but "
      "long\n"
      "sequences. Byte-level BPE begins with bytes and makes new tokens of those that often stand "
      "together.\n");
}

struct Learned {
  BpeMerge merge;
  std::int64_t count = 0;
};

std::unique_ptr<Tokenizer> learn(const fs::path& documents, std::vector<Learned>& learned,
                                 MetricsWriter& metrics) {
  headline("2. Learning the merges");
  const auto start = std::chrono::steady_clock::now();
  TrainTokenizerOptions options;
  options.vocab_size = kVocabSize;
  std::int64_t bytes_read = 0;
  options.bytes_done = [&](std::int64_t bytes) { bytes_read = bytes; };
  options.on_merge = [&](const BpeModel& model, std::int64_t count) {
    learned.push_back({model.merges.back(), count});
  };
  auto tokenizer = train_tokenizer({documents}, options);
  const double seconds = seconds_since(start);
  fmt::print("{} of stories -> {} tokens in {:.2f} s: 256 bytes, {} merges, <|endoftext|>.\n\n",
             byte_text(static_cast<double>(bytes_read)), tokenizer->vocab_size(), seconds, learned.size());
  metrics.write({{"what", "train"},
                 {"vocab_size", tokenizer->vocab_size()},
                 {"bytes", bytes_read},
                 {"seconds", seconds}});

  Table table({"merge", "left", "right", "new token", "id", "occurs"});
  for (std::size_t i = 0; i < learned.size(); ++i) {
    if (i >= 10 && i + 3 < learned.size()) continue;
    const auto quoted = [&](std::int32_t id) { return "'" + readable(tokenizer->token_bytes(id)) + "'"; };
    const BpeMerge& m = learned[i].merge;
    table.add({std::to_string(i + 1), quoted(m.left), quoted(m.right), quoted(m.result),
               std::to_string(m.result), with_commas(learned[i].count)});
  }
  table.print();
  fmt::print(
      "\nThe first ten and the last three. What is frequent comes first, words that few stories have come "
      "last.\n");
  return tokenizer;
}

// One piece from its bytes to its tokens, a line per merge.
void show_steps(const BpeTokenizer& tokenizer, std::string_view piece) {
  headline("3. Encoding: the earliest merge first");
  const std::vector<BpeMerge>& merges = tokenizer.model().merges;
  Ids ids;
  for (const char byte : piece) {
    const auto is_byte = [&](const std::string& token) { return token.size() == 1 && token[0] == byte; };
    const auto& tokens = tokenizer.model().tokens;
    ids.push_back(
        static_cast<std::int32_t>(std::find_if(tokens.begin(), tokens.end(), is_byte) - tokens.begin()));
  }
  const auto line = [&] {
    std::string text;
    for (const std::int32_t id : ids) text += fmt::format("[{}]", readable(tokenizer.token_bytes(id)));
    return text;
  };
  Table table({"tokens", "next merge"});
  while (true) {
    // The first merge in the list that can be applied anywhere.
    std::size_t best = merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto same = [&](const BpeMerge& m) { return m.left == ids[i] && m.right == ids[i + 1]; };
      const auto rank =
          static_cast<std::size_t>(std::find_if(merges.begin(), merges.end(), same) - merges.begin());
      if (rank < best) best = rank, at = i;
    }
    if (best == merges.size()) break;
    table.add({line(),
               fmt::format("{:4}: '{}' + '{}'", best + 1, readable(tokenizer.token_bytes(merges[best].left)),
                           readable(tokenizer.token_bytes(merges[best].right)))});
    ids[at] = merges[best].result;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  table.add({line(), "none left"});
  table.print();
}

void show_story(const Tokenizer& tokenizer, const std::string& story) {
  headline("4. A story in tokens");
  const Ids ids = tokenizer.encode(story);
  fmt::print("{}\n\n", wrap(show_tokens(tokenizer, ids)));
  fmt::print("{} bytes, {} tokens. A space belongs to the word behind it.\n", story.size(), ids.size());
  const std::string foreign = "Zoë flew to 東京.";
  fmt::print(
      "\nWhat the stories never say is cut small, but nothing is impossible and all bytes come back:\n\n  "
      "{}\n",
      show_tokens(tokenizer, tokenizer.encode(foreign)));
  check(tokenizer.decode(tokenizer.encode(foreign)) == foreign, "decoding does not give the text back");
}

// The tokenizer that a smaller vocabulary would have given: the first merges of the larger one.
BpeTokenizer truncated(const BpeModel& model, std::size_t tokens) {
  BpeModel small;
  small.tokens.assign(model.tokens.begin(), model.tokens.begin() + static_cast<std::ptrdiff_t>(tokens));
  for (const BpeMerge& m : model.merges)
    if (static_cast<std::size_t>(m.result) < tokens) small.merges.push_back(m);
  return BpeTokenizer(std::move(small));
}

void show_compression(const BpeTokenizer& tokenizer, const std::vector<Document>& stories,
                      MetricsWriter& metrics) {
  headline("5. How long is a story?");
  std::string text;
  for (std::size_t i = 0; i < std::min<std::size_t>(stories.size(), 2000); ++i) text += stories[i].text;
  const auto count = static_cast<double>(std::min<std::size_t>(stories.size(), 2000));
  Table table({"vocabulary", "tokens per story", "bytes per token"});
  for (std::size_t size : {256, 320, 384, 512, 768, 1024}) {
    size = std::min(size, tokenizer.model().tokens.size());
    const auto tokens = static_cast<double>(truncated(tokenizer.model(), size).encode(text).size());
    table.add({std::to_string(size), fmt::format("{:.1f}", tokens / count),
               fmt::format("{:.3f}", static_cast<double>(text.size()) / tokens)});
    metrics.write({{"what", "compression"},
                   {"vocab_size", static_cast<std::int64_t>(size)},
                   {"bytes_per_token", static_cast<double>(text.size()) / tokens}});
  }
  table.print();
  fmt::print(
      "\nA model reads a fixed number of tokens at once; with longer tokens it sees more of the story.\n");
}

void show_frequent(const Tokenizer& tokenizer, const TokenShard& shard) {
  headline("6. The most common tokens");
  std::vector<std::int64_t> counts(static_cast<std::size_t>(tokenizer.vocab_size()));
  for (const std::uint16_t id : shard.tokens()) ++counts[id];
  Ids order(counts.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return counts[static_cast<std::size_t>(a)] > counts[static_cast<std::size_t>(b)];
  });
  Table table({"token", "id", "share"});
  for (std::size_t i = 0; i < std::min<std::size_t>(12, order.size()); ++i) {
    const std::int32_t id = order[i];
    const double share =
        static_cast<double>(counts[static_cast<std::size_t>(id)]) / static_cast<double>(shard.size());
    table.add({"'" + readable(tokenizer.token_bytes(id)) + "'", std::to_string(id),
               fmt::format("{:.2f}%", 100 * share)});
  }
  table.print();
  const auto unused = std::count(counts.begin(), counts.end(), 0);
  fmt::print(
      "\n{} of {} tokens never occur: bytes that the stories lack, and steps on the way to longer tokens.\n",
      unused, counts.size());
}

void show_embedding(const Tokenizer& tokenizer, const TokenShard& shard, std::uint64_t seed) {
  headline("7. From tokens to vectors");
  constexpr std::int64_t B = 2, T = 6, C = 4;
  const std::int64_t V = tokenizer.vocab_size();
  check(shard.size() > T, "the training documents have too few tokens for an example");
  const std::vector<std::int64_t> starts = random_starts(shard.size(), T, seed, 0, 0, B);
  const Batch batch = make_batch(shard.tokens(), starts, T);

  // Both tables as GPT-2 begins: normal, standard deviation 0.02.
  const auto random_table = [&](std::int64_t rows, std::string_view stream) {
    const Tensor table({rows, C});
    const Philox random{seed, stream_id(stream)};
    for (std::int64_t i = 0; i < table.numel(); ++i)
      table.data()[i] = 0.02F * random.normal(static_cast<std::uint64_t>(i));
    return table;
  };
  const Tensor token_table = random_table(V, "token table");
  const Tensor position_table = random_table(T, "position table");
  const Tensor x({B, T, C});
  embedding_forward(x, batch.inputs, token_table, position_table);

  for (std::int64_t b = 0; b < B; ++b) {
    const Ids ids(batch.inputs.data<std::int32_t>() + b * T, batch.inputs.data<std::int32_t>() + (b + 1) * T);
    fmt::print("  row {}: {}\n", b, show_tokens(tokenizer, ids));
  }
  fmt::print("\ninputs {} -> x {}: a row of the {} token table plus a row of the {} position table.\n\n",
             to_string(batch.inputs.shape()), to_string(x.shape()), to_string(token_table.shape()),
             to_string(position_table.shape()));
  Table table({"position", "token", "id", "x[0, t, :]"});
  for (std::int64_t t = 0; t < T; ++t) {
    const std::int32_t id = batch.inputs.data<std::int32_t>()[t];
    std::string row;
    for (std::int64_t c = 0; c < C; ++c) row += fmt::format("{:8.4f}", x.data()[t * C + c]);
    table.add({std::to_string(t), "'" + readable(tokenizer.token_bytes(id)) + "'", std::to_string(id), row});
  }
  table.print();
  fmt::print(
      "\nThe numbers mean nothing yet. Chapters 3 and 4 build what works on them, chapter 5 trains them.\n");
}

}  // namespace

void walk(const fs::path& work, std::uint64_t seed, MetricsWriter& metrics) {
  const fs::path documents = work / "ch01_data", out = work / "ch02_tokenizer";
  make_documents(documents, seed);
  const std::vector<Document> stories = read_documents({documents / "val.jsonl"});

  show_characters_and_bytes();
  std::vector<Learned> learned;
  const auto tokenizer = learn(documents, learned, metrics);
  const auto& bpe = dynamic_cast<const BpeTokenizer&>(*tokenizer);
  show_steps(bpe, " morning");
  show_story(*tokenizer, stories[0].text);
  show_compression(bpe, stories, metrics);

  const auto start = std::chrono::steady_clock::now();
  const TokenFolderCount count = write_token_folder(documents, *tokenizer, out);
  const double seconds = seconds_since(start);
  const TokenShard train(out / "train.bin");
  show_frequent(*tokenizer, train);
  show_embedding(*tokenizer, train, seed);

  headline("8. What is left for the next chapters");
  Table table({"file", "documents", "bytes of text", "tokens"});
  for (const auto& [name, part] : {std::pair("train.bin", count.train), std::pair("val.bin", count.val)}) {
    table.add({name, with_commas(part.documents), with_commas(part.bytes), with_commas(part.tokens)});
    metrics.write({{"what", "encode"},
                   {"file", name},
                   {"documents", part.documents},
                   {"bytes", part.bytes},
                   {"tokens", part.tokens}});
  }
  table.print();
  fmt::print("\nEncoded and written in {:.2f} s ({:.0f} MB/s), with the tokenizer, in {}.\n", seconds,
             static_cast<double>(count.train.bytes + count.val.bytes) / seconds / 1e6, out.string());
  fmt::print("Next: ch03_attention looks at how tokens look at one another.\n");
}

}  // namespace llm::ch02
