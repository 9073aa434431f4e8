// One dbos-dbg that debugs: requests as in control_request.h, and the answers. Bytes in, bytes out.
//
// The first request is "debug"; the program is stopped then. What the requests do is stop.h's;
// symbols, expressions and unwinding are dbos-dbg's own, so that no file that the program names is
// parsed in this process.
//
//   debug {}                         {"program", "auxiliary_begin", "auxiliary_end", "kernel"}
//   threads {}                       [{"thread", "process", "state": "held" | "in call", "call"}]
//   registers {thread, all}          {"registers": {name: number or "0x..."}, "system_call",
//                                     "kernel": {"instruction", "frame_pointer"}}
//   read {address, length}           {"bytes": hexadecimal}: as far as it could be read
//   break, unbreak {address, kind, length}   kind: "software", "execute", "write", "access"
//   run {thread, step}               the program goes on: all of it, or one instruction of a thread
//   interrupt {}                     ... and stops
//   core {thread}                    writes a core to the file that came with it (passed_file.h)
//   gdb {}                           from here on the bytes are gdb's remote protocol
//
// While the program runs only "interrupt" is answered; it stops with a line of its own:
//   {"event": "stop", "cause", "thread", "signal", "address"}, {"event": "end", "status", "signal"}
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "vmm/control/control_request.h"
#include "vmm/debug/gdb_session.h"
#include "vmm/debug/stop.h"

namespace dbos::vmm {

class DebugSession {
 public:
  // The calling thread is attached (stop.h) and the program is stopped. `take_file`: the file that
  // came with the last request, as a kept descriptor; -1: there is none.
  explicit DebugSession(std::function<int()> take_file) : take_file_(std::move(take_file)) {}

  // Keeps requests for answer_next(); gdb's packets are answered at once.
  void receive(std::string_view bytes);
  // Answers one request. False: none is complete.
  bool answer_next();
  // To be called when debug_event_descriptor() was readable.
  void handle_events();
  // What is to be sent to the client; empties it.
  std::string take_output();
  // The program has ended, gdb has gone, or what came was no request.
  bool is_over() const;

 private:
  Json perform(const ControlRequest& request);
  Json run(const Json& arguments);
  Json write_core(const Json& arguments);
  Json begin_gdb();
  void report_next();
  void report(const StopEvent& event);
  void go_on();
  void answer(const std::string& line);

  std::function<int()> take_file_;
  LineBuffer lines_;
  std::string output_;
  std::unique_ptr<GdbSession> gdb_;
  std::optional<uint32_t> stepping_;  // the vCPU that the client steps, while the others run
  bool is_running_ = false;
  bool is_over_ = false;
};

// The answer to a client that can't be served: an error for the first request of `input`.
std::string refused_request(std::string_view input, const std::string& why);

}  // namespace dbos::vmm
