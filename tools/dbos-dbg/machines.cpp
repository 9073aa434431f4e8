#include "tools/dbos-dbg/machines.h"

#include <fmt/core.h>
#include <grp.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <map>
#include <sstream>

#include "tools/dbos-dbg/connection.h"
#include "vmm/control/admission.h"
#include "vmm/control/control_request.h"
#include "vmm/printable.h"

namespace dbos::dbg {
namespace {

constexpr const char* kPrefix = "@dbos-run/";
constexpr const char* kListens = "00010000";  // __SO_ACCEPTCON

// The inodes of those that listen, by name. Each connection has its name in the list once more.
std::map<std::string, uint64_t> listening_sockets() {
  std::map<std::string, uint64_t> inodes;
  std::ifstream file("/proc/net/unix");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string skipped, flags, name;
    uint64_t inode = 0;
    fields >> skipped >> skipped >> skipped >> flags >> skipped >> skipped >> inode >> name;
    if (flags == kListens && name.starts_with(kPrefix)) inodes[name.substr(1)] = inode;
  }
  return inodes;
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

Machine describe(const std::string& socket_name, uint64_t inode) {
  const Connection::Peer peer = Connection(socket_name).peer();
  Machine machine{peer.process,
                  inode,
                  peer.user,
                  peer.group,
                  {socket_name, {}},
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

std::string secret_of(const Machine& machine) {
  const auto secret = vmm::find_secret(machine.process, machine.socket_inode);
  if (secret) return *secret;
  if (machine.process == 0) {
    throw Failure(
        "can't attach: the program runs in another pid namespace, which is not below this one");
  }
  throw Failure(fmt::format(
      "can't attach: Linux does not let this user look into process {} (it takes the same user and "
      "capabilities, or CAP_SYS_PTRACE), or it is a dbos-run of another version",
      machine.process));
}

// It may have been started by another release.
void check_protocol(const Machine& machine) {
  const Json hello = Connection(machine.address).ask("hello");
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
  for (const auto& [name, inode] : listening_sockets()) {
    if (!is_ours(name)) continue;
    try {
      machines.push_back(describe(name, inode));
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
  if (all.empty()) {
    throw Failure(
        "no program of yours runs under dbos-run here (root sees those of all users; those of a "
        "container are seen in its network namespace)");
  }
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
  Machine& machine = found.front();
  machine.address.secret = secret_of(machine);  // first: the owner may no longer be let in
  become_owner(machine);
  check_protocol(machine);
  return machine;
}

}  // namespace dbos::dbg
