#include "vmm/control/debug_requests.h"

#include <fmt/core.h>

#include <vector>

#include "vmm/debug/gdb_packet.h"
#include "vmm/debug/gdb_registers.h"
#include "vmm/machine/kernel_image.h"

namespace dbos::vmm {
namespace {

constexpr uint64_t kReadMax = 64 * 1024;
constexpr uint32_t kWordBits = 64;

const char* name_of(StopCause cause) {
  switch (cause) {
    case StopCause::kNone:
    case StopCause::kRequested:
      return "interrupt";
    case StopCause::kBreakpoint:
    case StopCause::kHardwareBreakpoint:
      return "breakpoint";
    case StopCause::kWatchpoint:
      return "watchpoint";
    case StopCause::kStep:
      return "step";
    case StopCause::kSignal:
      return "signal";
  }
  return "unknown";
}

std::string text_argument(const Json& arguments, const char* name) {
  const auto found = arguments.find(name);
  if (found == arguments.end() || !found->is_string()) {
    throw CommandError(fmt::format("\"{}\" is missing, or is no text", name));
  }
  return found->get<std::string>();
}

uint64_t needed_number(const Json& arguments, const char* name) {
  const auto number = number_argument(arguments, name);
  if (!number) throw CommandError(fmt::format("\"{}\" is missing", name));
  return *number;
}

Json hello(const Json&) {
  const AddressRange auxiliary = auxiliary_vector_range();
  return {{"program", program_path()},
          {"auxiliary_begin", auxiliary.begin},
          {"auxiliary_end", auxiliary.end},
          {"kernel", kernel_identity()}};
}

Json threads(const Json&) {
  Json list = Json::array();
  for (const ThreadView& view : debugged_threads()) {
    Json json = {{"thread", view.thread_id},
                 {"process", view.process_id},
                 {"state", view.place == ThreadPlace::kHeld ? "held" : "in call"}};
    if (view.call_number != 0) json["call"] = view.call_number;
    list.push_back(std::move(json));
  }
  return list;
}

// Up to 64 bits as a number; wider ones, or those that are not known, as text.
Json value_json(std::span<const uint8_t> bytes) {
  if (bytes.empty()) return nullptr;
  if (bytes.size() * 8 > kWordBits) {
    const std::vector<uint8_t> reversed(bytes.rbegin(), bytes.rend());
    return "0x" + to_hex(reversed);
  }
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | bytes[i];
  return value;
}

Json registers(const Json& arguments) {
  const uint32_t vcpu = chosen_vcpu(arguments);
  Registers values;
  if (!read_registers(vcpu, &values)) throw CommandError("the thread's registers can't be read");
  const bool wants_all = flag_argument(arguments, "all");
  const bool has_avx = (extended_state_features() & kExtendedStateAvxBit) != 0;
  const Avx avx = has_avx ? Avx::kYes : Avx::kNo;
  const auto& list = gdb_registers(avx);
  Json named = Json::object();
  for (size_t i = 0; i < list.size(); ++i) {
    const bool is_general =
        list[i].feature.ends_with(".core") && list[i].type != "i387_ext" && list[i].type != "int";
    const bool is_base = list[i].feature.ends_with(".segments");
    if (wants_all || is_general || is_base) {
      named[list[i].name] = value_json(gdb_register_value(values, avx, i));
    }
  }
  Json json = {{"registers", std::move(named)}};
  if (values.system_call() >= 0) json["system_call"] = values.system_call();
  KernelPlace place{};
  const auto view = thread_on(vcpu);
  const bool is_in_call = view && view->place == ThreadPlace::kInCall;
  if (is_in_call && read_kernel_place(vcpu, &place)) {
    json["kernel"] = {{"instruction", place.instruction}, {"frame_pointer", place.frame_pointer}};
  }
  return json;
}

Json read_memory(const Json& arguments) {
  const uint64_t address = needed_number(arguments, "address");
  const uint64_t length = needed_number(arguments, "length");
  if (length > kReadMax) throw CommandError(fmt::format("at most {} bytes at once", kReadMax));
  std::vector<uint8_t> bytes(length);
  const bool is_program = address < kProgramEnd;
  bytes.resize(is_program ? read_program(address, bytes.data(), length)
                          : read_present(address, bytes.data(), length));
  return {{"bytes", to_hex(bytes)}};
}

struct Place {
  BreakpointKind kind;
  uint64_t address;
  uint64_t length;
};
Place place_of(const Json& arguments) {
  const std::string name = text_argument(arguments, "kind");
  Place place{BreakpointKind::kSoftware, needed_number(arguments, "address"),
              number_argument(arguments, "length").value_or(1)};
  if (name == "software") return place;
  if (name == "execute") {
    place.kind = BreakpointKind::kHardwareExecute;
  } else if (name == "write") {
    place.kind = BreakpointKind::kHardwareWrite;
  } else if (name == "access") {
    place.kind = BreakpointKind::kHardwareAccess;
  } else {
    throw CommandError("a breakpoint is of kind software, execute, write or access");
  }
  return place;
}

Json set_breakpoint(const Json& arguments) {
  const Place place = place_of(arguments);
  const BreakpointError error = insert_breakpoint(place.kind, place.address, place.length);
  if (error.text.empty()) return true;
  throw CommandError(error.text, error.no_debug_registers ? kNoDebugRegisters : "");
}

Json unset_breakpoint(const Json& arguments) {
  const Place place = place_of(arguments);
  const BreakpointError error = remove_breakpoint(place.kind, place.address, place.length);
  if (!error.text.empty()) throw CommandError(error.text);
  return true;
}

struct Request {
  const char* name;
  Json (*perform)(const Json& arguments);
};
constexpr Request kRequests[] = {
    {"debug", hello},      {"threads", threads},      {"registers", registers},
    {"read", read_memory}, {"break", set_breakpoint}, {"unbreak", unset_breakpoint},
};

}  // namespace

uint32_t chosen_vcpu(const Json& arguments) {
  const auto wanted = number_argument(arguments, "thread");
  if (const auto vcpu = vcpu_of_thread(wanted)) return *vcpu;
  throw CommandError(wanted ? fmt::format("the program has no thread {}", *wanted)
                            : "the program has no thread");
}

Json perform_debug_request(const ControlRequest& request) {
  for (const Request& known : kRequests) {
    if (request.command == known.name) return known.perform(request.arguments);
  }
  throw CommandError("there is no such command for a debugger");
}

Json stop_json(const StopEvent& event) {
  Json json = {{"event", "stop"}, {"cause", name_of(event.cause)}};
  if (const auto view = thread_on(event.vcpu)) json["thread"] = view->thread_id;
  if (event.cause == StopCause::kSignal) json["signal"] = event.signal;
  if (event.cause == StopCause::kWatchpoint) json["address"] = event.address;
  return json;
}

}  // namespace dbos::vmm
