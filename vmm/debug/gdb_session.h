// One gdb: what its packets ask for, and the answers. Bytes in, bytes out; the sockets are
// gdb_server.cpp's.
//
// The session is all-stop: gdb is told of one stop, and no thread of the program goes on before gdb
// says so. Memory, registers and breakpoints are those of vmm/debug/stop.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/debug/gdb_commands.h"
#include "vmm/debug/gdb_packet.h"
#include "vmm/debug/gdb_registers.h"
#include "vmm/debug/stop.h"

namespace dbos::vmm {

class GdbSession {
 public:
  // The calling thread is attached (stop.h) and the program is stopped.
  GdbSession();

  // Takes what gdb sent.
  void receive(std::string_view bytes);
  // To be called when debug_event_descriptor() is readable.
  void handle_events();

  // What is to be sent to gdb; empties it.
  std::string take_output();
  // gdb detached, killed the program, or was told of its end: the connection can be closed.
  bool is_over() const { return is_over_; }

 private:
  static constexpr int64_t kEveryThread = -1;

  void handle_input(const GdbInput& input);
  void answer(std::string_view text);
  // An empty answer says that a packet is not known.
  std::optional<std::string> handle(std::string_view packet);
  std::string handle_query(std::string_view text);
  std::string handle_transfer(std::string_view text);
  std::string select_thread(std::string_view text);
  std::string read_all_registers() const;
  std::string write_all_registers(std::string_view text) const;
  std::string read_one_register(std::string_view text) const;
  std::string write_one_register(std::string_view text) const;
  std::optional<std::string> handle_v(std::string_view text);
  std::optional<std::string> handle_old_resume(char kind, std::string_view text);
  std::optional<std::string> run_actions(const std::vector<GdbAction>& actions);

  void interrupt();
  void report_next();
  std::string stop_reply();
  std::string thread_list() const;
  std::string threads_document() const;
  std::optional<uint32_t> selected_vcpu() const;

  GdbPacketReader reader_;
  std::string output_;
  std::string last_packet_;  // for '-'
  Avx avx_;
  bool acknowledges_ = true;
  bool knows_software_breaks_ = false;
  bool knows_hardware_breaks_ = false;
  bool is_running_ = false;
  bool is_over_ = false;
  std::optional<StopEvent> stop_;            // the last that gdb was told of
  uint32_t running_vcpu_ = 0;                // of the threads that gdb let go last, one
  int64_t selected_thread_ = 0;              // Hg
  int64_t continued_thread_ = kEveryThread;  // Hc, for the old packets
};

}  // namespace dbos::vmm
