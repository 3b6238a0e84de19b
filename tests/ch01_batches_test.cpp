// Chapter 1's token shards, and the samplers that make batches of them.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/core/philox.h"
#include "common/core/torch_random.h"
#include "common/text/batches.h"
#include "common/text/token_shard.h"

namespace llm {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<std::int32_t>;
using Starts = std::vector<std::int64_t>;

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

class Shards : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder = fs::temp_directory_path() / (std::string("llm_") + info->name() + std::to_string(getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
    path = folder / "tokens.bin";
  }
  void TearDown() override { fs::remove_all(folder); }

  /// A shard's bytes with a header of these three numbers.
  static std::string shard(std::int32_t magic, std::int32_t version, std::int32_t count, std::size_t body) {
    std::string bytes(1024 + body, '\0');
    const std::int32_t header[3] = {magic, version, count};
    std::memcpy(bytes.data(), header, sizeof header);
    return bytes;
  }
  std::string open_error(const std::string& bytes) const {
    write_file(path, bytes);
    std::string text = error_of([&] { TokenShard opened(path); });
    const std::size_t at = text.find(path.string());
    return at == std::string::npos ? text : text.replace(at, path.string().size(), "FILE");
  }
  fs::path folder, path;
};

TEST_F(Shards, AreLlmCFiles) {
  TokenShardWriter writer(path);
  writer.write(Ids{1, 65535, 256});
  writer.write(std::vector<std::uint16_t>{7});
  EXPECT_FALSE(fs::exists(path));
  writer.commit();

  const std::string bytes = read_file(path);
  ASSERT_EQ(bytes.size(), 1024U + 8);
  // Little-endian: 20240520 = 0x0134D888.
  EXPECT_EQ(bytes.substr(0, 12), std::string("\x88\xD8\x34\x01\x01\0\0\0\x04\0\0\0", 12));
  EXPECT_TRUE(std::all_of(bytes.begin() + 12, bytes.begin() + 1024, [](char c) { return c == 0; }));
  EXPECT_EQ(bytes.substr(1024), std::string("\x01\0\xFF\xFF\0\x01\x07\0", 8));

  const TokenShard shard(path);
  EXPECT_EQ(std::vector<std::uint16_t>(shard.tokens().begin(), shard.tokens().end()),
            (std::vector<std::uint16_t>{1, 65535, 256, 7}));
  shard.check_vocabulary(65536);
  EXPECT_NE(error_of([&] {
              shard.check_vocabulary(1000);
            }).find("token 1 is 65535, the vocabulary has 1000 entries"),
            std::string::npos);
}

TEST_F(Shards, RefuseWhatIsNoShard) {
  EXPECT_EQ(open_error(""), "FILE is not a token shard: it has 0 bytes, the header alone takes 1024");
  EXPECT_EQ(open_error(std::string(1023, 'x')),
            "FILE is not a token shard: it has 1023 bytes, the header alone takes 1024");
  EXPECT_EQ(open_error(shard(20240521, 1, 0, 0)),
            "FILE is not a token shard: it begins with the number 20240521, expected 20240520");
  EXPECT_EQ(open_error(shard(kShardMagic, 2, 0, 0)),
            "FILE is a token shard of version 2, only version 1 is known");
  EXPECT_EQ(open_error(shard(kShardMagic, 1, -1, 0)), "FILE is damaged: its header counts -1 tokens");
  EXPECT_EQ(open_error(shard(kShardMagic, 1, 3, 5)),
            "FILE is damaged: 5 bytes follow the header, which is no whole number of 16-bit tokens");
  EXPECT_EQ(open_error(shard(kShardMagic, 1, 3, 4)),
            "FILE is cut short: its header counts 3 tokens, 2 follow");
  EXPECT_EQ(open_error(shard(kShardMagic, 1, 3, 8)), "FILE is damaged: its header counts 3 tokens, 4 follow");
  EXPECT_EQ(open_error(shard(kShardMagic, 1, 2147483647, 8)),
            "FILE is cut short: its header counts 2147483647 tokens, 4 follow");
  EXPECT_EQ(open_error(shard(kShardMagic, 1, 2, 4)), "no error");
  EXPECT_THROW(TokenShard(folder / "missing.bin"), Error);
  EXPECT_THROW(TokenShard{folder}, Error);
}

TEST_F(Shards, SurviveRandomBytes) {
  PhiloxSequence random(4, stream_id("fuzz"));
  int opened = 0;
  for (int round = 0; round < 400; ++round) {
    std::string bytes = shard(kShardMagic, 1, 20, 40);
    if (random.below(2) == 0) bytes.resize(random.below(bytes.size() + 1));
    for (std::uint64_t k = random.below(3); k > 0 && !bytes.empty(); --k)
      bytes[random.below(std::min<std::size_t>(bytes.size(), 16))] = static_cast<char>(random.next_word());
    std::ofstream(path, std::ios::binary) << bytes;
    try {
      const TokenShard shard(path);
      ASSERT_EQ(shard.size(), 20);
      shard.check_vocabulary(1);
      ++opened;
    } catch (const Error&) {
    }
  }
  EXPECT_GT(opened, 20);
}

TEST_F(Shards, RefuseIdsThatDoNotFit) {
  check_fits_in_shard(65536);
  EXPECT_EQ(
      error_of([] { check_fits_in_shard(65537); }),
      "a token shard holds 16-bit ids, so a vocabulary may have at most 65536 entries; this one has 65537");
  TokenShardWriter writer(path);
  EXPECT_THROW(writer.write(Ids{65536}), Error);
  EXPECT_THROW(writer.write(Ids{-1}), Error);
}

TEST_F(Shards, AnEmptyOneIsAShard) {
  TokenShardWriter(path).commit();
  EXPECT_EQ(TokenShard(path).size(), 0);
}

TEST_F(Shards, AnUnfinishedOneLeavesNothing) {
  { TokenShardWriter(path).write(Ids{1, 2, 3}); }
  EXPECT_TRUE(fs::is_empty(folder));
}

// ---- windows -----------------------------------------------------------------------------------------

Ids ids(const Tensor& tensor) {
  const auto values = tensor.span<std::int32_t>();
  return {values.begin(), values.end()};
}

TEST(Windows, TargetsAreInputsMovedByOne) {
  const Ids tokens = {5, 9, 2, 7, 1, 4};
  const Batch batch = make_batch(tokens, Starts{1, 0}, 3);
  EXPECT_EQ(batch.inputs.shape(), (Shape{2, 3}));
  EXPECT_EQ(ids(batch.inputs), (Ids{9, 2, 7, 5, 9, 2}));
  EXPECT_EQ(ids(batch.targets), (Ids{2, 7, 1, 9, 2, 7}));
  const std::vector<std::uint16_t> narrow = {5, 9, 2, 7, 1, 65535};
  EXPECT_EQ(ids(make_batch(narrow, Starts{2}, 3).targets), (Ids{7, 1, 65535}));
  EXPECT_THROW((void)make_batch(tokens, Starts{3}, 3), Error);  // its last target would be token 6 of 6
  EXPECT_THROW((void)make_batch(tokens, Starts{-1}, 3), Error);
  EXPECT_THROW((void)make_batch(tokens, Starts{0}, 0), Error);
  EXPECT_THROW(fill_batch(batch, tokens, Starts{0}), Error);
}

TEST(Windows, AreThoseOfThePyTorchDataset) {
  // for i in range(0, len(tokens) - length, stride)
  for (std::int64_t n = 2; n < 40; ++n)
    for (std::int64_t length = 1; length < n; ++length)
      for (std::int64_t stride = 1; stride <= n; ++stride) {
        Starts expected;
        for (std::int64_t i = 0; i < n - length; i += stride) expected.push_back(i);
        ASSERT_EQ(sliding_starts(n, length, stride), expected) << n << " " << length << " " << stride;
      }
  EXPECT_EQ(error_of([] { (void)sliding_starts(256, 256, 1); }),
            "256 tokens are too few for one window of 256 and the token behind it");
  EXPECT_THROW((void)sliding_starts(0, 4, 4), Error);
  EXPECT_THROW((void)sliding_starts(9, 4, 0), Error);
  EXPECT_THROW((void)sliding_starts(9, 0, 1), Error);
}

TEST(Windows, WithAStrideOfTheirLengthCoverEveryTargetOnce) {
  Ids tokens(1000);
  std::iota(tokens.begin(), tokens.end(), 0);
  Ids targets;
  for (const std::int64_t start : sliding_starts(1000, 37, 37)) {
    const Ids row = ids(make_batch(tokens, Starts{start}, 37).targets);
    targets.insert(targets.end(), row.begin(), row.end());
  }
  ASSERT_EQ(targets.size(), 999U);
  for (std::size_t i = 0; i < targets.size(); ++i) EXPECT_EQ(targets[i], static_cast<std::int32_t>(i) + 1);
}

TEST(Windows, BatchesCoverAllWithOrWithoutTheLast) {
  const Starts starts = sliding_starts(23, 2, 2);  // 11 windows
  EXPECT_EQ(batch_count(11, 4, false), 3);
  EXPECT_EQ(batch_count(11, 4, true), 2);
  EXPECT_EQ(batch_count(3, 4, true), 0);
  EXPECT_EQ(batch_count(12, 4, false), 3);
  EXPECT_EQ(batch_starts(starts, 4, 2).size(), 3U);
  EXPECT_EQ(batch_starts(starts, 4, 1)[0], 8);
  EXPECT_THROW((void)batch_starts(starts, 4, 3), Error);
  EXPECT_THROW((void)batch_count(11, 0, false), Error);
}

TEST(Shuffle, IsAPermutationOfSeedAndEpoch) {
  const Starts order = shuffled_order(1000, 1);
  Starts sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (std::int64_t i = 0; i < 1000; ++i) EXPECT_EQ(sorted[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(shuffled_order(1000, 1), order);
  EXPECT_NE(shuffled_order(1000, 1, 1), order);
  EXPECT_NE(shuffled_order(1000, 2), order);
  EXPECT_TRUE(shuffled_order(0, 1).empty());
  // Each of the 6 orders of 3 comes about as often: 1000 expected, standard deviation 29.
  std::vector<int> seen(27, 0);
  for (std::uint64_t seed = 0; seed < 6000; ++seed) {
    const Starts three = shuffled_order(3, seed);
    ++seen[static_cast<std::size_t>(three[0] * 9 + three[1] * 3 + three[2])];
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 0), 21);
  for (const int count : seen)
    if (count != 0) {
      EXPECT_NEAR(count, 1000, 5 * 29);
    }
}

TEST(Shuffle, ReproducesPyTorchsLoader) {
  // PyTorch 2: torch.manual_seed(123); DataLoader(range(10), batch_size=1, shuffle=True), iterated twice.
  TorchRandom random(123);
  EXPECT_EQ(torch_loader_order(10, random), (Starts{8, 2, 6, 7, 0, 3, 9, 1, 5, 4}));
  EXPECT_EQ(torch_loader_order(10, random), (Starts{5, 9, 2, 7, 8, 6, 4, 0, 1, 3}));
}

TEST(Shuffle, ReordersStarts) {
  EXPECT_EQ(reorder(Starts{0, 4, 8}, Starts{2, 0, 1}), (Starts{8, 0, 4}));
  EXPECT_THROW((void)reorder(Starts{0, 4, 8}, Starts{3}), Error);
}

TEST(RandomStarts, DependOnSeedStepAndRowAlone) {
  const Starts whole = random_starts(100000, 64, 7, 3, 0, 12);
  for (std::int64_t row = 0; row < 12; ++row)  // a micro-batch, or another rank, sees the same rows
    EXPECT_EQ(random_starts(100000, 64, 7, 3, row, 1)[0], whole[static_cast<std::size_t>(row)]);
  EXPECT_NE(random_starts(100000, 64, 7, 4, 0, 12), whole);
  EXPECT_NE(random_starts(100000, 64, 8, 3, 0, 12), whole);
}

TEST(RandomStarts, ReachTheFirstAndTheLastWindowEvenly) {
  // 5 tokens, length 2: starts 0, 1, 2. 9000 draws, 3000 each, standard deviation 45.
  std::vector<int> seen(3, 0);
  for (std::int64_t step = 0; step < 1000; ++step)
    for (const std::int64_t start : random_starts(5, 2, 1, step, 0, 9)) {
      ASSERT_TRUE(start >= 0 && start <= 2);
      ++seen[static_cast<std::size_t>(start)];
    }
  for (const int count : seen) EXPECT_NEAR(count, 3000, 5 * 45);
  EXPECT_EQ(random_starts(3, 2, 1, 0, 0, 1)[0], 0);
  EXPECT_THROW((void)random_starts(2, 2, 1, 0, 0, 1), Error);
  EXPECT_THROW((void)random_starts(100, 2, 1, 0, 0, 0), Error);
  EXPECT_THROW((void)random_starts(Starts{}, 1, 0, 0, 1), Error);
  EXPECT_THROW((void)random_choice(5, 1, -1, 0), Error);
}

TEST(Documents, WindowsBeginAtTheSeparator) {
  const Ids tokens = {1, 2, 0, 3, 4, 5, 0, 6, 0};
  EXPECT_EQ(document_starts(tokens, 0, 2), (Starts{2, 6}));
  EXPECT_EQ(document_starts(tokens, 0, 3), (Starts{2}));
  const Batch batch = make_batch(tokens, random_starts(document_starts(tokens, 0, 2), 1, 0, 0, 20), 2);
  for (std::int64_t row = 0; row < 20; ++row) EXPECT_EQ(batch.inputs.data<std::int32_t>()[row * 2], 0);
  EXPECT_THROW((void)document_starts(tokens, 9, 2), Error);
  EXPECT_THROW((void)document_starts(tokens, 0, 9), Error);
}

TEST(Documents, LieBetweenSeparators) {
  const Ids tokens = {0, 1, 2, 0, 0, 3, 0, 4};
  const auto ranges = document_ranges(tokens, 0);
  ASSERT_EQ(ranges.size(), 3U);
  EXPECT_EQ(ranges[0].begin, 1);
  EXPECT_EQ(ranges[0].end, 3);
  EXPECT_EQ(ranges[1].size(), 1);
  EXPECT_EQ(ranges[2].begin, 7);
  EXPECT_EQ(ranges[2].end, 8);
  EXPECT_TRUE(document_ranges(Ids{}, 0).empty());
  EXPECT_TRUE(document_ranges(Ids{0, 0}, 0).empty());
}

TEST(Documents, BatchesCountEachDocumentWhole) {
  const Ids tokens = {1, 2, 3, 0, 4, 0};
  const Batch batch = make_document_batch(tokens, document_ranges(tokens, 0), 0, 4);
  EXPECT_EQ(batch.inputs.shape(), (Shape{2, 4}));
  EXPECT_EQ(ids(batch.inputs), (Ids{0, 1, 2, 3, 0, 4, 0, 0}));
  EXPECT_EQ(ids(batch.targets), (Ids{1, 2, 3, 0, 4, 0, -1, -1}));
  EXPECT_EQ(error_of([&] { (void)make_document_batch(tokens, document_ranges(tokens, 0), 0, 3); }),
            "a document of 3 tokens and its end do not fit in a context of 3");
  EXPECT_THROW((void)make_document_batch(tokens, {}, 0, 3), Error);
}

}  // namespace
}  // namespace llm
