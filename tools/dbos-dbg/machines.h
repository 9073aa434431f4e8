// The machines that run: each dbos-run listens on @dbos-run/UID/PID (vmm/control/control_server.h).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tools/dbos-dbg/connection.h"

namespace dbos::dbg {

struct Machine {
  pid_t process;
  uint64_t socket_inode;
  uid_t user;  // who has started it
  gid_t group;
  Address address;
  std::string name;     // of the process
  std::string command;  // its arguments, dbos-run's own included
};

// Those of this user, by process id; without their secrets.
std::vector<Machine> find_machines();

// The one that `wanted` names: a process id, a name, or, when it is empty, the only one there is;
// with its secret. From here on root has the rights of that machine's user only. Throws Failure,
// also where it speaks another protocol than this dbos-dbg.
Machine choose_machine(const std::string& wanted);

}  // namespace dbos::dbg
