// Time measured inside the program under test.
//
// The clock is Linux's CLOCK_MONOTONIC in both runs. Under dbos-run one reading may be a system
// call that leaves the guest (where Linux distrusts the TSC), so short operations are measured in
// batches that take much longer than the clock does, and the clock's own cost is subtracted.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

#include "tools/bench/samples.h"

namespace dbos::bench {

using Seconds = std::chrono::duration<double>;

double now_ns();

// What two readings in a row differ by: the median of several.
double clock_cost_ns();

// How long `work` takes, without the clock's cost; never below 0.
double time_ns(const std::function<void()>& work);

// The time of one operation in ns, from batches: `batch(n)` performs n operations. Their size
// adapts to the speed of the machine; batches are taken until `budget` is used up.
Samples time_batches(Seconds budget, const std::function<void(uint64_t)>& batch);

// The same for one operation that is long, or that needs `prepare` before each time.
Samples time_single(Seconds budget, const std::function<void()>& prepare,
                    const std::function<double()>& measure_ns);

}  // namespace dbos::bench
