// Chapter 1's library: reading, cleaning, splitting. (Shards and batches: ch01_batches_test.cpp.)
#include <gtest/gtest.h>
#include <unistd.h>
#include <utf8proc.h>
#include <zlib.h>
#include <zstd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/core/philox.h"
#include "common/text/deduplicate.h"
#include "common/text/documents.h"
#include "common/text/normalise.h"
#include "common/text/split.h"
#include "common/text/utf8.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

class TextFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder = fs::temp_directory_path() / (std::string("llm_") + info->name() + std::to_string(getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }

  fs::path put(const std::string& name, const std::string& content) const {
    write_file(folder / name, content);
    return folder / name;
  }
  /// The same without waiting for the disk, for tests that write many.
  fs::path scribble(const std::string& name, const std::string& content) const {
    std::ofstream(folder / name, std::ios::binary) << content;
    return folder / name;
  }
  fs::path folder;
};

std::string error_of(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
  std::string packed(text.size() + 1024, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

std::string zstd(const std::string& text) {
  std::string packed(ZSTD_compressBound(text.size()), '\0');
  packed.resize(ZSTD_compress(packed.data(), packed.size(), text.data(), text.size(), 3));
  return packed;
}

std::vector<std::string> texts_of(const std::vector<Document>& documents) {
  std::vector<std::string> texts;
  for (const Document& document : documents) texts.push_back(document.text);
  return texts;
}

// ---- documents --------------------------------------------------------------------------------------

TEST_F(TextFiles, ATextFileIsOneDocumentByteForByte) {
  const std::string text = "\xEF\xBB\xBFOnce\r\n upon \t a caf\xC3\xA9.\n\n";
  const auto documents = read_documents({put("a.txt", text)});
  ASSERT_EQ(documents.size(), 1U);
  EXPECT_EQ(documents[0].text, text);
}

TEST_F(TextFiles, JsonLinesGiveTheMemberText) {
  const auto path = put(
      "a.jsonl",
      "\xEF\xBB\xBF{\"text\": \"one\\n\\u00e9\\ud83d\\ude00\"}\r\n"
      "\n"
      "{\"id\": 7, \"meta\": {\"text\": \"inner\"}, \"list\": [\"x\", {\"text\": 3}], \"text\": \"two\"}\n"
      "{\"text\": \"\"}\n"
      "{\"text\": \"last, without a line break\"}");
  ReadReport report;
  const auto documents = read_documents({path}, InvalidText::fail, &report);
  EXPECT_EQ(texts_of(documents),
            (std::vector<std::string>{"one\n\xC3\xA9\xF0\x9F\x98\x80", "two", "last, without a line break"}));
  EXPECT_EQ(documents[1].source, path.string() + ", line 3");
  EXPECT_EQ(report.documents, 3);
  EXPECT_EQ(report.empty_documents, 1);
}

TEST_F(TextFiles, PackedFilesReadLikePlainOnes) {
  std::string lines, text;
  for (std::int64_t i = 0; i < 30000; ++i) {
    lines += "{\"text\": \"story number " + std::to_string(i * 7919) + "\"}\n";
    text += "line " + std::to_string(i * 104729) + "\n";
  }
  const auto plain = read_documents({put("a.jsonl", lines)});
  EXPECT_EQ(plain.size(), 30000U);
  EXPECT_EQ(texts_of(read_documents({put("b.jsonl.gz", gzip(lines))})), texts_of(plain));
  EXPECT_EQ(texts_of(read_documents({put("c.jsonl.zst", zstd(lines))})), texts_of(plain));
  EXPECT_EQ(read_documents({put("d.txt.gz", gzip(text))})[0].text, text);
  EXPECT_EQ(read_documents({put("e.txt.zst", zstd(text))})[0].text, text);
  // Packed pieces behind one another unpack to the texts behind one another, as with gzip's and zstd's own
  // tools.
  EXPECT_EQ(read_documents({put("f.txt.gz", gzip("one ") + gzip("two"))})[0].text, "one two");
  EXPECT_EQ(read_documents({put("g.txt.zst", zstd("one ") + zstd("two"))})[0].text, "one two");
}

TEST_F(TextFiles, EveryCutOfAPackedFileIsAnError) {
  const std::string gz = gzip("a text that is long enough to be cut, a text that is long enough to be cut");
  const std::string zs = zstd("a text that is long enough to be cut, a text that is long enough to be cut");
  for (std::size_t n = 0; n < gz.size(); ++n) {
    const auto path = put("cut.txt.gz", gz.substr(0, n));
    EXPECT_THROW((void)read_documents({path}), Error) << n;
  }
  for (std::size_t n = 0; n < zs.size(); ++n) {
    const auto path = put("cut.txt.zst", zs.substr(0, n));
    EXPECT_THROW((void)read_documents({path}), Error) << n;
  }
  EXPECT_NE(error_of([&] { (void)read_documents({put("x.txt.gz", "plain text")}); }).find("not a gzip file"),
            std::string::npos);
  EXPECT_NE(
      error_of([&] { (void)read_documents({put("x.txt.zst", "plain text")}); }).find("no Zstandard file"),
      std::string::npos);
}

TEST_F(TextFiles, FoldersAreReadAtAnyDepthByName) {
  put("in/b.txt", "second");
  put("in/a/z.jsonl", "{\"text\": \"first\"}\n");
  put("in/picture.png", "\x89PNG");
  put("in/about.json", "{}");
  put("in/c.txt.gz", gzip("third"));
  ReadReport report;
  EXPECT_EQ(texts_of(read_documents({folder / "in"}, InvalidText::fail, &report)),
            (std::vector<std::string>{"first", "second", "third"}));
  EXPECT_EQ(report.files, 3);
  EXPECT_EQ(report.skipped_files, 2);
}

TEST_F(TextFiles, BadInputIsOneSentenceWithTheFileAndThePlace) {
  const auto message = [&](const std::string& name, const std::string& content) {
    const auto path = put(name, content);
    std::string text = error_of([&] { (void)read_documents({path}); });
    const std::size_t at = text.find(path.string());
    return at == std::string::npos ? text : text.replace(at, path.string().size(), "FILE");
  };
  EXPECT_EQ(message("a.txt", ""), "FILE holds no text");
  EXPECT_EQ(message("a.jsonl", "\n\n"), "FILE holds no text");
  EXPECT_EQ(message("a.jsonl", "{\"text\": \"x\"}\nhello\n"),
            "FILE, line 2: this is no JSON object (it goes wrong at character 1)");
  EXPECT_EQ(message("a.jsonl", "[{\"text\": \"x\"}]\n"),
            "FILE, line 1: expected a JSON object with a member \"text\"");
  EXPECT_EQ(message("a.json", "{\"txt\": \"x\"}\n"), "FILE, line 1: the object has no member \"text\"");
  EXPECT_EQ(message("a.jsonl", "{\"text\": 7}\n"), "FILE, line 1: the member \"text\" is no string");
  EXPECT_EQ(message("a.jsonl", "{\"text\": [\"x\"]}\n"), "FILE, line 1: the member \"text\" is no string");
  EXPECT_EQ(message("a.jsonl", "{\"text\": \"x\"} {}\n").find("FILE, line 1: this is no JSON object"), 0U);
  EXPECT_EQ(
      message("a.txt", "caf\xE9 au lait"),
      "FILE: byte 0xE9 at offset 3 is not UTF-8 (it may be Latin-1; convert it, for example with iconv)");
  EXPECT_EQ(
      message("a.txt", std::string("\xFF\xFEh\0i\0", 6)),
      "FILE: byte 0xFF at offset 0 is not UTF-8 (it looks like UTF-16; convert it, for example with iconv)");
  EXPECT_EQ(message("a.jsonl", "{\"text\": \"x\"}\n{\"text\": \"\x80\"}\n"),
            "FILE, line 2: byte 0x80 at offset 24 is not UTF-8 (is it in another encoding?)");
  EXPECT_EQ(error_of([&] { (void)read_documents({folder / "none.txt"}); }),
            "there is no file or folder " + (folder / "none.txt").string());
  fs::create_directories(folder / "empty");
  EXPECT_EQ(
      error_of([&] { (void)read_documents({folder / "empty"}); }),
      (folder / "empty").string() + ": no .txt, .jsonl or .ndjson file (plain, .gz or .zst) among 0 files");
}

TEST_F(TextFiles, InvalidBytesAreReplacedOnlyWhenAsked) {
  ReadReport report;
  const auto path = put("a.jsonl", "{\"text\": \"a\xFFz\"}\n");
  EXPECT_EQ(read_documents({path}, InvalidText::replace, &report)[0].text, "a\xEF\xBF\xBDz");
  EXPECT_EQ(report.replaced, 1);
  EXPECT_THROW((void)parse_invalid_text("ignore"), UsageError);
}

TEST_F(TextFiles, DocumentsWrittenAreReadBack) {
  std::vector<Document> documents;
  std::string every_ascii;
  for (char c = 0; c < 127; ++c) every_ascii += c;
  for (const std::string& text :
       {std::string("plain"), every_ascii, std::string("\"\\/\n\t\r\xC3\xA9\xF0\x9F\x98\x80")})
    documents.push_back({text, {}});
  write_documents(folder / "out.jsonl", documents);
  EXPECT_EQ(texts_of(read_documents({folder / "out.jsonl"})), texts_of(documents));
  EXPECT_THROW(DocumentWriter(folder / "bad.jsonl").write("\xFF"), Error);
  EXPECT_FALSE(fs::exists(folder / "bad.jsonl"));
  EXPECT_FALSE(fs::exists(folder / "bad.jsonl.partial"));
}

TEST_F(TextFiles, ReadersSurviveRandomBytes) {
  // Each file is either read or refused with an Error; sanitizers see the rest. Mutations of good files reach
  // deeper than noise.
  const std::string line =
      "{\"id\": [1, 2.5e3, null], \"text\": \"a \\u00e9\\n tale\", \"x\": {\"y\": true}}\n";
  const std::vector<std::pair<std::string, std::string>> seeds = {
      {"a.txt", "Some t\xC3\xA9xt\r\n"}, {"a.jsonl", line + line}, {"a.jsonl.gz", gzip(line)},
      {"a.txt.zst", zstd(line)},         {"a.txt.gz", gzip(line)}, {"a.jsonl.zst", zstd(line)}};
  PhiloxSequence random(1, stream_id("fuzz"));
  int read = 0, refused = 0;
  for (int round = 0; round < 900; ++round) {
    auto [name, content] = seeds[static_cast<std::size_t>(round) % seeds.size()];
    if (round % 10 == 9) {
      content.resize(random.below(300));
      for (char& c : content) c = static_cast<char>(random.next_word());
    } else {
      for (std::uint64_t k = 0; k <= random.below(4); ++k) {
        const std::size_t at = random.below(content.size());
        switch (random.below(3)) {
          case 0:
            content[at] = static_cast<char>(random.next_word());
            break;
          case 1:
            content.erase(at, 1 + random.below(3));
            break;
          default:
            content.insert(at, 1 + random.below(3), static_cast<char>(random.next_word()));
        }
      }
    }
    const auto path = scribble(name, content);
    try {
      for (const Document& document : read_documents({path})) (void)normalise(document.text);
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(read, 50);
  EXPECT_GT(refused, 50);
}

TEST_F(TextFiles, ADeeplyNestedLineIsNoProblem) {
  const std::string deep(1'000'000, '[');
  EXPECT_THROW((void)read_documents({put("a.jsonl", "{\"x\": " + deep + "\n")}), Error);
  const std::string closed = deep + std::string(deep.size(), ']');
  EXPECT_EQ(read_documents({put("b.jsonl", "{\"x\": " + closed + ", \"text\": \"ok\"}\n")})[0].text, "ok");
}

// ---- UTF-8 and normalising ----------------------------------------------------------------------------

TEST(Utf8, AcceptsExactlyTheWellFormedSequences) {
  // All code points, encoded by hand; surrogates are refused.
  for (std::uint32_t c = 0; c <= 0x10FFFF; c += (c < 0x11000 ? 1 : 17)) {
    std::string text;
    const auto push = [&](std::uint32_t byte) { text += static_cast<char>(byte); };
    if (c < 0x80) {
      push(c);
    } else if (c < 0x800) {
      push(0xC0 | (c >> 6)), push(0x80 | (c & 63));
    } else if (c < 0x10000) {
      push(0xE0 | (c >> 12)), push(0x80 | ((c >> 6) & 63)), push(0x80 | (c & 63));
    } else {
      push(0xF0 | (c >> 18)), push(0x80 | ((c >> 12) & 63)), push(0x80 | ((c >> 6) & 63)),
          push(0x80 | (c & 63));
    }
    const bool surrogate = c >= 0xD800 && c <= 0xDFFF;
    ASSERT_EQ(find_invalid_utf8(text) == std::string::npos, !surrogate) << std::hex << c;
    if (!surrogate) {
      ASSERT_EQ(count_characters(text), 1);
    }
  }
  for (const char* bad : {"\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80", "\x80", "\xC3", "\xE2\x82", "\xF0\x9F\x98"})
    EXPECT_EQ(find_invalid_utf8(std::string("12345678abc") + bad), 11U) << bad;
}

TEST(Utf8, ReplacesAsTheUnicodeStandardRecommends) {
  // The example of the standard's section 3.9, table 3-8.
  std::int64_t replaced = 0;
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(replace_invalid_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", replaced),
            "a" + mark + mark + mark + "b" + mark + "c" + mark + mark + "d");
  EXPECT_EQ(replaced, 6);
  EXPECT_EQ(character_offset("a\xC3\xA9z", 2), 3U);
  EXPECT_EQ(character_offset("a\xC3\xA9z", 9), 4U);
}

TEST(Normalise, BringsTextsThatLookTheSameToOneForm) {
  EXPECT_EQ(normalise("\xEF\xBB\xBFone\r\ntwo\rthree\n"), "one\ntwo\nthree\n");
  EXPECT_EQ(normalise("cafe\xCC\x81"), "caf\xC3\xA9");   // e + combining acute -> é
  EXPECT_EQ(normalise("\xE2\x84\xAB"), "\xC3\x85");      // the Angstrom sign -> Å
  EXPECT_EQ(normalise("\xEF\xAC\x81"), "\xEF\xAC\x81");  // the ligature fi is another character: it stays
  EXPECT_EQ(normalise(std::string("a\0b\x07 \tc\x7F\xC2\x85", 10)), "ab \tc");
  EXPECT_EQ(normalise("end  \nof \t\n lines "), "end\nof\n lines");
  EXPECT_EQ(normalise(""), "");
  EXPECT_EQ(normalise("one\n\xEF\xBB\xBFtwo"), "one\ntwo");  // two files, put behind one another
  NormaliseOptions collapse;
  collapse.collapse_lines = true;
  EXPECT_EQ(normalise("\n\n one\n\n\n\n two\nthree\n\n", collapse), " one\n\n two\nthree");
  NormaliseOptions nothing;
  nothing.compose = nothing.trim_lines = false;
  EXPECT_EQ(normalise("cafe\xCC\x81 \n", nothing), "cafe\xCC\x81 \n");
}

TEST(Normalise, CountsWhatItChanged) {
  NormaliseReport report;
  (void)normalise(
      "\xEF\xBB\xBF"
      "a\r\nb\x01 \n",
      {}, &report);
  (void)normalise("untouched\n", {}, &report);
  EXPECT_EQ(report.byte_order_marks, 1);
  EXPECT_EQ(report.line_endings, 1);
  EXPECT_EQ(report.control_characters, 1);
  EXPECT_EQ(report.trimmed_lines, 1);
  EXPECT_EQ(report.composed_texts, 0);
  EXPECT_EQ(report.changed_texts, 1);
}

TEST(Normalise, TwiceIsOnce) {
  const std::vector<std::string> pieces = {
      "a",    "e\xCC\x81",    " ",        "\t",           "\n",           "\r",       "\r\n",
      "\x01", "\xEF\xBB\xBF", "\xC2\x85", "\xE1\x84\x80", "\xE1\x85\xA1", "\xCC\xA7", "\xCC\x81"};
  PhiloxSequence random(2, stream_id("normalise"));
  NormaliseOptions options;
  for (int round = 0; round < 3000; ++round) {
    options.collapse_lines = round % 2 == 0;
    std::string text;
    for (std::uint64_t k = random.below(12); k > 0; --k) text += pieces[random.below(pieces.size())];
    const std::string once = normalise(text, options);
    ASSERT_EQ(normalise(once, options), once);
    ASSERT_EQ(find_invalid_utf8(once), std::string::npos);
  }
}

TEST(Normalise, ComposesAsTheWholeTextWouldBe) {
  // Accents, Hangul, characters that decompose and stay apart, marks out of order; pieces against the whole
  // text.
  const std::vector<std::string> pieces = {"a",
                                           "e",
                                           " ",
                                           "\n",
                                           "\xC3\xA9",
                                           "\xCC\x81",
                                           "\xCC\xA7",
                                           "\xE1\x84\x80",
                                           "\xE1\x85\xA1",
                                           "\xE1\x86\xA8",
                                           "\xE2\x84\xAB",
                                           "\xE0\xA4\x95\xE0\xA4\xBC",
                                           "\xE2\x80\x99",
                                           "\xF0\x9D\x85\xA0",
                                           "\xE2\x80\x80",
                                           "\xC4\x87"};
  NormaliseOptions options;
  options.trim_lines = false;
  PhiloxSequence random(5, stream_id("compose"));
  for (int round = 0; round < 5000; ++round) {
    std::string text;
    for (std::uint64_t k = random.below(10); k > 0; --k) text += pieces[random.below(pieces.size())];
    const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> whole(
        utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str())), &std::free);
    ASSERT_EQ(normalise(text, options), reinterpret_cast<const char*>(whole.get()));
  }
}

TEST(Normalise, NamesTheByteThatIsNotUtf8) {
  EXPECT_EQ(error_of([] { (void)normalise("ab\xC3("); }).find("byte 0xC3 at offset 2 is not UTF-8"), 0U);
}

// ---- deduplication and split --------------------------------------------------------------------------

TEST(Deduplicate, KeepsTheFirstOfEachText) {
  std::vector<Document> documents = {{"a", "1"}, {"b", "2"}, {"a", "3"}, {"c", "4"}, {"b", "5"}};
  EXPECT_EQ(remove_exact_copies(documents), 2);
  EXPECT_EQ(texts_of(documents), (std::vector<std::string>{"a", "b", "c"}));
  EXPECT_EQ(documents[0].source, "1");
}

TEST(Deduplicate, FindsNearCopiesAndSparesOthers) {
  // Texts of 200 random words. Changing one word touches 3 of 198 triples: similarity 195 / 201 = 0.97.
  // Changing 60 leaves at most 0.4.
  PhiloxSequence random(3, stream_id("words"));
  const auto words = [&](int n) {
    std::vector<std::string> result;
    for (int i = 0; i < n; ++i) result.push_back(fmt::format("w{}", random.below(5000)));
    return result;
  };
  const auto join = [](const std::vector<std::string>& list) {
    std::string text;
    for (const std::string& word : list) text += word + " ";
    return text;
  };
  std::vector<Document> documents;
  for (int i = 0; i < 30; ++i) {
    auto base = words(200);
    documents.push_back({join(base), "base"});
    base[100] = "changed";
    documents.push_back({join(base), "near"});
    for (std::size_t k = 0; k < 180; k += 3) base[k] = fmt::format("other{}", k);
    documents.push_back({join(base), "far"});
  }
  EXPECT_EQ(remove_near_copies(documents), 30);
  for (const Document& document : documents) EXPECT_NE(document.source, "near");
}

TEST(Split, FollowsTheTextNotItsPlace) {
  std::vector<Document> documents;
  for (int i = 0; i < 5000; ++i) documents.push_back({"story " + std::to_string(i), {}});
  const Split split = split_documents(documents, 0.1, 42);
  EXPECT_EQ(split.train.size() + split.val.size(), documents.size());
  EXPECT_NEAR(static_cast<double>(split.val.size()), 500, 4 * 21.2);  // binomial: 4 standard deviations

  std::vector<Document> more(documents.rbegin(), documents.rend());
  for (int i = 0; i < 1000; ++i) more.push_back({"new story " + std::to_string(i), {}});
  const Split again = split_documents(more, 0.1, 42);
  std::set<std::string> val;
  for (const Document& document : again.val) val.insert(document.text);
  for (const Document& document : split.val) EXPECT_TRUE(val.contains(document.text));
  for (const Document& document : split.train) EXPECT_FALSE(val.contains(document.text));

  EXPECT_NE(texts_of(split_documents(documents, 0.1, 43).val), texts_of(split.val));
  EXPECT_TRUE(split_documents(documents, 0, 1).val.empty());
}

TEST(Split, GivesEachSideOfASmallCorpusSomething) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const Split few = split_documents({{"a", {}}, {"b", {}}, {"c", {}}}, 0.01, seed);
    EXPECT_EQ(few.val.size(), 1U);
    const Split most = split_documents({{"a", {}}, {"b", {}}, {"c", {}}}, 0.99, seed);
    EXPECT_EQ(most.train.size(), 1U);
  }
  EXPECT_THROW((void)split_documents({{"a", {}}, {"a", {}}}, 0.5, 1), Error);
  EXPECT_THROW((void)split_documents({}, 0.5, 1), Error);
  for (const double wrong : {-0.1, 1.0, 7.0, std::nan("")})
    EXPECT_THROW((void)split_documents({{"a", {}}}, wrong, 1), Error) << wrong;
}

TEST(Split, CutsASingleTextAtItsTailBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 10; ++i) text += "\xC3\xA9";
  const Split split = split_documents({{text, "book.txt"}}, 0.25, 7);
  EXPECT_EQ(split.train[0].text.size(), 14U);  // int(0.75 * 10) = 7 characters
  EXPECT_EQ(split.train[0].text + split.val[0].text, text);
}

TEST(Split, CutsTinyShakespeareWhereNanoGptDoes) {
  const char* data = std::getenv("LLM_DATA");
  if (data == nullptr) GTEST_SKIP() << "set LLM_DATA to a folder with tinyshakespeare.txt";
  const auto documents = read_documents({fs::path(data) / "tinyshakespeare.txt"});
  const auto [train, val] = split_text(documents[0].text, 0.1);
  EXPECT_EQ(train.size(), 1003854U);  // int(0.9 * 1115394), as nanoGPT's prepare.py prints
  EXPECT_EQ(val.size(), 111540U);
}

}  // namespace
}  // namespace llm
