// The control thread: answers dbos-dbg on a Unix socket, and scrapers of metrics over HTTP.
//
// The socket is @dbos-run/UID/PID in Linux's abstract namespace: it is in no folder and goes with
// the process, however that ends. Only who may look into the process is answered (admission.h).
//
// The program does not notice: the thread has a table of descriptors of its own, takes no signal,
// is not in /proc/self/task, and never waits for a client or for the guest. What a client asks for
// ends with its connection.
#pragma once

#include <optional>
#include <string>

#include "vmm/machine/machine.h"
#include "vmm/network_address.h"

namespace dbos::vmm {

struct ControlOptions {
  bool has_socket = true;
  std::optional<NetworkAddress> metrics;
};

// Starts the thread, if there is anything for it to do, and returns when it listens. Throws
// StartError where it can't listen for metrics. A socket's name that is taken is only logged.
void start_control(Machine& machine, const ControlOptions& options);

// The abstract socket's name, without the NUL in front.
std::string control_socket_name(unsigned user_id, int process_id);

}  // namespace dbos::vmm
