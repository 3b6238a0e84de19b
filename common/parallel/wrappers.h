// Wrappers: communicators around a communicator, of any backend.
//
// `make_checking_communicator` finds ranks that do not call the same operations. Beside each operation the
// ranks exchange a short record of what they call (sequence number, operation, elements, dtype, root); the
// wait compares the records before it trusts the numbers. `make_tracing_communicator` (trace.h) counts and
// times. Chapter 6 explains them.
#pragma once

#include <memory>

#include "common/parallel/communicator.h"
#include "common/parallel/trace.h"

namespace llm {

/// The records travel over `control`, which has the same ranks: where the numbers are in a GPU's memory, a
/// communicator of the host. Null: a split of `inner`. A difference is an Error that names the rank and both
/// sides, on every rank that sees it.
std::unique_ptr<Communicator> make_checking_communicator(std::unique_ptr<Communicator> inner,
                                                         std::unique_ptr<Communicator> control = nullptr);

/// Notes every operation in `trace`, which belongs to this rank; so do the splits.
std::unique_ptr<Communicator> make_tracing_communicator(std::unique_ptr<Communicator> inner,
                                                        std::shared_ptr<Trace> trace);

}  // namespace llm
