#include "common/parallel/pipeline_runner.h"

#include <algorithm>
#include <chrono>
#include <optional>

#include "common/core/error.h"

namespace llm {

namespace {

std::size_t at(int i) {
  return static_cast<std::size_t>(i);
}

void wait(const std::shared_ptr<Work>& work) {
  if (work) work->wait();
}

/// Adds the seconds that it lives to a sum.
class Busy {
 public:
  explicit Busy(double& sum) : sum_(sum) {}
  ~Busy() { sum_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;

 private:
  double& sum_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

const Tensor& shared_gradient(const ShardedStage& stage) {
  const Parameter* matrix = stage.stage().parameters().find("wte.weight");
  check(matrix != nullptr, "this stage has no embedding matrix to share");
  return matrix->gradient;
}

}  // namespace

PipelineRunner::PipelineRunner(std::vector<ShardedStage*> stages, PipelineSchedule schedule, Communicator& pp)
    : stages_(std::move(stages)),
      schedule_(std::move(schedule)),
      pp_(pp),
      in_flight_(stages_.size()),
      landed_(stages_.size()) {
  check(static_cast<int>(stages_.size()) == schedule_.chunks && schedule_.ranks == pp.size(),
        "a schedule of {} ranks with {} chunks each was given {} stages on {} ranks", schedule_.ranks,
        schedule_.chunks, stages_.size(), pp.size());
  const bool tied_head = stages_.front()->stage().config().tied_head;
  // A frozen matrix has no gradient to share and no update to put off.
  const Parameter* matrix = stages_.front()->stage().parameters().find("wte.weight");
  if (matrix == nullptr) matrix = stages_.back()->stage().parameters().find("wte.weight");
  const bool trains = matrix != nullptr && matrix->trains;
  if (ties_across_ranks()) tied_ = pp.split(0, pp.rank(), "tied embedding");
  if (!trains) tied_.reset();
  if (tied_) {
    // What these units reduce is complete only after the two stages have met.
    for (int c = 0; c < schedule_.chunks; ++c) {
      if (is_first(c)) stages_[at(c)]->hold_back(0);
      if (is_last(c)) stages_[at(c)]->hold_back(stages_[at(c)]->partition().units.size() - 1);
    }
  }
  defers_ = tied_head && trains &&
            (schedule_.ranks > 1 || (schedule_.micro_batches > 1 && !stages_[0]->reduces_every_pass()));
}

bool PipelineRunner::ties_across_ranks() const {
  return stages_.front()->stage().config().tied_head && schedule_.ranks > 1;
}

// ---- micro-batches in flight -------------------------------------------------------------------

PipelineRunner::Flight& PipelineRunner::flight(int chunk, int micro_batch) {
  std::unique_ptr<Flight>& f = in_flight_[at(chunk)][micro_batch];
  if (f) return *f;
  auto& memory = landed_[at(chunk)];
  if (memory.empty()) {
    f = std::make_unique<Flight>();
    f->saved.workspace = workspace_;
  } else {
    f = std::move(memory.back());
    memory.pop_back();
  }
  f->batch = input_->batch(micro_batch);
  return *f;
}

void PipelineRunner::land(int chunk, int micro_batch) {
  auto& flights = in_flight_[at(chunk)];
  std::unique_ptr<Flight> f = std::move(flights[micro_batch]);
  flights.erase(micro_batch);
  f->batch = {};
  f->input = f->gradient = f->input_gradient = {};
  f->input_arrives = f->gradient_arrives = f->output_leaves = {};
  landed_[at(chunk)].push_back(std::move(f));
}

/// A tensor for what passes between stages: (B, T, C).
Tensor PipelineRunner::message(const Flight& f, int chunk) const {
  const GptStage& stage = stages_[at(chunk)]->stage();
  return Tensor::uninitialized(stage.stream_shape(f.batch.inputs.dim(0), f.batch.inputs.dim(1)),
                               stage.placement().dtype, stage.placement().device);
}

// ---- instructions ------------------------------------------------------------------------------

void PipelineRunner::forward(int chunk, int micro_batch) {
  Flight& f = flight(chunk, micro_batch);
  wait(f.input_arrives);
  const Busy busy(busy_seconds_);
  ShardedStage& s = *stages_[at(chunk)];
  ForwardOptions options = input_->options(micro_batch);
  options.listener = &s;
  s.stage().forward(f.saved, is_first(chunk) ? f.batch.inputs : f.input, options);
  most_in_flight_ = std::max(most_in_flight_, ++flying_);
}

void PipelineRunner::backward(int chunk, int micro_batch) {
  Flight& f = flight(chunk, micro_batch);
  wait(f.output_leaves);
  wait(f.gradient_arrives);
  ShardedStage& s = *stages_[at(chunk)];
  {
    const Busy busy(busy_seconds_);
    const bool last_pass = micro_batch == schedule_.micro_batches - 1;
    s.set_last_pass(last_pass);
    if (is_last(chunk)) {
      s.before_head(true);
      const auto numbers =
          std::span(numbers_).subspan(at(micro_batch * input_->numbers), at(input_->numbers));
      if (input_->head)
        input_->head(micro_batch, s.stage(), f.saved, scratch_, numbers);
      else
        numbers[0] = s.stage().loss(f.saved, scratch_, f.batch.targets, input_->gradient_scale);
      s.after_head(true);
      if (last_pass && tied_) send_head_gradient();
    } else {
      s.stage().prepare(scratch_, f.batch.inputs.dim(0), f.batch.inputs.dim(1));
      scratch_.dstream.copy_from(f.gradient);
    }
    ForwardOptions options = input_->options(micro_batch);
    options.listener = &s;
    options.defer_embedding = is_first(chunk) && defers_;
    s.stage().backward(f.saved, scratch_, is_first(chunk) ? f.batch.inputs : f.input, options);
    if (options.defer_embedding)
      deferred_.push_back({micro_batch, scratch_.dstream.clone(), f.batch.inputs});
    else if (!is_first(chunk)) {
      f.input_gradient = message(f, chunk);
      f.input_gradient.copy_from(scratch_.dstream);
    }
  }
  --flying_;
  if (is_first(chunk)) land(chunk, micro_batch);  // the others do when their gradient is on its way
}

/// Transfers of one group, issued together.
void PipelineRunner::transfer(std::span<const Instruction> group) {
  using Kind = Instruction::Kind;
  std::vector<Transfer> transfers;
  for (const Instruction& i : group) {
    Flight& f = flight(i.chunk, i.micro_batch);
    if (i.kind == Kind::recv_activation) f.input = message(f, i.chunk);
    if (i.kind == Kind::recv_gradient) f.gradient = message(f, i.chunk);
    const Tensor& tensor = i.kind == Kind::send_activation   ? f.saved.output
                           : i.kind == Kind::recv_activation ? f.input
                           : i.kind == Kind::send_gradient   ? f.input_gradient
                                                             : f.gradient;
    transfers.push_back({i.sends() ? Transfer::Kind::send : Transfer::Kind::recv, tensor, i.peer});
  }
  const auto work = std::make_shared<Work>(pp_.exchange(transfers));
  for (const Instruction& i : group) {
    Flight& f = flight(i.chunk, i.micro_batch);
    if (i.kind == Kind::send_activation) f.output_leaves = work;
    if (i.kind == Kind::recv_activation) f.input_arrives = work;
    if (i.kind == Kind::recv_gradient) f.gradient_arrives = work;
    if (i.kind == Kind::send_gradient) {
      leaving_.push_back(work);  // which keeps the tensor
      land(i.chunk, i.micro_batch);
    }
  }
}

std::vector<double> PipelineRunner::step(const StepInput& input) {
  input_ = &input;
  numbers_.assign(at(schedule_.micro_batches * input.numbers), 0);
  busy_seconds_ = 0;
  most_in_flight_ = 0;
  const std::vector<Instruction>& list = schedule_.instructions[at(pp_.rank())];
  for (std::size_t i = 0; i < list.size();) {
    const Instruction& next = list[i];
    if (next.computes()) {
      if (next.kind == Instruction::Kind::forward)
        forward(next.chunk, next.micro_batch);
      else
        backward(next.chunk, next.micro_batch);
      ++i;
      continue;
    }
    std::size_t end = i + 1;
    while (end < list.size() && !list[end].computes() && next.group >= 0 && list[end].group == next.group)
      ++end;
    transfer(std::span(list).subspan(i, end - i));
    i = end;
  }
  for (const SharedWork& work : leaving_) wait(work);
  leaving_.clear();
  finish_embedding();
  input_ = nullptr;
  return std::move(numbers_);
}

// ---- the tied embedding ------------------------------------------------------------------------

void PipelineRunner::send_head_gradient() {
  head_gradient_leaves_ = std::make_shared<Work>(tied_->send(shared_gradient(*stages_.back()), 0));
}

void PipelineRunner::finish_embedding() {
  const int last_rank = schedule_.ranks - 1;
  if (defers_ && pp_.rank() == 0) {
    ShardedStage& s = *stages_.front();
    // In place of the zeros that stand there: nothing has been added yet.
    if (tied_) tied_->recv(shared_gradient(s), last_rank).wait();
    const Busy busy(busy_seconds_);
    for (std::size_t i = 0; i < deferred_.size(); ++i) {
      const Deferred& d = deferred_[i];
      ForwardOptions options = input_->options(d.micro_batch);
      options.listener = &s;
      s.set_last_pass(i + 1 == deferred_.size());
      s.stage().backward_embedding(d.dstream, d.tokens, options);
    }
    deferred_.clear();
    if (tied_) {
      tied_->send(shared_gradient(s), last_rank).wait();
      s.reduce(0);
    }
  }
  if (tied_ && pp_.rank() == last_rank) {
    wait(head_gradient_leaves_);
    head_gradient_leaves_ = {};
    ShardedStage& s = *stages_.back();
    tied_->recv(shared_gradient(s), 0).wait();
    s.reduce(s.partition().units.size() - 1);
  }
}

// ---- without backward --------------------------------------------------------------------------

void PipelineRunner::evaluate(int number, const Batch& batch, std::span<double> numbers,
                              const HeadPass& head) {
  // Stage after stage; a rank has its chunks at several places of the line.
  for (int stage = 0; stage < schedule_.stages(); ++stage) {
    if (stage % schedule_.ranks != pp_.rank()) continue;
    const int chunk = stage / schedule_.ranks;
    ShardedStage& s = *stages_[at(chunk)];
    Flight f;
    f.saved.workspace = workspace_;
    f.batch = batch;
    if (!landed_[at(chunk)].empty()) f.saved = landed_[at(chunk)].back()->saved;  // its memory
    if (stage > 0) {
      f.input = message(f, chunk);
      pp_.recv(f.input, (stage - 1) % schedule_.ranks).wait();
    }
    ForwardOptions options;
    options.listener = &s;
    const Tensor& output = s.stage().forward(f.saved, stage == 0 ? batch.inputs : f.input, options);
    if (stage + 1 < schedule_.stages()) {
      pp_.send(output, (stage + 1) % schedule_.ranks).wait();
      continue;
    }
    s.before_head(false);
    if (head)
      head(number, s.stage(), f.saved, scratch_, numbers);
    else
      numbers[0] = s.stage().loss(f.saved, scratch_, batch.targets, std::nullopt);
    s.after_head(false);
  }
}

std::int64_t PipelineRunner::activation_bytes() const {
  std::int64_t bytes = scratch_.bytes() + workspace_->bytes();
  for (const auto& flights : landed_)
    for (const auto& f : flights) bytes += f->saved.bytes();
  return bytes;
}

}  // namespace llm
