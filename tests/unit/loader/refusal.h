// What a loader function refuses with.
#pragma once

#include <catch2/catch.hpp>
#include <functional>
#include <string>

#include "vmm/loader/load_error.h"

namespace dbos::vmm::test {

// The message, with the exit status in front: "126: cannot run ...". Empty: nothing was refused.
inline std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const LoadError& error) {
    return std::to_string(static_cast<int>(error.status())) + ": " + error.what();
  }
  return "";
}

// All of them, in one sentence.
inline void require_words(const std::string& message, std::initializer_list<const char*> words) {
  for (const char* word : words) REQUIRE_THAT(message, Catch::Contains(word));
  REQUIRE_THAT(message, !Catch::Contains("\n"));
}

}  // namespace dbos::vmm::test
