// The parts of gdb's packets that need no session: their arguments, memory, breakpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/debug/stop.h"

namespace dbos::vmm {

// One action of vCont.
struct GdbAction {
  Run run;
  int signal;      // Linux's; 0: none
  int64_t thread;  // Linux's id; -1: every one that no action before names
};

// "c:p1;s" and so on, without "vCont;". Empty: damaged.
std::optional<std::vector<GdbAction>> parse_gdb_actions(std::string_view text);
// The first one that fits; null: none.
const GdbAction* find_gdb_action(const std::vector<GdbAction>& actions, uint32_t thread);

// "OBJECT:read:ANNEX:OFFSET,LENGTH".
struct GdbTransfer {
  std::string object;
  std::string annex;
  uint64_t offset;
  uint64_t length;
};
std::optional<GdbTransfer> parse_gdb_transfer(std::string_view text);
// The reply: 'm' or, with the last part, 'l' in front.
std::string gdb_transfer_part(std::string_view whole, const GdbTransfer& request);

enum class GdbData { kHex, kBinary };
enum class GdbChange { kInsert, kRemove };

// The replies to m, M and X, Z and z, from behind the letter.
std::string read_gdb_memory(std::string_view text);
std::string write_gdb_memory(std::string_view text, GdbData data);
std::string change_gdb_breakpoint(std::string_view text, GdbChange change);

// The reply that says why and where the program stands.
std::string gdb_stop_text(const StopEvent& event, uint32_t thread, bool knows_software_breaks,
                          bool knows_hardware_breaks);

}  // namespace dbos::vmm
