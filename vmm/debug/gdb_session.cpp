#include "vmm/debug/gdb_session.h"

#include <asm/unistd.h>
#include <algorithm>
#include <csignal>

#include <fmt/core.h>

#include "vmm/debug/gdb_commands.h"
#include "vmm/host/host_call.h"

namespace dbos::vmm {
namespace {

constexpr const char* kOk = "OK";
constexpr const char* kUnknown = "";
constexpr const char* kBadPacket = "E16";  // EINVAL
constexpr const char* kNotThere = "E03";   // ESRCH
constexpr uint32_t kNoThread = 0;

// gdb shows its user what is behind "E.".
constexpr const char* kNotHeld =
    "E.the thread is in a system call, which is not interrupted for a debugger";

// 0 and below: any.
std::optional<uint32_t> vcpu_of(int64_t thread) {
  if (thread <= 0) return vcpu_of_thread({});
  return vcpu_of_thread(static_cast<uint64_t>(thread));
}

}  // namespace

GdbSession::GdbSession()
    : avx_((extended_state_features() & kExtendedStateAvxBit) != 0 ? Avx::kYes : Avx::kNo) {
  // gdb asks why the program stands ('?'): what was not reported before it came is no news to it.
  while (const auto event = take_event()) stop_ = event;
}

void GdbSession::receive(std::string_view bytes) {
  reader_.add(bytes);
  while (!is_over_) {
    const auto input = reader_.next();
    if (!input) return;
    handle_input(*input);
  }
}

std::string GdbSession::take_output() {
  std::string output;
  output.swap(output_);
  return output;
}

void GdbSession::handle_input(const GdbInput& input) {
  switch (input.kind) {
    case GdbInput::Kind::kAccepted:
      return;
    case GdbInput::Kind::kRejected:
      output_ += last_packet_;
      return;
    case GdbInput::Kind::kDamaged:
      if (acknowledges_) output_ += '-';
      return;
    case GdbInput::Kind::kInterrupt:
      interrupt();
      return;
    case GdbInput::Kind::kPacket:
      break;
  }
  if (acknowledges_) output_ += '+';
  // While the program runs gdb waits; what it sends nevertheless is not answered.
  if (is_running_) return;
  if (const auto reply = handle(input.text)) answer(*reply);
}

void GdbSession::answer(std::string_view text) {
  last_packet_ = make_gdb_packet(text);
  output_ += last_packet_;
}

std::optional<std::string> GdbSession::handle(std::string_view packet) {
  if (packet.empty()) return kUnknown;
  const char kind = packet.front();
  std::string_view text = packet.substr(1);
  switch (kind) {
    case '?':
      return stop_reply();
    case 'g':
      return read_all_registers();
    case 'G':
      return write_all_registers(text);
    case 'p':
      return read_one_register(text);
    case 'P':
      return write_one_register(text);
    case 'm':
      return read_gdb_memory(text);
    case 'M':
      return write_gdb_memory(text, GdbData::kHex);
    case 'X':
      return write_gdb_memory(text, GdbData::kBinary);
    case 'Z':
      return change_gdb_breakpoint(text, GdbChange::kInsert);
    case 'z':
      return change_gdb_breakpoint(text, GdbChange::kRemove);
    case 'H':
      return select_thread(text);
    case 'T': {
      const auto thread = take_thread(&text);
      return thread && vcpu_of(*thread) ? kOk : kNotThere;
    }
    case 'c':
    case 's':
    case 'C':
    case 'S':
      return handle_old_resume(kind, text);
    case 'v':
      return handle_v(text);
    case 'q':
    case 'Q':
      return handle_query(packet);
    case 'D':
      is_over_ = true;
      return kOk;
    case 'k':
      raw_call(__NR_kill, own_process_id(), SIGKILL);
      is_over_ = true;
      return std::nullopt;
    default:
      return kUnknown;
  }
}

// ---- Registers ----

std::string GdbSession::read_all_registers() const {
  Registers registers;
  const auto vcpu = selected_vcpu();
  if (!vcpu || !read_registers(*vcpu, &registers)) return kNotThere;
  return gdb_all_registers(registers, avx_);
}

std::string GdbSession::write_all_registers(std::string_view text) const {
  Registers registers;
  const auto vcpu = selected_vcpu();
  if (!vcpu || !read_registers(*vcpu, &registers)) return kNotThere;
  if (!set_gdb_all_registers(&registers, avx_, text)) return kBadPacket;
  if (write_registers(*vcpu, registers)) return kOk;
  return kNotHeld;
}

std::string GdbSession::read_one_register(std::string_view text) const {
  const auto number = take_number(&text);
  if (!number || !text.empty() || *number >= gdb_registers(avx_).size()) return kBadPacket;
  Registers registers;
  const auto vcpu = selected_vcpu();
  if (!vcpu || !read_registers(*vcpu, &registers)) return kNotThere;
  const auto value = gdb_register_value(registers, avx_, *number);
  return value.empty() ? std::string(gdb_registers(avx_)[*number].bits / 4, 'x') : to_hex(value);
}

std::string GdbSession::write_one_register(std::string_view text) const {
  const auto number = take_number(&text);
  if (!number || !take_prefix(&text, "=")) return kBadPacket;
  const auto bytes = from_hex(text);
  if (!bytes) return kBadPacket;
  Registers registers;
  const auto vcpu = selected_vcpu();
  if (!vcpu || !read_registers(*vcpu, &registers)) return kNotThere;
  const std::span value(reinterpret_cast<const uint8_t*>(bytes->data()), bytes->size());
  if (!set_gdb_register(&registers, avx_, *number, value)) return kBadPacket;
  if (write_registers(*vcpu, registers)) return kOk;
  return kNotHeld;
}

// ---- Threads ----

std::optional<uint32_t> GdbSession::selected_vcpu() const {
  if (selected_thread_ > 0) return vcpu_of(selected_thread_);
  return stop_ ? std::optional(stop_->vcpu) : vcpu_of(0);
}

std::string GdbSession::select_thread(std::string_view text) {
  if (text.empty()) return kBadPacket;
  const char what = text.front();
  text.remove_prefix(1);
  const auto thread = take_thread(&text);
  if (!thread || !text.empty()) return kBadPacket;
  if (!vcpu_of(*thread)) return kNotThere;
  if (what != 'g' && what != 'c') return kUnknown;
  (what == 'g' ? selected_thread_ : continued_thread_) = *thread;
  return kOk;
}

std::string GdbSession::thread_list() const {
  std::string text = "m";
  for (const ThreadView& view : debugged_threads()) {
    if (text.size() > 1) text += ',';
    text += fmt::format("{:x}", view.thread_id);
  }
  return text.size() > 1 ? text : "l";
}

std::string GdbSession::threads_document() const {
  std::string xml = "<?xml version=\"1.0\"?><threads>";
  for (const ThreadView& view : debugged_threads()) {
    xml += fmt::format("<thread id=\"{:x}\">", view.thread_id);
    if (view.place == ThreadPlace::kInCall) xml += "in a host call";
    xml += "</thread>";
  }
  return xml + "</threads>";
}

// ---- Queries ----

std::string GdbSession::handle_query(std::string_view text) {
  if (take_prefix(&text, "qSupported")) {
    knows_software_breaks_ = text.find("swbreak+") != std::string_view::npos;
    knows_hardware_breaks_ = text.find("hwbreak+") != std::string_view::npos;
    return fmt::format(
        "PacketSize={:x};QStartNoAckMode+;swbreak+;hwbreak+;vContSupported+;qXfer:features:read+;"
        "qXfer:auxv:read+;qXfer:exec-file:read+;qXfer:threads:read+",
        kGdbPacketMax);
  }
  if (text == "QStartNoAckMode") {
    acknowledges_ = false;
    return kOk;
  }
  if (take_prefix(&text, "qXfer:")) return handle_transfer(text);
  if (text == "qfThreadInfo") return thread_list();
  if (text == "qsThreadInfo") return "l";
  if (take_prefix(&text, "qAttached")) return "1";  // gdb detaches when it quits
  if (text == "qC") {
    const auto vcpu = selected_vcpu();
    const auto view = vcpu ? thread_on(*vcpu) : std::nullopt;
    if (!view) return kNotThere;
    return fmt::format("QC{:x}", view->thread_id);
  }
  if (take_prefix(&text, "qSymbol:")) return kOk;
  return kUnknown;
}

std::string GdbSession::handle_transfer(std::string_view text) {
  const auto request = parse_gdb_transfer(text);
  if (!request) return kBadPacket;
  if (request->object == "features") {
    if (request->annex != "target.xml") return "E00";
    return gdb_transfer_part(gdb_target_description(avx_), *request);
  }
  if (request->object == "auxv") {
    const std::vector<uint8_t> bytes = read_auxiliary_vector();
    return gdb_transfer_part({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, *request);
  }
  if (request->object == "exec-file") return gdb_transfer_part(program_path(), *request);
  if (request->object == "threads") return gdb_transfer_part(threads_document(), *request);
  return kUnknown;
}

// ---- Going on and stopping ----

std::optional<std::string> GdbSession::handle_v(std::string_view text) {
  if (text == "Cont?") return "vCont;c;C;s;S;t";
  if (take_prefix(&text, "Kill")) {
    answer(kOk);
    return handle("k");
  }
  if (!take_prefix(&text, "Cont;")) return kUnknown;
  const auto parsed = parse_gdb_actions(text);
  if (!parsed) return kBadPacket;
  return run_actions(*parsed);
}

std::optional<std::string> GdbSession::handle_old_resume(char kind, std::string_view text) {
  GdbAction action{kind == 's' || kind == 'S' ? Run::kStep : Run::kContinue, 0, continued_thread_};
  if (kind == 'C' || kind == 'S') {
    const auto signal = take_number(&text);
    if (!signal) return kBadPacket;
    action.signal = linux_signal(static_cast<int>(*signal & 0xff));
  }
  if (!text.empty()) return kBadPacket;  // an address to go on from
  if (action.thread == 0) action.thread = kEveryThread;
  return run_actions({action});
}

std::optional<std::string> GdbSession::run_actions(const std::vector<GdbAction>& actions) {
  std::vector<ThreadRun> runs;
  for (const ThreadView& view : debugged_threads()) {
    const GdbAction* const action = find_gdb_action(actions, view.thread_id);
    if (action == nullptr) {
      runs.push_back({view.vcpu, Run::kStay, 0});
    } else {
      runs.push_back({view.vcpu, action->run, action->signal});
    }
  }
  // Of threads that come to be meanwhile.
  const bool lets_all_go = find_gdb_action(actions, kNoThread) != nullptr;
  const auto goes = std::find_if(runs.begin(), runs.end(),
                                 [](const ThreadRun& run) { return run.run != Run::kStay; });
  if (goes == runs.end()) return stop_reply();
  if (!is_stopped() && !stop_all()) return std::string("E.") + kCantStop;
  running_vcpu_ = goes->vcpu;
  resume(runs, lets_all_go ? Run::kContinue : Run::kStay);
  is_running_ = true;
  if (is_stopped()) report_next();     // something waited to be reported first
  if (process_end()) handle_events();  // it came while the program was stopped: nobody rings again
  return std::nullopt;
}

void GdbSession::interrupt() {
  if (!is_running_) return;
  stop_all();
  is_running_ = false;
  stop_ = take_event();
  if (!stop_) {
    // gdb expects a thread that it has let go.
    const auto vcpu = thread_on(running_vcpu_) ? std::optional(running_vcpu_) : vcpu_of(0);
    if (vcpu) stop_ = StopEvent{*vcpu, StopCause::kRequested, SIGINT, 0};
  }
  answer(stop_reply());
}

void GdbSession::handle_events() {
  serve_children();
  if (!is_running_ || is_over_) return;
  if (const auto end = process_end()) {
    answer(end->by_signal ? fmt::format("X{:02x}", gdb_signal(end->status))
                          : fmt::format("W{:02x}", end->status & 0xff));
    is_running_ = false;
    is_over_ = true;
    return;
  }
  report_next();
}

void GdbSession::report_next() {
  const auto event = take_event();
  if (!event) return;
  stop_all();
  is_running_ = false;
  stop_ = event;
  selected_thread_ = 0;
  answer(stop_reply());
}

std::string GdbSession::stop_reply() {
  if (!stop_) {
    const auto vcpu = vcpu_of(0);
    if (!vcpu) return "W00";
    stop_ = StopEvent{*vcpu, StopCause::kRequested, 0, 0};
  }
  const auto view = thread_on(stop_->vcpu);
  return gdb_stop_text(*stop_, view ? view->thread_id : 0, knows_software_breaks_,
                       knows_hardware_breaks_);
}

}  // namespace dbos::vmm
