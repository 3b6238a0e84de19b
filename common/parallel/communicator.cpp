#include "common/parallel/communicator.h"

#include <cstdlib>
#include <exception>

namespace llm {

double CommunicatorOptions::default_deadline() {
  const char* text = std::getenv("LLM_DEADLINE");
  if (text == nullptr || *text == '\0') return 60;
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (*end != '\0' || !(seconds > 0 && seconds <= 1e6))
    fail_usage("LLM_DEADLINE is the seconds that a rank waits for another, such as 60; it is '{}'", text);
  return seconds;
}

// What waits here is overwritten: it is waited for, like what is destroyed.
Work& Work::operator=(Work&& other) {
  if (this != &other) {
    wait();
    state_ = std::move(other.state_);
  }
  return *this;
}

Work::~Work() {
  if (state_ == nullptr || std::uncaught_exceptions() > 0) return;
  try {
    state_->wait();
  } catch (...) {  // a destructor must not throw; the communicator remembers and throws at the next operation
  }
}

void Work::wait() {
  if (state_ == nullptr) return;
  const auto state = std::move(state_);
  state->wait();
}

bool Work::done() {
  return state_ == nullptr || state_->done();
}

Work Communicator::send(const Tensor& x, int to) {
  const Transfer transfer{Transfer::Kind::send, x, to};
  return exchange({&transfer, 1});
}

Work Communicator::recv(const Tensor& x, int from) {
  const Transfer transfer{Transfer::Kind::recv, x, from};
  return exchange({&transfer, 1});
}

}  // namespace llm
