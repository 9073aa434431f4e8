#include "tools/dbos-dbg/connection.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "vmm/host/descriptor_message.h"
#include "vmm/printable.h"

namespace dbos::dbg {
namespace {

constexpr int kPatience_ms = 10'000;  // for an answer: the other end never waits for the guest
constexpr int kTurn_ms = 1000;

// Names and texts come from the program's memory, and may hold what a terminal obeys.
void make_printable(Json& json, char kept) {
  if (json.is_structured()) {
    for (Json& part : json) make_printable(part, kept);
  } else if (json.is_string()) {
    auto& text = json.get_ref<std::string&>();
    vmm::make_printable(text.data(), text.size(), kept);
  }
}

// A result that is a text by itself, that of `metrics`, has lines.
void make_answer_printable(Json& answer) {
  for (auto& part : answer.items()) {
    const bool has_lines = part.key() == "result" && part.value().is_string();
    make_printable(part.value(), has_lines ? '\n' : ' ');
  }
}

}  // namespace

Connection::Connection(const std::string& socket_name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const size_t size = std::min(socket_name.size(), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, socket_name.data(), size);
  socket_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_ < 0) throw Failure(std::string("can't make a socket: ") + std::strerror(errno));
  // A dbos-run that is stopped, or on its way out, accepts nobody; connect() would wait for it.
  const timeval patience = {kPatience_ms / 1000, 0};
  setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + size);
  if (connect(socket_, reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    const int error = errno;
    close(socket_);
    throw Failure(std::string("can't attach: ") + std::strerror(error));
  }
  ucred credentials = {};
  socklen_t credentials_size = sizeof credentials;
  getsockopt(socket_, SOL_SOCKET, SO_PEERCRED, &credentials, &credentials_size);
  // Anybody may bind a name; what another user's process says is not believed.
  if (geteuid() != 0 && credentials.uid != geteuid() && credentials.uid != 0) {
    close(socket_);
    throw Failure("can't attach: the socket belongs to another user");
  }
  peer_ = {credentials.pid, credentials.uid, credentials.gid};
}

Connection::Connection(const Address& address) : Connection(address.socket) {
  ask("attach", {{"secret", address.secret}});
}

Connection::~Connection() {
  close(socket_);
}

uint64_t Connection::send(const std::string& command, const Json& arguments, int file) {
  const Json request = {{"command", command}, {"arguments", arguments}, {"id", ++last_id_}};
  const std::string line = request.dump() + "\n";
  if (vmm::send_with_file(socket_, line.data(), line.size(), file) !=
      static_cast<ssize_t>(line.size())) {
    throw Failure("the program has ended, or refuses to be looked at");
  }
  return last_id_;
}

std::optional<Json> Connection::receive(Wait wait) {
  for (;;) {
    const size_t end = buffer_.find('\n');
    if (end != std::string::npos) {
      Json json = Json::parse(buffer_.substr(0, end), nullptr, false);
      buffer_.erase(0, end + 1);
      if (json.is_object()) {
        make_answer_printable(json);
        return json;
      }
      throw Failure("dbos-run's answer can't be read: is it of another version?");
    }
    pollfd waiting = {socket_, POLLIN, 0};
    const int ready = poll(&waiting, 1, wait == Wait::kForAnswer ? kPatience_ms : kTurn_ms);
    if (ready == 0 && wait == Wait::kForAnswer) throw Failure("dbos-run does not answer");
    if (ready <= 0) return std::nullopt;
    char bytes[64 * 1024];
    const ssize_t size = recv(socket_, bytes, sizeof bytes, 0);
    if (size <= 0) {
      has_ended_ = size == 0 || errno != EINTR;
      return std::nullopt;
    }
    buffer_.append(bytes, static_cast<size_t>(size));
  }
}

Json Connection::ask(const std::string& command, const Json& arguments, Wait wait, int file) {
  const uint64_t id = send(command, arguments, file);
  for (;;) {
    std::optional<Json> answer = receive(wait);
    if (!answer && !has_ended_) continue;
    if (!answer) throw Failure("the program has ended, or refuses to be looked at");
    // An event, or the answer to what was not waited for.
    if (!answer->contains("ok") || answer->value("id", id) != id) continue;
    if ((*answer)["ok"] == true) return (*answer)["result"];
    throw Failure(answer->value("error", "the request failed"), answer->value("code", ""));
  }
}

}  // namespace dbos::dbg
