#include "vmm/control/control_request.h"

#include <fmt/core.h>

#include <exception>

namespace dbos::vmm {
namespace {

constexpr int kDepthMax = 8;
constexpr size_t kCommandMax = 32;

Json parse_object(std::string_view line) {
  bool is_too_deep = false;
  const auto limit_depth = [&](int depth, Json::parse_event_t, Json&) {
    is_too_deep = is_too_deep || depth > kDepthMax;
    return !is_too_deep;
  };
  Json json = Json::parse(line.begin(), line.end(), limit_depth, false);
  if (is_too_deep) throw CommandError("the request is nested too deeply");
  if (!json.is_object()) throw CommandError("a request is one JSON object on one line");
  return json;
}

}  // namespace

ControlRequest parse_request(std::string_view line) {
  const Json json = parse_object(line);
  ControlRequest request;
  const auto id = json.find("id");
  if (id != json.end() && (id->is_number() || id->is_string())) request.id = *id;
  const auto command = json.find("command");
  if (command == json.end() || !command->is_string()) {
    throw CommandError("the request has no \"command\" with a name");
  }
  request.command = command->get<std::string>();
  if (request.command.size() > kCommandMax) throw CommandError("there is no such command");
  const auto arguments = json.find("arguments");
  if (arguments == json.end()) return request;
  if (!arguments->is_object()) throw CommandError("\"arguments\" is not an object");
  request.arguments = *arguments;
  return request;
}

namespace {

// What is not UTF-8 (a path, say) is replaced.
std::string line_of(Json& answer, const Json& id) {
  if (!id.is_null()) answer["id"] = id;
  return answer.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string answer_line(const ControlRequest& request, const Json& result) {
  Json answer = {{"ok", true}, {"result", result}};
  return line_of(answer, request.id);
}

std::string error_line(const Json& id, std::string_view error, std::string_view code) {
  Json answer = {{"ok", false}, {"error", error}};
  if (!code.empty()) answer["code"] = code;
  return line_of(answer, id);
}

std::string answer_request(std::string_view line, const RequestAnswer& answer) {
  ControlRequest request;
  try {
    request = parse_request(line);
    return answer(request);
  } catch (const CommandError& error) {
    return error_line(request.id, error.what(), error.code());
  } catch (const std::exception& error) {
    return error_line(request.id, fmt::format("the request failed: {}", error.what()));
  }
}

std::optional<std::string> LineBuffer::next() {
  const size_t end = buffer_.find('\n');
  if (end == std::string::npos ? buffer_.size() > kLineMax : end > kLineMax) {
    throw CommandError(fmt::format("the request is longer than {} bytes", kLineMax));
  }
  if (end == std::string::npos) return std::nullopt;
  std::string line = buffer_.substr(0, end);
  buffer_.erase(0, end + 1);
  return line;
}

std::optional<uint64_t> number_argument(const Json& arguments, const char* name) {
  const auto found = arguments.find(name);
  if (found == arguments.end() || found->is_null()) return std::nullopt;
  if (!found->is_number_unsigned()) {
    throw CommandError(fmt::format("\"{}\" is not a number from 0 on", name));
  }
  return found->get<uint64_t>();
}

bool flag_argument(const Json& arguments, const char* name) {
  const auto found = arguments.find(name);
  if (found == arguments.end() || found->is_null()) return false;
  if (!found->is_boolean()) throw CommandError(fmt::format("\"{}\" is not true or false", name));
  return found->get<bool>();
}

}  // namespace dbos::vmm
