// Sockets that listen, and at which accept() does not wait. -errno where that fails.
#pragma once

#include <string>

#include "vmm/network_address.h"

namespace dbos::vmm {

int listen_on_abstract_socket(const std::string& name);
// Only the owner may connect. The socket of somebody who is gone is removed, any other file stays.
int listen_at_path(const std::string& path);
int listen_on_network(const NetworkAddress& address);

// The next connection, whose calls do not wait; -1: there is none, or it can't be taken now. Pauses
// in that case: the listener stays readable, and must not be asked without pause.
int accept_connection(int listener);

// Whether the process at the other end of a Unix socket may say that it may look at ours
// (admission.h): those of other users take no client's place. `peer`: its id; 0: it has none here.
bool may_ask(int socket, int* peer);

}  // namespace dbos::vmm
