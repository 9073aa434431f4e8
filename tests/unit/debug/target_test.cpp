// dbos-dbg's commands at a program (fake_program.h) behind a control socket of this process.
#include <fmt/core.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <catch2/catch.hpp>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "tests/unit/debug/fake_program.h"
#include "tools/dbos-dbg/debug_commands.h"
#include "vmm/control/debug_session.h"

using dbos::dbg::DebugCommands;
using dbos::dbg::Target;
using dbos::vmm::Json;
using dbos::vmm::StopCause;

namespace {

// Serves one dbos-dbg, in a thread of its own, which alone has to do with the program meanwhile.
class Server {
 public:
  // `has_resumed` is called with how often the program was resumed.
  explicit Server(std::function<void(uint32_t)> has_resumed)
      : name_(fmt::format("dbos-target-test-{}", getpid())), has_resumed_(std::move(has_resumed)) {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    name_.copy(address.sun_path + 1, name_.size());
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name_.size());
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(bind(listener_, reinterpret_cast<const sockaddr*>(&address), size) == 0);
    REQUIRE(listen(listener_, 1) == 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~Server() {
    shutdown(listener_, SHUT_RDWR);  // where nobody came
    thread_.join();
    close(listener_);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  dbos::dbg::Address address() const { return {name_, "secret"}; }

 private:
  void serve() {
    const int client = accept(listener_, nullptr, nullptr);
    dbos::vmm::DebugSession session([] { return -1; });
    uint32_t resumes = 0;
    bool is_admitted = false;
    char bytes[4096];
    for (ssize_t size = 0; (size = recv(client, bytes, sizeof bytes, 0)) > 0;) {
      std::string output = R"({"ok": true, "id": 1, "result": true})"
                           "\n";
      if (std::exchange(is_admitted, true)) {
        session.receive({bytes, static_cast<size_t>(size)});
        while (session.answer_next()) {
          if (fake::program().resumes != resumes) has_resumed_(resumes = fake::program().resumes);
          session.handle_events();
        }
        output = session.take_output();
      }
      send(client, output.data(), output.size(), MSG_NOSIGNAL);
    }
    close(client);
  }

  std::string name_;
  std::function<void(uint32_t)> has_resumed_;
  int listener_ = -1;
  std::thread thread_;
};

void make_program() {
  fake::reset().registers[0].general.rip = fake::kMemoryBegin;
}

// As the terminal does, while the program is resumed for the third time; it ends each step.
void step_and_interrupt(pthread_t debugger, uint32_t resumes) {
  fake::program().events.push_back({0, StopCause::kStep, 0, 0});
  if (resumes == 3) pthread_kill(debugger, SIGINT);
}

}  // namespace

TEST_CASE("Ctrl-C ends many steps, and not the debugger") {
  make_program();
  const Server server([self = pthread_self()](uint32_t n) { step_and_interrupt(self, n); });
  Target target(server.address());
  DebugCommands commands(target);
  REQUIRE(commands.perform({"step", "4"}).json["cause"] == "interrupt");
  REQUIRE(commands.perform({"step", "4"}).json["cause"] == "step");
  REQUIRE(commands.perform({"regs"}).json["registers"]["rip"] == fake::kMemoryBegin);
}

TEST_CASE("Ctrl-C ends watching by steps, and not the debugger") {
  make_program();
  fake::program().has_debug_registers = false;
  const Server server([self = pthread_self()](uint32_t n) { step_and_interrupt(self, n); });
  Target target(server.address());
  DebugCommands commands(target);
  REQUIRE(commands.perform({"watch", "0x1010"}).json["kind"] == "stepped");
  REQUIRE(commands.perform({"continue"}).json["cause"] == "interrupt");
  REQUIRE(commands.perform({"step"}).json["cause"] == "step");
}

TEST_CASE("Ctrl-C stops a program that goes on") {
  make_program();
  const Server server([self = pthread_self()](uint32_t) { pthread_kill(self, SIGINT); });
  Target target(server.address());
  DebugCommands commands(target);
  REQUIRE(commands.perform({"continue"}).json["cause"] == "interrupt");
  REQUIRE(commands.perform({"continue"}).json["cause"] == "interrupt");
  REQUIRE(commands.perform({"regs"}).json["registers"]["rip"] == fake::kMemoryBegin);
}

TEST_CASE("Ctrl-C at a program that can't be stopped is tried again") {
  make_program();
  const Server server([](uint32_t) { fake::program().refused_stops = 2; });  // of one interrupt
  Target target(server.address());
  DebugCommands commands(target);
  const auto before = std::signal(SIGINT, SIG_IGN);  // when nobody waits
  std::atomic<bool> is_stopped{false};
  std::thread impatient([&is_stopped, self = pthread_self()] {
    while (!is_stopped) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      pthread_kill(self, SIGINT);
    }
  });
  const auto answer = commands.perform({"continue"});
  is_stopped = true;
  impatient.join();
  std::signal(SIGINT, before);
  REQUIRE(answer.json["cause"] == "interrupt");
}
