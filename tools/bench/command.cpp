#include "tools/bench/command.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <tuple>
#include <utility>

#include "tools/bench/timing.h"

namespace dbos::bench {
namespace {

constexpr size_t kChildrenMax = 8;
constexpr size_t kErrorLineMax = 200;  // characters of a child's message that a report repeats

// Process groups that are alive; 0: free. Read by the signal handler.
volatile pid_t groups[kChildrenMax] = {};

void remember(pid_t group) {
  for (volatile pid_t& slot : groups) {
    if (slot != 0) continue;
    slot = group;
    return;
  }
}

void forget(pid_t group) {
  for (volatile pid_t& slot : groups) {
    if (slot == group) slot = 0;
  }
}

void end_all(int signal_number) {
  for (const volatile pid_t& slot : groups) {
    const pid_t group = slot;
    if (group > 0) kill(-group, SIGKILL);
  }
  signal(signal_number, SIG_DFL);
  raise(signal_number);
}

std::pair<Descriptor, Descriptor> make_pipe() {
  int ends[2] = {};
  if (pipe2(ends, O_CLOEXEC) != 0) throw Failure("no pipe: " + std::string(std::strerror(errno)));
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

[[noreturn]] void execute(const Command& command, int output, int errors) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int nothing = open("/dev/null", O_RDWR);
  dup2(nothing, STDIN_FILENO);
  dup2(output < 0 ? nothing : output, STDOUT_FILENO);
  dup2(errors < 0 ? nothing : errors, STDERR_FILENO);
  std::vector<char*> arguments;
  for (const std::string& argument : command) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  execvp(arguments[0], arguments.data());
  dprintf(STDERR_FILENO, "cannot run %s: %s\n", arguments[0], std::strerror(errno));
  _exit(127);
}

// Reads what is there. Result: whether more may come.
bool read_available(Descriptor& end, std::string& text) {
  std::array<char, 1 << 16> buffer;
  for (;;) {
    const ssize_t size = read(end.number(), buffer.data(), buffer.size());
    if (size > 0) {
      text.append(buffer.data(), static_cast<size_t>(size));
      continue;
    }
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && errno == EAGAIN) return true;
    end.close();
    return false;
  }
}

std::string first_line(const std::string& text) {
  return text.substr(0, std::min(text.find('\n'), kErrorLineMax));
}

}  // namespace

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

void Descriptor::close() {
  if (number_ >= 0) ::close(number_);
  number_ = -1;
}

Process::Process(const Command& command, Output output) : name_(command.front()) {
  Descriptor output_write;
  Descriptor errors_write;
  if (output == Output::kCapture) {
    std::tie(output_end_, output_write) = make_pipe();
    std::tie(errors_end_, errors_write) = make_pipe();
  }
  id_ = fork();
  if (id_ < 0) throw Failure(fmt::format("fork: {}", std::strerror(errno)));
  if (id_ == 0) execute(command, output_write.number(), errors_write.number());
  setpgid(id_, id_);
  remember(id_);
  handle_ = Descriptor(static_cast<int>(syscall(SYS_pidfd_open, id_, 0)));
  for (const Descriptor* end : {&output_end_, &errors_end_}) {
    if (end->number() >= 0) fcntl(end->number(), F_SETFL, O_NONBLOCK);
  }
}

Process::~Process() {
  kill_group();
  if (!reaped_) reap();
}

bool Process::is_alive() const {
  pollfd ended = {handle_.number(), POLLIN, 0};
  return !reaped_ && poll(&ended, 1, 0) == 0;
}

void Process::kill_group() {
  if (!reaped_) kill(-id_, SIGKILL);
}

void Process::reap() {
  while (waitpid(id_, &status_, 0) < 0 && errno == EINTR) {
  }
  forget(id_);
  reaped_ = true;
}

// Result: whether the process ended in time.
bool Process::collect(Seconds timeout) {
  const double end = now_ns() + timeout.count() * 1e9;
  for (;;) {
    std::array<pollfd, 3> sources = {{{handle_.number(), POLLIN, 0},
                                      {output_end_.number(), POLLIN, 0},
                                      {errors_end_.number(), POLLIN, 0}}};
    const double left_ms = (end - now_ns()) / 1e6;
    if (left_ms <= 0) return false;
    if (poll(sources.data(), sources.size(), static_cast<int>(left_ms) + 1) < 0) continue;
    if (sources[1].revents != 0) read_available(output_end_, output_);
    if (sources[2].revents != 0) read_available(errors_end_, errors_);
    if (sources[0].revents != 0) return true;
  }
}

void Process::await(Seconds timeout) {
  const bool ended = collect(timeout);
  kill_group();  // also what it may have left behind
  reap();
  if (output_end_.number() >= 0) read_available(output_end_, output_);
  if (errors_end_.number() >= 0) read_available(errors_end_, errors_);
  if (!ended) throw Failure(fmt::format("{} was not done after {} s", name_, timeout.count()));
}

bool Process::succeeded() const {
  return reaped_ && WIFEXITED(status_) && WEXITSTATUS(status_) == 0;
}

std::string Process::how_it_ended() const {
  const std::string how = WIFSIGNALED(status_)
                              ? fmt::format("was killed by signal {}", WTERMSIG(status_))
                              : fmt::format("ended with status {}", WEXITSTATUS(status_));
  const std::string why = first_line(errors_.empty() ? output_ : errors_);
  return fmt::format("{} {}{}{}", name_, how, why.empty() ? "" : ": ", why);
}

std::string output_of(const Command& command, Seconds timeout) {
  Process process(command, Output::kCapture);
  process.await(timeout);
  if (!process.succeeded()) throw Failure(process.how_it_ended());
  return process.output();
}

double milliseconds_of(const Command& command, Seconds timeout) {
  const double begin = now_ns();
  Process process(command, Output::kDiscard);
  process.await(timeout);
  const double taken = (now_ns() - begin) / 1e6;
  if (!process.succeeded()) throw Failure(process.how_it_ended());
  return taken;
}

void end_children_with_us() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) signal(number, end_all);
}

}  // namespace dbos::bench
