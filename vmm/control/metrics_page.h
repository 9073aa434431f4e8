// The HTTP of --metrics: one request, one page, and the connection ends.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace dbos::vmm {

inline constexpr size_t kHttpRequestMax = 8 * 1024;

// The answer to what has come so far; nothing: the request is not complete. `text` makes the page.
std::optional<std::string> http_answer(std::string_view request,
                                       const std::function<std::string()>& text);

}  // namespace dbos::vmm
