#include "vmm/control/debug_channel.h"

#include <sys/eventfd.h>
#include <unistd.h>
#include <catch2/catch.hpp>

using dbos::vmm::DebugChannel;

namespace {

// Whether a wake-up came since the last time.
bool was_woken(int descriptor) {
  uint64_t count = 0;
  return read(descriptor, &count, sizeof count) == sizeof count;
}

}  // namespace

TEST_CASE("a debugger's channel loses nothing, and says when it ends") {
  const int debugger = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  const int control = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  DebugChannel channel("dbos-dbg", debugger, control);
  bool is_closed = true;
  REQUIRE(channel.take_input(&is_closed).empty());
  REQUIRE_FALSE(is_closed);
  REQUIRE_FALSE(was_woken(debugger));

  channel.give("one");
  channel.give("two");
  REQUIRE(was_woken(debugger));
  REQUIRE(channel.waiting() == 6);
  channel.close(DebugChannel::Client::kReads);
  REQUIRE(was_woken(debugger));
  REQUIRE_FALSE(was_woken(control));
  REQUIRE(channel.take_input(&is_closed) == "onetwo");
  REQUIRE(was_woken(control));  // it may give more
  REQUIRE(is_closed);
  REQUIRE(channel.waiting() == 0);

  channel.put("");
  REQUIRE_FALSE(was_woken(control));
  channel.put("answer");
  REQUIRE(was_woken(control));
  channel.finish();
  REQUIRE(was_woken(control));
  REQUIRE_FALSE(channel.is_over());  // the answer is still there
  REQUIRE(channel.take_output() == "answer");
  REQUIRE(channel.is_over());
  REQUIRE_FALSE(channel.is_gone());
  close(debugger);
  close(control);
}

TEST_CASE("what a debugger that is gone had asked is dropped") {
  const int debugger = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  DebugChannel channel("dbos-dbg", debugger, debugger);
  channel.give("much");
  channel.close(DebugChannel::Client::kReads);
  channel.close(DebugChannel::Client::kGone);
  REQUIRE(channel.is_gone());
  bool is_closed = false;
  REQUIRE(channel.take_input(&is_closed).empty());
  REQUIRE(is_closed);
  channel.close(DebugChannel::Client::kReads);
  REQUIRE(channel.is_gone());
  close(debugger);
}
