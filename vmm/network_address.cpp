#include "vmm/network_address.h"

#include <netdb.h>

#include <charconv>
#include <stdexcept>

namespace dbos::vmm {
NetworkAddress parse_network_address(std::string_view text) {
  const size_t colon = text.rfind(':');
  NetworkAddress address;
  address.host = colon == std::string_view::npos ? "" : text.substr(0, colon);
  address.port = colon == std::string_view::npos ? text : text.substr(colon + 1);
  if (address.host.size() >= 2 && address.host.front() == '[' && address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
  } else if (address.host.find(':') != std::string::npos) {
    throw std::invalid_argument("has an IPv6 address without brackets; write [ADDRESS]:PORT");
  }
  if (address.host.empty()) address.host = "127.0.0.1";
  unsigned port = 0;
  const char* const end = address.port.data() + address.port.size();
  const auto [at, error] = std::from_chars(address.port.data(), end, port);
  if (error != std::errc() || at != end || port == 0 || port > 65535) {
    throw std::invalid_argument("has no port from 1 to 65535; write [HOST:]PORT");
  }
  return address;
}

bool is_ip_address(const std::string& host) {
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICHOST;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) return false;
  freeaddrinfo(found);
  return true;
}

}  // namespace dbos::vmm
