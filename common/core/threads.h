// A pool of threads and one loop over it.
//
// `parallel_for` cuts [0, n) into contiguous parts, some for each thread; a thread that has run its own takes
// over parts that others have not begun. Write loops so that every output element is computed whole within
// one part: then no result depends on the number of threads, nor on who ran what. A call from inside a part,
// or while another thread is using the pool, runs the whole loop on the calling thread.
#pragma once

#include <cstdint>
#include <functional>

namespace llm {

/// Number of threads `parallel_for` uses; the number of cores unless set.
int thread_count();

/// Sets it; 0 means one per core. At least 1, at most 1024 (UsageError otherwise).
void set_thread_count(int count);

/// Runs body(begin, end) over parts of [0, n). No part is smaller than `grain` elements, so small loops
/// stay on the calling thread. If a body throws, the first exception is rethrown when all are done.
void parallel_for(std::int64_t n, std::int64_t grain,
                  const std::function<void(std::int64_t, std::int64_t)>& body);

}  // namespace llm
