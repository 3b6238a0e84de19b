// How fast this machine can multiply matrices: the measure behind "model FLOP utilisation".
#pragma once

#include "common/model/gpt.h"

namespace llm {

/// Floating-point operations per second of linear_forward on square matrices, on the CPU on the threads now
/// set, or on the device: the best of the runs within `seconds`, or on a GPU twice as long. On the CPU the
/// matrices fit in the cache; elsewhere they are as large as it takes to keep the device busy. MFU (Chowdhery
/// et al. 2022, section 4.1) is a run's operations per second divided by this. Chapter 5 explains it.
double measure_peak_flops(Placement placement = {}, double seconds = 0.3);

}  // namespace llm
