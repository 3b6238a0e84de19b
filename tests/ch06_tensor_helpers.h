// A tensor-parallel group of threads of one process, as simple as can be: every rank lays down its tensor,
// all meet, every rank reads what it needs. And what the tests of tensor parallelism share.
#pragma once

#include <gtest/gtest.h>

#include <barrier>
#include <functional>
#include <thread>
#include <vector>

#include "ch04_model_helpers.h"
#include "common/model/gpt.h"
#include "common/ops/ops.h"

namespace llm::testing {

/// f32 numbers on the CPU.
inline Tensor widened(const Tensor& t) {
  const Tensor here = t.to(Device::cpu);
  Tensor wide = Tensor::uninitialized(t.shape());
  cast(wide, here);
  return wide;
}
/// t = values, rounded to its dtype, on its device.
inline void narrow(const Tensor& t, const Tensor& values) {
  Tensor here = Tensor::uninitialized(t.shape(), t.dtype());
  cast(here, values);
  t.copy_from(here);
}

/// Elements over which a rank ran each operation.
struct Traffic {
  std::int64_t all_reduce = 0, all_reduce_f32 = 0, all_reduce_max = 0, reduce_scatter = 0, all_gather = 0;
};

class MeetingGroup : public TensorGroup {
 public:
  struct Table {
    explicit Table(int ranks) : barrier(ranks), tensors(static_cast<std::size_t>(ranks)) {}
    std::barrier<> barrier;
    std::vector<Tensor> tensors;
  };
  MeetingGroup(std::shared_ptr<Table> table, int rank) : table_(std::move(table)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(table_->tensors.size()); }
  void all_reduce(const Tensor& x) override {
    (x.dtype() == DType::f32 ? traffic.all_reduce_f32 : traffic.all_reduce) += x.numel();
    reduce(x, x, 0, [](float a, float b) { return a + b; });
  }
  void all_reduce_max(const Tensor& x) override {
    traffic.all_reduce_max += x.numel();
    reduce(x, x, 0, [](float a, float b) { return std::max(a, b); });
  }
  void reduce_scatter(const Tensor& part, const Tensor& x) override {
    ASSERT_EQ(part.numel() * size(), x.numel());
    traffic.reduce_scatter += x.numel();
    reduce(part, x, rank_ * part.numel(), [](float a, float b) { return a + b; });
  }
  void all_gather(const Tensor& all, const Tensor& part) override {
    ASSERT_EQ(part.numel() * size(), all.numel());
    traffic.all_gather += all.numel();
    const Tensor result = Tensor::uninitialized(all.shape());
    meet(part, [&] {
      for (int r = 0; r < size(); ++r) result.range(r * part.numel(), part.shape()).copy_from(of(r));
    });
    narrow(all, result);
  }
  Traffic traffic;

 private:
  const Tensor& of(int rank) const { return table_->tensors[static_cast<std::size_t>(rank)]; }
  void meet(const Tensor& mine, const std::function<void()>& read) {
    table_->tensors[static_cast<std::size_t>(rank_)] = widened(mine).clone();
    table_->barrier.arrive_and_wait();
    read();
    table_->barrier.arrive_and_wait();
  }
  /// result = the elements from `first` on of the ranks' x, put together in rank order.
  void reduce(const Tensor& result, const Tensor& x, std::int64_t first,
              const std::function<float(float, float)>& put) {
    const Tensor sum = Tensor::uninitialized(result.shape());
    meet(x, [&] {
      for (std::int64_t i = 0; i < sum.numel(); ++i) {
        float value = of(0).data()[first + i];
        for (int r = 1; r < size(); ++r) value = put(value, of(r).data()[first + i]);
        sum.data()[i] = value;
      }
    });
    narrow(result, sum);
  }

  std::shared_ptr<Table> table_;
  int rank_;
};

/// Runs body(group) on `ranks` threads.
inline void run_group(int ranks, const std::function<void(std::shared_ptr<MeetingGroup>)>& body) {
  const auto table = std::make_shared<MeetingGroup::Table>(ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      try {
        body(std::make_shared<MeetingGroup>(table, rank));
      } catch (const std::exception& error) {
        ADD_FAILURE() << "rank " << rank << ": " << error.what();
        table->barrier.arrive_and_drop();
      }
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace llm::testing
