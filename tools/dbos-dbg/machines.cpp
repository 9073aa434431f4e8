#include "tools/dbos-dbg/machines.h"

#include <fmt/format.h>
#include <grp.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "tools/dbos-dbg/connection.h"
#include "vmm/debug/control_request.h"
#include "vmm/printable.h"

namespace dbos::dbg {
namespace {

constexpr const char* kPrefix = "@dbos-run/";

// Each connection has its name in the list once more.
std::set<std::string> socket_names() {
  std::set<std::string> names;
  std::ifstream file("/proc/net/unix");
  for (std::string line; std::getline(file, line);) {
    const size_t at = line.find(kPrefix);
    if (at != std::string::npos) names.insert(line.substr(at + 1));
  }
  return names;
}

bool is_ours(const std::string& socket_name) {
  return geteuid() == 0 || socket_name.rfind(fmt::format("dbos-run/{}/", geteuid()), 0) == 0;
}

std::string text_of(const std::string& file) {
  std::ifstream stream(file);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

Machine describe(const std::string& socket_name) {
  const Connection::Peer peer = Connection(socket_name).peer();
  Machine machine{peer.process,
                  peer.user,
                  peer.group,
                  socket_name,
                  text_of(fmt::format("/proc/{}/comm", peer.process)),
                  text_of(fmt::format("/proc/{}/cmdline", peer.process))};
  while (!machine.name.empty() && machine.name.back() == '\n') machine.name.pop_back();
  machine.name = vmm::printable(machine.name);
  std::replace(machine.command.begin(), machine.command.end(), '\0', ' ');
  while (!machine.command.empty() && machine.command.back() == ' ') machine.command.pop_back();
  machine.command = vmm::printable(machine.command);
  return machine;
}

// Anybody may listen at such a name. Root looks at what is there, and reads the files that it
// names, with the rights of whoever has started it.
void become_owner(const Machine& machine) {
  if (geteuid() != 0 || machine.user == 0) return;
  const bool is_done = setgroups(0, nullptr) == 0 &&
                       setresgid(machine.group, machine.group, machine.group) == 0 &&
                       setresuid(machine.user, machine.user, machine.user) == 0;
  if (!is_done) throw Failure("can't become the user who has started the program");
}

// It may have been started by another release.
void check_protocol(const Machine& machine) {
  const Json hello = Connection(machine.socket).ask("hello");
  const int protocol = hello.value("protocol", 0);
  if (protocol == vmm::kControlProtocol) return;
  throw Failure(fmt::format(
      "{} runs under dbos-run {}, which speaks protocol {}, and this dbos-dbg {} speaks "
      "{}: use the dbos-dbg of that release",
      machine.name, hello.value("version", "?"), protocol, DBOS_VERSION, vmm::kControlProtocol));
}

std::string list_of(const std::vector<Machine>& machines) {
  std::string text;
  for (const Machine& machine : machines) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", machine.process, machine.name);
  }
  return text;
}

}  // namespace

std::vector<Machine> find_machines() {
  std::vector<Machine> machines;
  for (const std::string& name : socket_names()) {
    if (!is_ours(name)) continue;
    try {
      machines.push_back(describe(name));
    } catch (const Failure&) {
      continue;  // it has ended meanwhile
    }
  }
  std::sort(machines.begin(), machines.end(),
            [](const Machine& a, const Machine& b) { return a.process < b.process; });
  return machines;
}

Machine choose_machine(const std::string& wanted) {
  const std::vector<Machine> all = find_machines();
  if (all.empty()) throw Failure("no program of yours runs under dbos-run here");
  std::vector<Machine> found;
  for (const Machine& machine : all) {
    const bool fits =
        wanted.empty() || wanted == machine.name || wanted == std::to_string(machine.process);
    if (fits) found.push_back(machine);
  }
  if (found.empty()) {
    throw Failure(
        fmt::format("no program '{}' runs under dbos-run; there is: {}", wanted, list_of(all)));
  }
  if (found.size() > 1) {
    throw Failure(fmt::format("several programs run under dbos-run: {}; choose with -p PROCESS",
                              list_of(found)));
  }
  become_owner(found.front());
  check_protocol(found.front());
  return found.front();
}

}  // namespace dbos::dbg
