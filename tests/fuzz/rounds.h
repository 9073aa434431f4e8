// What the fuzzers' programs share: rounds with random inputs, until the time is up.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace dbos::test {

// Of the command line 'PROGRAM [SECONDS [SEED]]': calls round(random) again and again for that long
// (default 5 s), and returns how often. Prints the seed first, which makes the same rounds again.
template <typename Round>
uint64_t run_rounds(int argc, char** argv, Round round) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 5;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : std::random_device()();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  std::mt19937_64 random(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  uint64_t rounds = 0;
  for (; std::chrono::steady_clock::now() < end; ++rounds) round(random);
  return rounds;
}

}  // namespace dbos::test
