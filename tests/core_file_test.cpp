#include "common/core/file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "common/core/error.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

class File : public testing::Test {
 protected:
  void SetUp() override {
    folder = fs::temp_directory_path() / ("llm_file_test_" + std::to_string(getpid()));
    fs::create_directories(folder);
  }
  void TearDown() override { fs::remove_all(folder); }
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator{}));
  }
  fs::path folder;
};

TEST_F(File, WritesWholeFilesAndReadsThemBack) {
  const std::string text(3'000'000, 'x');
  write_file(folder / "deep" / "a.txt", text);
  EXPECT_EQ(read_file(folder / "deep" / "a.txt"), text);
  EXPECT_EQ(MappedFile(folder / "deep" / "a.txt").text(), text);
  write_file(folder / "empty", "");
  EXPECT_EQ(read_file(folder / "empty"), "");
  EXPECT_TRUE(MappedFile(folder / "empty").bytes().empty());
}

TEST_F(File, NothingIsThereBeforeCommit) {
  write_file(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new and never finished");
  }
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(File, PatchesAHeader) {
  AtomicFile file(folder / "a");
  file.write("????body");
  file.write_at(0, std::as_bytes(std::span("HEAD", 4)));
  EXPECT_THROW(file.write_at(6, std::as_bytes(std::span("HEAD", 4))), Error);
  file.commit();
  EXPECT_EQ(read_file(folder / "a"), "HEADbody");
}

TEST_F(File, SaysWhatIsWrong) {
  const auto message = [](const auto& action) {
    try {
      action();
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(message([&] { (void)read_file(folder / "none"); }),
            "cannot open " + (folder / "none").string() + ": No such file or directory");
  EXPECT_EQ(message([&] { (void)read_file(folder); }), folder.string() + " is a folder, expected a file");
  EXPECT_EQ(message([&] { write_file(folder, "x"); }),
            "cannot write " + folder.string() + ": it is a folder");
  write_file(folder / "f", "x");
  EXPECT_NE(message([&] { write_file(folder / "f" / "g", "x"); }), "no error");
  EXPECT_EQ(message([&] { (void)read_file(folder / "f", 0); }),
            (folder / "f").string() + " is larger than 0 bytes");
}

// A full disk, played by the limit on file size: the old file stays and no partial one is left.
TEST_F(File, AFullDiskLeavesTheOldFile) {
  write_file(folder / "a", "old");
  struct rlimit before {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit small = before;
  small.rlim_cur = 100'000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_THROW(write_file(folder / "a", std::string(5'000'000, 'x')), Error);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_file(folder / "a"), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(File, FoldersAreReplacedWhole) {
  const auto fill = [](const std::string& text) {
    return [text](const fs::path& fresh) { write_file(fresh / "file", text); };
  };
  write_folder(folder / "d", fill("one"));
  write_folder(folder / "d", fill("two"));
  EXPECT_EQ(read_file(folder / "d" / "file"), "two");
  EXPECT_THROW(write_folder(folder / "d",
                            [](const fs::path& fresh) {
                              write_file(fresh / "other", "half");
                              fail("stopped half-way");
                            }),
               Error);
  EXPECT_EQ(read_file(folder / "d" / "file"), "two");
  EXPECT_FALSE(fs::exists(folder / "d" / "other"));
  EXPECT_EQ(entries(), 1u);
}

}  // namespace
}  // namespace llm
