// Is a pipeline schedule right? Every pass once and after what it needs, every message sent and received, no
// deadlock even if nothing is buffered, and how many activations are alive at once. Chapter 6 explains it.
#pragma once

#include <vector>

#include "common/parallel/schedule.h"

namespace llm {

/// Plays the schedule with groups of transfers that block until each of their messages has met its partner (a
/// rendezvous, the strictest way a network may behave). Error with the first thing that is wrong: a pass
/// missing, done twice, or before what it needs; a message that is not there yet, meets another one, or has
/// no partner; a deadlock, with what each rank waits for.
void check_schedule(const PipelineSchedule& schedule);

/// For each rank, the most forward passes done whose backward passes are not: activations held at once, each
/// of one micro-batch on one chunk. GPipe: m. 1F1B: min(m, p - rank). Interleaved: min(m v, 2 (p - 1 - rank)
/// + (v - 1) p + 1).
std::vector<int> peak_in_flight(const PipelineSchedule& schedule);

}  // namespace llm
