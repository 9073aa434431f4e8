#include "vmm/control/metrics_page.h"

#include <fmt/core.h>

namespace dbos::vmm {
namespace {

std::string page(std::string_view status, std::string_view type, std::string_view body) {
  return fmt::format(
      "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}",
      status, type, body.size(), body);
}

std::string refusal(std::string_view status) {
  return page(status, "text/plain", fmt::format("{}\n", status));
}

}  // namespace

std::optional<std::string> http_answer(std::string_view request,
                                       const std::function<std::string()>& text) {
  const size_t line_end = request.find("\r\n");
  const bool is_complete = request.find("\r\n\r\n") != std::string_view::npos;
  if (!is_complete && request.size() >= kHttpRequestMax) {
    return refusal("431 Request Header Fields Too Large");
  }
  if (!is_complete) return std::nullopt;
  const std::string_view line = request.substr(0, line_end);
  const size_t method_end = line.find(' ');
  const size_t path_end = line.find(' ', method_end == std::string_view::npos ? 0 : method_end + 1);
  if (method_end == std::string_view::npos || path_end == std::string_view::npos ||
      path_end <= method_end || line.substr(path_end + 1, 5) != "HTTP/") {
    return refusal("400 Bad Request");
  }
  const std::string_view method = line.substr(0, method_end);
  std::string_view path = line.substr(method_end + 1, path_end - method_end - 1);
  path = path.substr(0, path.find('?'));
  if (method != "GET") return refusal("405 Method Not Allowed");
  if (path != "/metrics") return refusal("404 Not Found");
  return page("200 OK", "text/plain; version=0.0.4; charset=utf-8", text());
}

}  // namespace dbos::vmm
