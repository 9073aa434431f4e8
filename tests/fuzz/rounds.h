// What the fuzzers share: the program that calls them with random inputs until the time is up, and
// how they fail.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>

// libFuzzer's, and ours.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace dbos::test {

using Random = std::mt19937_64;

// What was not refused, of whole inputs or of the requests in them.
inline uint64_t accepted = 0;

[[noreturn]] inline void fail(const std::string& what) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, what.c_str());
  std::abort();
}

inline void require(bool condition, const char* what) {
  if (!condition) fail(what);
}

// As the reason of a refusal.
inline void check_sentence(const std::string& text) {
  require(text.size() > 20, "refused without a sentence");
  for (const char c : text) {
    require(static_cast<unsigned char>(c) >= 0x20, "control character in a message");
  }
}

// 'PROGRAM [SECONDS [SEED]]': inputs of make_input(random) for that long (default 5 s). Prints the
// seed first, which makes the same inputs again. If none is accepted, nothing was tested.
template <typename MakeInput>
int fuzz_main(int argc, char** argv, MakeInput make_input) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 5;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : std::random_device()();
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  Random random(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  unsigned long long inputs = 0;
  for (; std::chrono::steady_clock::now() < end; ++inputs) {
    const std::string input = make_input(random);
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
  }
  std::printf("%llu inputs, %llu accepted\n", inputs, static_cast<unsigned long long>(accepted));
  return accepted == 0 ? 1 : 0;
}

}  // namespace dbos::test
