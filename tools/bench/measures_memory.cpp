// First writes to memory.
#include <vector>

#include "tools/bench/measures.h"
#include "tools/bench/memory.h"

namespace dbos::bench {
namespace {

Samples write_all(size_t size, size_t batch, Pages pages) {
  Memory memory(size, pages);
  const size_t pages_written = batch / kPage;
  std::vector<double> values;
  for (size_t offset = 0; offset < size; offset += batch) {
    const double taken = time_ns([&] { memory.write(offset, batch); });
    values.push_back(taken / static_cast<double>(pages_written));
  }
  return Samples(std::move(values));
}

// `first` is the memory that the process starts with, `samples` memory that was used and given
// back before: on Linux the former may cost the machine's own first touch, if it is virtual.
Measured measure_first_write(size_t size, size_t batch, Pages pages) {
  Measured measured;
  measured.first = write_all(size, batch, pages);
  measured.samples = write_all(size, batch, pages);
  return measured;
}

}  // namespace

Measured measure_first_write_4k(Seconds) {
  return measure_first_write(192 * kMiB, 4 * kMiB, Pages::kSmall);
}

Measured measure_first_write_2m(Seconds) {
  return measure_first_write(256 * kMiB, 16 * kMiB, Pages::kLarge);
}

}  // namespace dbos::bench
