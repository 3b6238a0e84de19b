// How fast this machine can multiply matrices: the measure behind "model FLOP utilisation".
#pragma once

namespace llm {

/// Floating-point operations per second of `gemm` on square matrices that fit in the cache, on the threads
/// now set: the best of the runs within `seconds`. MFU (Chowdhery et al. 2022, section 4.1) is a run's
/// operations per second divided by this. Chapter 5 explains it.
double measure_peak_flops(double seconds = 0.3);

}  // namespace llm
