#include "vmm/control/debugger.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <deque>
#include <mutex>
#include <vector>

#include "vmm/control/debug_session.h"
#include "vmm/debug/stop.h"
#include "vmm/error.h"
#include "vmm/host/keep_descriptor.h"
#include "vmm/host/wait_for_events.h"
#include "vmm/process/service_thread.h"

namespace dbos::vmm {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kStackSize = 2 << 20;
// For a client to read that the program has ended.
constexpr std::chrono::milliseconds kPatienceOfEnd(1000);

DebuggerSockets sockets;
std::vector<PassedFile>* passed_files = nullptr;  // the debugger's thread's
std::mutex waiting_lock;
std::deque<std::shared_ptr<DebugChannel>>* waiting = nullptr;  // for the debugger's thread

std::shared_ptr<DebugChannel> next_client() {
  const std::lock_guard guard(waiting_lock);
  if (waiting->empty()) return nullptr;
  auto client = waiting->front();
  waiting->pop_front();
  return client;
}

void clear_wake_up() {
  collect_files(sockets.debugger, passed_files);
}

void refuse(DebugChannel& client, const std::string& why) {
  bool is_closed = false;
  client.put(refused_request(client.take_input(&is_closed), why));
  client.finish();
}

void refuse_others() {
  while (const auto other = next_client()) {
    refuse(*other, "another debugger is attached: " + attached_debugger());
  }
}

void wait_for_close(DebugChannel& client) {
  const auto end = Clock::now() + kPatienceOfEnd;
  for (bool is_closed = false; !is_closed && Clock::now() < end;) {
    pollfd woken = {sockets.debugger, POLLIN, 0};
    wait_for_events({&woken, 1}, 50);
    clear_wake_up();
    client.take_input(&is_closed);
  }
}

int take_file(const DebugChannel& client) {
  clear_wake_up();
  const int file = take_file_of(client.id(), passed_files);
  return file < 0 ? file : keep_descriptor(file);
}

void talk(DebugChannel& client) {
  DebugSession session([&client] { return take_file(client); });
  for (;;) {
    refuse_others();
    bool is_closed = false;
    session.receive(client.take_input(&is_closed));
    while (!client.is_gone() && session.answer_next()) {
    }
    if (client.is_gone()) return;
    session.handle_events();
    client.put(session.take_output());
    if (session.is_over()) {
      client.finish();
      return wait_for_close(client);
    }
    if (is_closed) return;
    pollfd watched[] = {{sockets.debugger, POLLIN, 0}, {debug_event_descriptor(), POLLIN, 0}};
    wait_for_events(watched, -1);
    if (watched[0].revents != 0) clear_wake_up();
    if (watched[1].revents != 0) clear_debug_event();
  }
}

void serve(DebugChannel& client) {
  const std::string refusal = attach_debugger(client.who());
  if (!refusal.empty()) return refuse(client, refusal);
  if (stop_all()) {
    talk(client);
  } else {
    refuse(client, kCantStop);
  }
  detach_debugger();
  take_file_of(0, passed_files);  // what nobody took is closed
  client.finish();
}

void* run_debugger(void* /*argument*/) {
  begin_service_thread("dbos-debugger");
  for (;;) {
    pollfd woken = {sockets.debugger, POLLIN, 0};
    wait_for_events({&woken, 1}, -1);
    if (woken.revents == 0) continue;
    clear_wake_up();
    while (const auto client = next_client()) serve(*client);
  }
  return nullptr;
}

int keep_made(int descriptor) {
  if (descriptor < 0) throw StartError::with_errno("can't make a descriptor for debugging");
  return keep_descriptor(descriptor);
}

}  // namespace

void start_debugger() {
  waiting = new std::deque<std::shared_ptr<DebugChannel>>;  // the thread never ends
  passed_files = new std::vector<PassedFile>;
  const DebuggerSockets made = make_debugger_sockets();
  sockets = {keep_made(made.control), keep_made(made.debugger)};
  require_service_thread(kStackSize, run_debugger, nullptr, "that debugs for dbos-dbg");
}

std::shared_ptr<DebugChannel> open_debug_channel(std::string who, std::string_view input) {
  if (waiting == nullptr) return nullptr;
  auto channel = std::make_shared<DebugChannel>(std::move(who), sockets.control, sockets.debugger);
  const std::lock_guard guard(waiting_lock);  // who is woken finds it in the list
  channel->give(input);
  waiting->push_back(channel);
  return channel;
}

DebuggerSockets debugger_sockets() {
  return sockets;
}

void give_up_control_end() {
  if (sockets.control >= 0) close_kept(sockets.control);
}

}  // namespace dbos::vmm
