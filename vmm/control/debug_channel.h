// The bytes of one dbos-dbg that debugs, between the control thread, which has its socket, and the
// debugger's thread, which has the vCPUs' descriptors.
//
// Thread-safe; nothing here waits. Each side wakes the other one by what it writes to a descriptor.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

namespace dbos::vmm {

class DebugChannel {
 public:
  // `who` names the client for others: "dbos-dbg, process 123".
  DebugChannel(std::string who, int wakes_debugger, int wakes_control)
      : who_(std::move(who)), wakes_debugger_(wakes_debugger), wakes_control_(wakes_control) {}

  const std::string& who() const { return who_; }
  // Of this client alone, whenever it came.
  uint64_t id() const { return id_; }

  // ---- The control thread's ----

  void give(std::string_view bytes);
  // Nothing more will come: the client has shut its side down, and still reads; or it is gone, and
  // what it asked is dropped.
  enum class Client { kReads, kGone };
  void close(Client client);
  // What was put since; empties it.
  std::string take_output();
  // Bytes that were given and not taken yet.
  size_t waiting() const;
  // No more output will come.
  bool is_over() const;

  // ---- The debugger's thread's ----

  // What was given since; empties it. `is_closed`: nothing comes after it.
  std::string take_input(bool* is_closed);
  // Nobody waits for answers any more.
  bool is_gone() const;
  void put(std::string_view bytes);
  void finish();

 private:
  static inline std::atomic<uint64_t> next_id{0};

  const uint64_t id_ = ++next_id;
  const std::string who_;
  const int wakes_debugger_;
  const int wakes_control_;
  mutable std::mutex lock_;
  std::string input_;
  std::string output_;
  bool is_closed_ = false;
  bool is_gone_ = false;
  bool is_over_ = false;
};

}  // namespace dbos::vmm
