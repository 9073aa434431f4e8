// Runs of the model test. MODEL_SEED, MODEL_STEPS and MODEL_CHECK (steps between two checks of all
// invariants) reproduce one, MODEL_SCARCE_STEPS those of the second test; the tests share a
// machine, so run the same ones.

#include <catch2/catch.hpp>
#include <cstdlib>
#include <iostream>

#include "tests/unit/memory/model.h"

namespace dbos::test {
namespace {

u64 from_environment(const char* name, u64 otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 0);
}

void run(u64 seed, u64 steps, u64 check_every, bool scarce) {
  std::cout << "model: MODEL_SEED=" << seed << " MODEL_STEPS=" << steps << std::endl;
  Model model(seed, scarce);
  host::throw_on_panic(true);
  u64 step = 0;
  try {
    for (; step < steps; ++step) {
      model.step();
      if (step % check_every == 0) model.check();
    }
    model.verify_everything();
  } catch (const std::exception& error) {
    const FrameCounts counts = frame_allocator.counts();
    std::cerr << "frames: " << counts.total << " of which free " << counts.free << ", pages "
              << counts.pages << " (retired " << counts.retired_pages << "), nodes " << counts.nodes
              << " (retired " << counts.retired_nodes << "), kernel " << counts.kernel
              << "; lines: " << line_count() << std::endl;
    std::cerr << "step " << step << " (" << model.where << "): " << error.what() << std::endl;
    std::abort();  // nothing can be cleaned up after an inconsistency
  }
  host::throw_on_panic(false);
}

}  // namespace

TEST_CASE("random operations agree with a plain model") {
  const u64 seed = from_environment("MODEL_SEED", std::random_device{}());
  run(seed, from_environment("MODEL_STEPS", 40000), from_environment("MODEL_CHECK", 200), false);
}

TEST_CASE("random operations agree with a plain model when memory runs out") {
  const u64 seed = from_environment("MODEL_SEED", std::random_device{}());
  const u64 steps = from_environment("MODEL_SCARCE_STEPS", from_environment("MODEL_STEPS", 20000));
  run(seed, steps, from_environment("MODEL_CHECK", 200), true);
}

}  // namespace dbos::test
