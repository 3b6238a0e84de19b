#include <gtest/gtest.h>

#include "common/core/tensor.h"

namespace llm {
namespace {

TEST(Tensor, StartsAsZerosOfItsShape) {
  const Tensor t({2, 3});
  EXPECT_EQ(t.numel(), 6);
  EXPECT_EQ(t.dim(-1), 3);
  for (const float x : t.span()) EXPECT_EQ(x, 0.0F);
}

TEST(Tensor, ViewsAndSlicesShareStorage) {
  const Tensor t({4, 3});
  t.view({12}).data()[7] = 5;
  EXPECT_EQ(t.slice(2, 4).data()[1], 5.0F);
  EXPECT_EQ(t.clone().data()[7], 5.0F);
}

TEST(Tensor, NamesBothSidesOfAMismatch) {
  const Tensor t({4, 3});
  try {
    (void)t.view({5, 2});
    FAIL() << "a view of another size must fail";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "a tensor of shape (4, 3) cannot be viewed as (5, 2)");
  }
  EXPECT_THROW((void)t.data<std::int32_t>(), Error);
  EXPECT_THROW((void)t.slice(3, 5), Error);
  EXPECT_THROW(Tensor({-1, 2}), Error);
  EXPECT_THROW(Tensor({std::int64_t{1} << 40, std::int64_t{1} << 40}), Error);
}

TEST(Tensor, LargeBlocksAreZeroToo) {
  const Tensor t({3, 1 << 20});
  EXPECT_EQ(t.data()[t.numel() - 1], 0.0F);
  t.fill(2);
  EXPECT_EQ(t.slice(1, 2).data()[5], 2.0F);
}

}  // namespace
}  // namespace llm
