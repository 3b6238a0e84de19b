// Executes a pipeline schedule: this rank's instructions, on this rank's stages, in their order.
//
// The runner knows how to do each kind of instruction and nothing about the order; that is the schedule's
// (schedule.h). One rank without a pipeline is the schedule "forward, backward, forward, backward, ...".
//
// The sums are those of a model in one piece, bit for bit. For a tied embedding this takes some care: its
// gradient adds up contributions of the head and of the embedding, and the order of additions shows in the
// last bits. Everywhere all of the head's contributions come first, then the embedding's, micro-batch by
// micro-batch; so the embedding's part of backward is put off to the end of the step, and in a pipeline the
// last stage sends its sum to the first, which adds its own on top and sends the result back. Chapter 6
// explains it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "common/parallel/communicator.h"
#include "common/parallel/schedule.h"
#include "common/parallel/sharded_stage.h"
#include "common/text/batches.h"

namespace llm {

/// What the last stage makes of its output: `numbers` are what all ranks are told of it, in a step the loss
/// first. In a step it accumulates gradients and leaves d(loss)/d(output) in scratch.dstream.
using HeadPass = std::function<void(int batch, GptStage& last, StageActivations& saved, StageScratch& scratch,
                                    std::span<double> numbers)>;

/// What the passes of a step are asked to do.
struct StepInput {
  std::function<Batch(int micro_batch)> batch;  // of this pipeline's micro-batches
  std::function<ForwardOptions(int micro_batch)> options;
  float gradient_scale = 1;
  HeadPass head = {};  // empty: the model's own loss of the targets, times gradient_scale
  int numbers = 1;     // that the head gives for a micro-batch
};

class PipelineRunner {
 public:
  /// `stages` are this rank's chunks, first to last; `pp` are the ranks of the pipeline. All must outlive the
  /// runner.
  PipelineRunner(std::vector<ShardedStage*> stages, PipelineSchedule schedule, Communicator& pp);

  /// All passes of a step. Returns the numbers of each micro-batch (of the model's own head: the sum of its
  /// losses) on the rank with the last stage, zeros elsewhere. Gradients are complete, and their reduction
  /// over the data-parallel ranks has begun.
  std::vector<double> step(const StepInput& input);

  /// Forward passes only, of one batch after the other. The head gives its numbers on the last stage; an
  /// empty one gives the sum of the losses over all targets. Elsewhere they stay as they are.
  void evaluate(int number, const Batch& batch, std::span<double> numbers, const HeadPass& head = {});

  const PipelineSchedule& schedule() const { return schedule_; }
  /// Bytes of activations that wait for their backward, scratch and messages, as they stand after a step.
  std::int64_t activation_bytes() const;
  /// Seconds of the last step that went into passes; the rest was waiting and messages.
  double busy_seconds() const { return busy_seconds_; }
  /// Forward passes whose backward was still to come, at most, in the last step and over all chunks.
  int most_in_flight() const { return most_in_flight_; }

 private:
  using SharedWork = std::shared_ptr<Work>;
  /// One micro-batch on its way through one chunk.
  struct Flight {
    StageActivations saved;
    Batch batch;
    Tensor input, gradient, input_gradient;  // messages: activation in, gradients in and out
    SharedWork input_arrives, gradient_arrives, output_leaves;
  };
  struct Deferred {
    int micro_batch;
    Tensor dstream, tokens;
  };

  Flight& flight(int chunk, int micro_batch);
  void land(int chunk, int micro_batch);
  bool is_first(int chunk) const { return schedule_.stage(pp_.rank(), chunk) == 0; }
  bool is_last(int chunk) const { return schedule_.stage(pp_.rank(), chunk) == schedule_.stages() - 1; }
  Tensor message(const Flight& flight, int chunk) const;
  void forward(int chunk, int micro_batch);
  void backward(int chunk, int micro_batch);
  void transfer(std::span<const Instruction> group);
  bool ties_across_ranks() const;
  void send_head_gradient();
  void finish_embedding();

  std::vector<ShardedStage*> stages_;
  PipelineSchedule schedule_;
  Communicator& pp_;
  std::unique_ptr<Communicator> tied_;  // the tied embedding's messages, beside those of the schedule
  std::vector<std::map<int, std::unique_ptr<Flight>>> in_flight_;  // [chunk][micro-batch]
  std::vector<std::vector<std::unique_ptr<Flight>>> landed_;       // their memory, to be used again
  std::shared_ptr<StageWorkspace> workspace_ = std::make_shared<StageWorkspace>();  // of all passes
  StageScratch scratch_;
  std::vector<SharedWork> leaving_;  // gradients on their way
  std::vector<Deferred> deferred_;
  SharedWork head_gradient_leaves_;
  const StepInput* input_ = nullptr;  // of the step under way
  std::vector<double> numbers_;
  bool defers_ = false;
  double busy_seconds_ = 0;
  int flying_ = 0, most_in_flight_ = 0;
};

}  // namespace llm
