#include "common/model/tensor_parallel.h"

#include "common/core/error.h"

namespace llm {

void check_shares(const GptConfig& config, int ranks) {
  check(ranks >= 1, "a tensor-parallel group needs at least one rank, got {}", ranks);
  if (config.heads % ranks != 0)
    fail_usage("tensor parallelism gives every rank whole heads, but {} ranks cannot share {} evenly", ranks,
               config.heads);
  if (config.mlp_width() % ranks != 0)
    fail_usage(
        "tensor parallelism shares out the feed-forward layer evenly, but {} ranks cannot share {} units",
        ranks, config.mlp_width());
  if (config.vocab_size < ranks)
    fail_usage(
        "tensor parallelism gives every rank a part of the vocabulary, but {} ranks cannot share {} tokens",
        ranks, config.vocab_size);
}

TensorTraffic tensor_traffic(const GptConfig& c, std::int64_t first_layer, std::int64_t last_layer,
                             std::int64_t batch, std::int64_t tokens, const StageOptions& options) {
  TensorTraffic traffic;
  if (!options.tensor_group || options.tensor_group->size() == 1) return traffic;
  const std::int64_t stream = batch * tokens * c.channels, layers = last_layer - first_layer;
  const std::int64_t embedding = first_layer == 0 ? 1 : 0, head = last_layer == c.layers ? 1 : 0;
  const std::int64_t again = options.recompute ? 1 : 0;
  if (options.sequence_parallel) {
    // A layer gathers twice forward; backward the gradients of two results, and the two norms once more.
    traffic.all_gather = stream * (layers * (6 + 2 * again) + embedding + head);
    traffic.reduce_scatter = stream * (layers * (4 + again) + embedding + head);
    traffic.step_gradients = (2 * layers + head) * c.channels * (c.bias ? 2 : 1);
  } else {
    // Two sums forward, of the two branches' results, and two backward, of their inputs' gradients.
    traffic.all_reduce = stream * (layers * (4 + again) + embedding + head);
  }
  traffic.statistics = 3 * batch * tokens * head;
  return traffic;
}

}  // namespace llm
