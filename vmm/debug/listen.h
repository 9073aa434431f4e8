// The sockets that the control thread listens on. -errno where that fails.
#pragma once

#include <string>

#include "vmm/network_address.h"

namespace dbos::vmm {

int listen_on_abstract_socket(const std::string& name);
int listen_on_network(const NetworkAddress& address);

// Whether the process at the other end of a Unix socket may look at ours. `peer`: its id.
bool may_control(int socket, int* peer);

}  // namespace dbos::vmm
