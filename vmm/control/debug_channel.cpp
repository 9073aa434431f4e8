#include "vmm/control/debug_channel.h"

#include <unistd.h>

#include <cstdint>

namespace dbos::vmm {
namespace {

void wake(int descriptor) {
  const uint64_t one = 1;
  // It fails only where a wake-up waits already.
  [[maybe_unused]] const ssize_t written = write(descriptor, &one, sizeof one);
}

}  // namespace

void DebugChannel::give(std::string_view bytes) {
  {
    const std::lock_guard guard(lock_);
    input_ += bytes;
  }
  wake(wakes_debugger_);
}

void DebugChannel::close(Client client) {
  {
    const std::lock_guard guard(lock_);
    const bool is_known = is_closed_ && (is_gone_ || client == Client::kReads);
    if (is_known) return;
    is_closed_ = true;
    is_gone_ = client == Client::kGone;
    if (is_gone_) input_.clear();
  }
  wake(wakes_debugger_);
}

bool DebugChannel::is_gone() const {
  const std::lock_guard guard(lock_);
  return is_gone_;
}

std::string DebugChannel::take_output() {
  const std::lock_guard guard(lock_);
  std::string output;
  output.swap(output_);
  return output;
}

size_t DebugChannel::waiting() const {
  const std::lock_guard guard(lock_);
  return input_.size();
}

bool DebugChannel::is_over() const {
  const std::lock_guard guard(lock_);
  return is_over_ && output_.empty();
}

std::string DebugChannel::take_input(bool* is_closed) {
  std::string input;
  {
    const std::lock_guard guard(lock_);
    input.swap(input_);
    *is_closed = is_closed_;
  }
  // It gives no more before that: what was taken may have no answer that would wake it.
  if (!input.empty()) wake(wakes_control_);
  return input;
}

void DebugChannel::put(std::string_view bytes) {
  if (bytes.empty()) return;
  {
    const std::lock_guard guard(lock_);
    output_ += bytes;
  }
  wake(wakes_control_);
}

void DebugChannel::finish() {
  {
    const std::lock_guard guard(lock_);
    is_over_ = true;
  }
  wake(wakes_control_);
}

}  // namespace dbos::vmm
