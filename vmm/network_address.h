// Where --metrics listens.
#pragma once

#include <string>
#include <string_view>

namespace dbos::vmm {

struct NetworkAddress {
  std::string host;
  std::string port;
};

// "9100", ":9100" (both: 127.0.0.1), "0.0.0.0:9100", "[::1]:9100". Throws std::invalid_argument,
// whose what() is a sentence without its subject.
NetworkAddress parse_network_address(std::string_view text);

// Not a name, that somebody would have to look up.
bool is_ip_address(const std::string& host);

}  // namespace dbos::vmm
