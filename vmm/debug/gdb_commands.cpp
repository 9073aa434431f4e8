#include "vmm/debug/gdb_commands.h"

#include <fmt/core.h>

#include <algorithm>
#include <csignal>

#include "vmm/debug/gdb_packet.h"
#include "vmm/debug/gdb_registers.h"

namespace dbos::vmm {
namespace {

constexpr const char* kOk = "OK";
constexpr const char* kBadPacket = "E16";   // EINVAL
constexpr const char* kBadAddress = "E0e";  // EFAULT
constexpr size_t kReadMax = kGdbPacketMax / 2 - 16;
constexpr size_t kActionsMax = 4096;

// "ADDRESS,LENGTH".
struct Range {
  uint64_t address;
  uint64_t length;
};
std::optional<Range> take_range(std::string_view* text) {
  const auto address = take_number(text);
  if (!address || !take_prefix(text, ",")) return std::nullopt;
  const auto length = take_number(text);
  if (!length) return std::nullopt;
  return Range{*address, *length};
}

std::optional<GdbAction> take_action(std::string_view* text) {
  if (text->empty()) return std::nullopt;
  const char kind = text->front();
  text->remove_prefix(1);
  GdbAction action{Run::kStay, 0, -1};
  if (kind == 'c' || kind == 'C') action.run = Run::kContinue;
  if (kind == 's' || kind == 'S') action.run = Run::kStep;
  if (action.run == Run::kStay && kind != 't') return std::nullopt;
  if (kind == 'C' || kind == 'S') {
    const auto signal = take_number(text);
    if (!signal || *signal > 255) return std::nullopt;
    action.signal = linux_signal(static_cast<int>(*signal));
  }
  if (!take_prefix(text, ":")) return action;
  const auto thread = take_thread(text);
  if (!thread) return std::nullopt;
  action.thread = *thread == 0 ? -1 : *thread;
  return action;
}

std::optional<BreakpointKind> kind_of(char letter) {
  switch (letter) {
    case '0':
      return BreakpointKind::kSoftware;
    case '1':
      return BreakpointKind::kHardwareExecute;
    case '2':
      return BreakpointKind::kHardwareWrite;
    case '4':
      return BreakpointKind::kHardwareAccess;
    default:
      return std::nullopt;  // 3: x86 has no watchpoint for reads alone
  }
}

}  // namespace

std::optional<std::vector<GdbAction>> parse_gdb_actions(std::string_view text) {
  std::vector<GdbAction> actions;
  while (actions.size() < kActionsMax) {
    const auto action = take_action(&text);
    if (!action) return std::nullopt;
    actions.push_back(*action);
    if (text.empty()) return actions;
    if (!take_prefix(&text, ";")) return std::nullopt;
  }
  return std::nullopt;
}

const GdbAction* find_gdb_action(const std::vector<GdbAction>& actions, uint32_t thread) {
  const auto found = std::find_if(actions.begin(), actions.end(), [&](const GdbAction& action) {
    return action.thread == -1 || action.thread == static_cast<int64_t>(thread);
  });
  return found == actions.end() ? nullptr : &*found;
}

std::optional<GdbTransfer> parse_gdb_transfer(std::string_view text) {
  GdbTransfer transfer{};
  const size_t object_end = text.find(':');
  if (object_end == std::string_view::npos) return std::nullopt;
  transfer.object = text.substr(0, object_end);
  text.remove_prefix(object_end);
  if (!take_prefix(&text, ":read:")) return std::nullopt;
  const size_t annex_end = text.find(':');
  if (annex_end == std::string_view::npos) return std::nullopt;
  transfer.annex = text.substr(0, annex_end);
  text.remove_prefix(annex_end + 1);
  const auto range = take_range(&text);
  if (!range || !text.empty()) return std::nullopt;
  transfer.offset = range->address;
  transfer.length = range->length;
  return transfer;
}

std::string gdb_transfer_part(std::string_view whole, const GdbTransfer& request) {
  if (request.offset >= whole.size()) return "l";
  const std::string_view part =
      whole.substr(request.offset, std::min<uint64_t>(request.length, kReadMax));
  const bool is_last = request.offset + part.size() == whole.size();
  return (is_last ? "l" : "m") + std::string(part);
}

std::string read_gdb_memory(std::string_view text) {
  const auto range = take_range(&text);
  if (!range || !text.empty()) return kBadPacket;
  std::vector<uint8_t> bytes(std::min<uint64_t>(range->length, kReadMax));
  bytes.resize(read_program(range->address, bytes.data(), bytes.size()));
  return bytes.empty() && range->length != 0 ? kBadAddress : to_hex(bytes);
}

std::string write_gdb_memory(std::string_view text, GdbData data) {
  const auto range = take_range(&text);
  if (!range || !take_prefix(&text, ":")) return kBadPacket;
  std::string bytes(text);
  if (data == GdbData::kHex) {
    const auto decoded = from_hex(text);
    if (!decoded) return kBadPacket;
    bytes = *decoded;
  }
  if (bytes.size() != range->length) return kBadPacket;
  if (bytes.empty()) return kOk;  // gdb asks whether X is known
  return write_program(range->address, bytes.data(), bytes.size()) == bytes.size() ? kOk
                                                                                   : kBadAddress;
}

std::string change_gdb_breakpoint(std::string_view text, GdbChange change) {
  if (text.empty()) return kBadPacket;
  const auto kind = kind_of(text.front());
  if (!kind) return {};
  text.remove_prefix(1);
  if (!take_prefix(&text, ",")) return kBadPacket;
  const auto range = take_range(&text);
  if (!range || !text.empty()) return kBadPacket;
  const BreakpointError error = change == GdbChange::kInsert
                                    ? insert_breakpoint(*kind, range->address, range->length)
                                    : remove_breakpoint(*kind, range->address, range->length);
  return error.text.empty() ? kOk : "E." + error.text;
}

std::string gdb_stop_text(const StopEvent& event, uint32_t thread, bool knows_software_breaks,
                          bool knows_hardware_breaks) {
  const int signal = event.signal != 0                      ? event.signal
                     : event.cause == StopCause::kRequested ? 0
                                                            : SIGTRAP;
  std::string text = fmt::format("T{:02x}", gdb_signal(signal));
  if (event.cause == StopCause::kWatchpoint) text += fmt::format("watch:{:x};", event.address);
  if (event.cause == StopCause::kBreakpoint && knows_software_breaks) text += "swbreak:;";
  if (event.cause == StopCause::kHardwareBreakpoint && knows_hardware_breaks) text += "hwbreak:;";
  return text + fmt::format("thread:{:x};", thread);
}

}  // namespace dbos::vmm
