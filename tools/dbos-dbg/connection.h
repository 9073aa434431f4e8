// The control socket of a machine: one JSON object a line, both ways.
#pragma once

#include <sys/types.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>

namespace dbos::dbg {

using Json = nlohmann::json;

// what(): one sentence for the user.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Connection {
 public:
  // Throws Failure where nobody listens, or somebody whose socket it should not be.
  explicit Connection(const std::string& socket_name);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // The process at the other end, as it is called here.
  pid_t peer() const { return peer_; }

  // The result. Throws Failure with what the other end complains of. Events that come before the
  // answer are dropped.
  Json ask(const std::string& command, const Json& arguments = Json::object());

  void send(const std::string& command, const Json& arguments);
  // The next line; nothing: the connection has ended, or a signal came. Without Wait::kForever it
  // throws Failure when none comes in time.
  enum class Wait { kForAnswer, kForever };
  std::optional<Json> receive(Wait wait);

 private:
  int socket_ = -1;
  pid_t peer_ = 0;
  std::string buffer_;
};

}  // namespace dbos::dbg
