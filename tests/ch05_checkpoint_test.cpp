// Checkpoints: what is saved comes back; every kind of damage is refused, named, and changes nothing.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "common/core/error.h"
#include "common/core/file.h"
#include "common/training/checkpoint.h"

namespace llm {
namespace {

namespace fs = std::filesystem;

class Checkpoint : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("llm_checkpoint_" + std::to_string(getpid()));
    fs::remove_all(folder_);
    path_ = folder_ / "training.ckpt";
    for (std::int64_t i = 0; i < a_.numel(); ++i) a_.data()[i] = static_cast<float>(i) * 0.25F;
    for (std::int64_t i = 0; i < b_.numel(); ++i) b_.data()[i] = -static_cast<float>(i);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void save() { save_checkpoint(path_, {17, {{"layers", "4"}, {"seed", "42"}}}, {{"a", a_}, {"b", b_}}); }

  /// Loads into tensors full of sevens; expects an Error that contains `words` and the sevens unchanged.
  void expect_refused(const std::string& words) {
    Tensor a(a_.shape()), b(b_.shape());
    a.fill(7);
    b.fill(7);
    try {
      load_checkpoint(path_, {{"a", a}, {"b", b}});
      ADD_FAILURE() << "loaded, though it should say: " << words;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("training.ckpt"), std::string::npos) << error.what();
    }
    for (const float x : a.span()) ASSERT_EQ(x, 7);
    for (const float x : b.span()) ASSERT_EQ(x, 7);
  }

  fs::path folder_, path_;
  Tensor a_{Shape{5, 3}}, b_{Shape{1000}};
};

TEST_F(Checkpoint, ComesBackBitForBit) {
  a_.data()[3] = -0.0F;
  save();
  Tensor a(a_.shape()), b(b_.shape());
  const CheckpointInfo info = load_checkpoint(path_, {{"a", a}, {"b", b}});
  EXPECT_EQ(info.step, 17);
  EXPECT_EQ(info.settings.at("layers"), "4");
  EXPECT_EQ(std::memcmp(a.raw(), a_.raw(), a.bytes()), 0);
  EXPECT_EQ(std::memcmp(b.raw(), b_.raw(), b.bytes()), 0);
  EXPECT_EQ(read_checkpoint_info(path_).step, 17);
}

TEST_F(Checkpoint, EveryDamageIsNamed) {
  save();
  const std::string good = read_file(path_);
  const auto with = [&](const std::function<void(std::string&)>& damage) {
    std::string bad = good;
    damage(bad);
    write_file(path_, bad);
  };
  with([](std::string& s) { s.clear(); });
  expect_refused("too short");
  with([](std::string& s) { s.resize(10); });
  expect_refused("too short");
  with([](std::string& s) { s = std::string(5000, 'x'); });
  expect_refused("not a checkpoint");
  with([](std::string& s) { s[7] = '9'; });
  expect_refused("another version");
  with([](std::string& s) { s[14] = 'x'; });  // an absurd header size
  expect_refused("damaged");
  with([](std::string& s) { s.resize(60); });
  expect_refused("cut off");
  with([](std::string& s) { s[30] ^= 1; });  // within the header
  expect_refused("checksum");
  with([](std::string& s) { s.resize(s.size() - 1); });
  expect_refused("cut off");
  with([](std::string& s) { s += "more"; });
  expect_refused("damaged");
  with([](std::string& s) { s[s.size() - 1000] ^= 64; });  // one bit of a tensor
  expect_refused("the checksum of b is wrong");
  fs::remove(path_);
  expect_refused("No such file");
  fs::create_directory(path_);
  expect_refused("folder");
}

TEST_F(Checkpoint, EveryBitCounts) {
  b_ = Tensor({8});
  save();
  const std::string good = read_file(path_);
  int accepted = 0;
  for (std::size_t byte = 0; byte < good.size(); ++byte) {
    std::string bad = good;
    bad[byte] = static_cast<char>(bad[byte] ^ (1 << (byte % 8)));
    std::ofstream(path_, std::ios::binary)
        << bad;  // not write_file: a sync for each of 1,000 files takes seconds
    Tensor a(a_.shape()), b(b_.shape());
    try {
      load_checkpoint(path_, {{"a", a}, {"b", b}});
      ++accepted;
    } catch (const Error&) {
    }
  }
  // Only the zeros that fill up to a multiple of 64 carry nothing: at most 63 before each of the two tensors.
  EXPECT_LE(accepted, 2 * 63);
}

TEST_F(Checkpoint, OtherSizesAndNamesAreRefused) {
  save();
  Tensor a(Shape{5, 3}), c(Shape{999});
  EXPECT_THROW(load_checkpoint(path_, {{"a", a}}), Error);
  EXPECT_THROW(load_checkpoint(path_, {{"a", a}, {"b", c}}), Error);
  EXPECT_THROW(load_checkpoint(path_, {{"a", a}, {"other", b_}}), Error);
}

TEST_F(Checkpoint, OtherSettingsAreNamed) {
  try {
    check_same_settings("x.ckpt", {{"layers", "4"}, {"seed", "42"}}, {{"layers", "4"}, {"seed", "43"}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("seed = 42, this run has 43"), std::string::npos)
        << error.what();
  }
  EXPECT_NO_THROW(check_same_settings("x.ckpt", {{"seed", "42"}, {"other", "1"}}, {{"seed", "42"}}));
}

TEST_F(Checkpoint, AFullDiskLeavesThePreviousOne) {
  save();
  const std::string good = read_file(path_);
  // A limit on file sizes fails like a full disk does: write() returns an error.
  std::signal(SIGXFSZ, SIG_IGN);
  struct rlimit old {};
  getrlimit(RLIMIT_FSIZE, &old);
  struct rlimit small = old;
  small.rlim_cur = 2000;
  setrlimit(RLIMIT_FSIZE, &small);
  a_.fill(1);
  EXPECT_THROW(save(), Error);
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_EQ(read_file(path_), good);
  int files = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(folder_)) ++files;
  EXPECT_EQ(files, 1) << "a half-written file was left";
}

}  // namespace
}  // namespace llm
