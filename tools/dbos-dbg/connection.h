// The control socket of a machine: one JSON object a line, both ways.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

namespace dbos::dbg {

using Json = nlohmann::json;

// what(): one sentence for the user.
class Failure : public std::runtime_error {
 public:
  explicit Failure(const std::string& text, std::string code = {})
      : std::runtime_error(text), code_(std::move(code)) {}
  // That of a request that was refused, if it has one (vmm/control/control_request.h).
  const std::string& code() const { return code_; }

 private:
  std::string code_;
};

// Of wrong words on the command line: the exit status is another.
class UsageError : public Failure {
 public:
  using Failure::Failure;
};

// Where a machine is, and what its control thread wants to hear first (vmm/control/admission.h).
struct Address {
  std::string socket;  // the abstract name, without the NUL in front
  std::string secret;
};

class Connection {
 public:
  // To see who listens. Throws Failure where nobody does, or whose socket it should not be.
  explicit Connection(const std::string& socket_name);
  // To ask. Throws Failure where that is refused, too.
  explicit Connection(const Address& address);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // The process at the other end, as it is called here, and who has started it.
  struct Peer {
    pid_t process;
    uid_t user;
    gid_t group;
  };
  const Peer& peer() const { return peer_; }
  // For gdb's protocol, when the other end speaks that; nothing was received behind the answer.
  int socket() const { return socket_; }

  // The result. Throws Failure with what the other end complains of. Events that come before the
  // answer are dropped. `file`: a descriptor that goes with the request; -1: none.
  // kForATurn: ask() waits one turn after the other, without limit, for what takes its time. A
  // signal that came before receive() waits shows after a turn.
  enum class Wait { kForAnswer, kForATurn };
  Json ask(const std::string& command, const Json& arguments = Json::object(),
           Wait wait = Wait::kForAnswer, int file = -1);

  // The id that the answer will have.
  uint64_t send(const std::string& command, const Json& arguments, int file = -1);
  // The next line; nothing: the connection has ended, a signal came, or the turn is over. With
  // Wait::kForAnswer it throws Failure when none comes in time.
  std::optional<Json> receive(Wait wait);
  bool has_ended() const { return has_ended_; }

 private:
  int socket_ = -1;
  Peer peer_ = {};
  std::string buffer_;
  uint64_t last_id_ = 0;
  bool has_ended_ = false;
};

}  // namespace dbos::dbg
