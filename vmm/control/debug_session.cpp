#include "vmm/control/debug_session.h"

#include "vmm/control/debug_requests.h"
#include "vmm/debug/crash_report.h"

namespace dbos::vmm {

void DebugSession::receive(std::string_view bytes) {
  if (gdb_) return gdb_->receive(bytes);
  lines_.append(bytes);
}

bool DebugSession::answer_next() {
  if (gdb_ || is_over_) return false;
  try {
    const auto line = lines_.next();
    if (line) answer(*line);
    return line.has_value();
  } catch (const CommandError& error) {
    output_ += error_line({}, error.what());
    is_over_ = true;
    return false;
  }
}

void DebugSession::answer(const std::string& line) {
  bool interrupts = false;
  output_ += answer_request(line, [&](const ControlRequest& request) {
    interrupts = request.command == "interrupt";
    return answer_line(request, perform(request));
  });
  // Behind the answer: what an interrupt found, or what waited to be reported before a run.
  if (is_running_ && is_stopped()) report_next();
  if (is_running_ && interrupts && stop_all()) {
    report({chosen_vcpu(Json::object()), StopCause::kRequested, 0, 0});
  }
}

Json DebugSession::perform(const ControlRequest& request) {
  const bool interrupts = request.command == "interrupt";
  if (is_running_ && !interrupts) {
    throw CommandError("the program runs: stop it with \"interrupt\" first");
  }
  if (!is_running_ && interrupts) throw CommandError("the program is stopped already");
  if (!is_stopped() && !stop_all()) {
    throw CommandError(kCantStop);
  }
  if (interrupts) return true;
  if (request.command == "run") return run(request.arguments);
  if (request.command == "gdb") return begin_gdb();
  if (request.command == "core") return write_core(request.arguments);
  return perform_debug_request(request);
}

// What came behind the request is gdb's already.
Json DebugSession::begin_gdb() {
  gdb_ = std::make_unique<GdbSession>();
  gdb_->receive(lines_.take_rest());
  return true;
}

Json DebugSession::run(const Json& arguments) {
  const bool steps = flag_argument(arguments, "step");
  const uint32_t chosen = chosen_vcpu(arguments);  // it must be there in any case
  stepping_ = steps ? std::optional(chosen) : std::nullopt;
  is_running_ = true;
  go_on();
  return true;
}

void DebugSession::go_on() {
  const ThreadRun step{stepping_.value_or(0), Run::kStep, kOwnSignal};
  resume({&step, stepping_ ? size_t{1} : size_t{0}}, Run::kContinue);
}

Json DebugSession::write_core(const Json& arguments) {
  const uint32_t vcpu = chosen_vcpu(arguments);
  const int file = take_file_();
  if (file < 0) throw CommandError("no file came with the request");
  const std::string error = write_core_into(file, vcpu, 0);
  if (!error.empty()) throw CommandError(error);
  return true;
}

void DebugSession::handle_events() {
  if (gdb_) return gdb_->handle_events();
  serve_children();
  if (is_over_) return;
  if (const auto end = process_end()) {
    Json json = {{"event", "end"}};
    json[end->by_signal ? "signal" : "status"] = end->status;
    output_ += json.dump() + "\n";
    is_over_ = true;
    return;
  }
  if (is_running_) report_next();
}

// Threads that stopped for a signal which the program lives with go on, once nothing else is to be
// reported; one that is stepped goes on with that.
void DebugSession::report_next() {
  bool has_passed = false;
  while (const auto event = take_event()) {
    const bool goes_on = stop_all();  // else it would stand, and nobody would be told
    const bool passes = goes_on && event->cause == StopCause::kSignal && !dumps_core(event->signal);
    if (!passes) return report(*event);
    has_passed = true;
  }
  if (has_passed) go_on();
}

void DebugSession::report(const StopEvent& event) {
  is_running_ = false;
  output_ += stop_json(event).dump() + "\n";
}

std::string DebugSession::take_output() {
  std::string output;
  output.swap(output_);
  if (gdb_) output += gdb_->take_output();
  return output;
}

bool DebugSession::is_over() const {
  return is_over_ || (gdb_ && gdb_->is_over());
}

std::string refused_request(std::string_view input, const std::string& why) {
  ControlRequest request;
  try {
    request = parse_request(input.substr(0, input.find('\n')));
  } catch (const CommandError&) {  // it is refused without its id
  }
  return error_line(request.id, why);
}

}  // namespace dbos::vmm
