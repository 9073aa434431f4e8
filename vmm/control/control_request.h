// What comes over the control socket: one JSON object a line.
//   {"command": "pt", "arguments": {"address": 4096}, "id": 1}
// `arguments` and `id` may be left out; the answer repeats the id.
//   {"ok": true, "result": ..., "id": 1}   or   {"ok": false, "error": "one sentence", "id": 1}
// An error that a client can do something about has a "code", too, which does not change.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace dbos::vmm {

using Json = nlohmann::json;

// What "hello" answers as "protocol". To be counted up when a client of the release before could no
// longer read the answers.
inline constexpr int kControlProtocol = 1;

// The code of "break" where a watchpoint would never be hit: a debugger can step instead.
inline constexpr const char* kNoDebugRegisters = "no_debug_registers";

// what(): one sentence for the user of dbos-dbg.
class CommandError : public std::runtime_error {
 public:
  explicit CommandError(const std::string& sentence, const char* code = "")
      : std::runtime_error(sentence), code_(code) {}
  const char* code() const { return code_; }

 private:
  const char* code_;
};

struct ControlRequest {
  std::string command;
  Json arguments = Json::object();
  Json id;  // null: none was given
};

// Throws CommandError. Any input will do.
ControlRequest parse_request(std::string_view line);

std::string answer_line(const ControlRequest& request, const Json& result);
std::string error_line(const Json& id, std::string_view error, std::string_view code = {});

// What `answer` gives for the line's request; an error's line where it throws, or where the line is
// no request.
using RequestAnswer = std::function<std::string(const ControlRequest& request)>;
std::string answer_request(std::string_view line, const RequestAnswer& answer);

// Bytes as they come, lines as they are complete.
class LineBuffer {
 public:
  static constexpr size_t kLineMax = 64 * 1024;

  void append(std::string_view bytes) { buffer_ += bytes; }
  // The next line without its end; nothing: it is not complete yet. Throws CommandError for a line
  // that is longer than kLineMax.
  std::optional<std::string> next();
  // What came behind the last line; empties it.
  std::string take_rest() { return std::exchange(buffer_, {}); }

 private:
  std::string buffer_;
};

// Arguments of commands. Throw CommandError for one of another kind.
std::optional<uint64_t> number_argument(const Json& arguments, const char* name);
bool flag_argument(const Json& arguments, const char* name);

}  // namespace dbos::vmm
