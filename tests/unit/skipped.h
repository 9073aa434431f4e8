// A case of Catch2 that cannot be tested here says so; tests/tidy/count-tests counts it as skipped.
#pragma once

#include <catch2/catch.hpp>
#include <cstdio>

// The caller returns after it. Once in a case at most.
inline void skip_case(const char* why) {
  std::printf("SKIP %s: %s\n", Catch::getResultCapture().getCurrentTestName().c_str(), why);
}
