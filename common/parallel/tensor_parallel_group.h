// The tensor-parallel group of a model over a communicator. Chapter 6 explains it.
#pragma once

#include "common/model/tensor_parallel.h"
#include "common/parallel/communicator.h"

namespace llm {

/// Each operation waits for its end: what follows needs the result. The communicator must outlive the group.
class CommunicatorGroup : public TensorGroup {
 public:
  explicit CommunicatorGroup(Communicator& communicator) : communicator_(communicator) {}
  int rank() const override { return communicator_.rank(); }
  int size() const override { return communicator_.size(); }
  void all_reduce(const Tensor& x) override { communicator_.all_reduce(x).wait(); }
  void all_reduce_max(const Tensor& x) override { communicator_.all_reduce(x, ReduceOp::max).wait(); }
  void reduce_scatter(const Tensor& part, const Tensor& x) override {
    communicator_.reduce_scatter(part, x).wait();
  }
  void all_gather(const Tensor& all, const Tensor& part) override {
    communicator_.all_gather(all, part).wait();
  }

 private:
  Communicator& communicator_;
};

}  // namespace llm
