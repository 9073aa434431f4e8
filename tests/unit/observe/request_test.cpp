// The control socket's requests and answers.
#include <catch2/catch.hpp>
#include <string>

#include "vmm/control/control_request.h"
#include "vmm/control/figures_json.h"

namespace dbos::vmm {

TEST_CASE("a request has a command, and perhaps arguments and an id") {
  ControlRequest request = parse_request(R"({"command": "ps"})");
  REQUIRE(request.command == "ps");
  REQUIRE(request.arguments == Json::object());
  REQUIRE(request.id.is_null());
  request = parse_request(R"({"id": 7, "command": "pt", "arguments": {"address": 4096}})");
  REQUIRE(number_argument(request.arguments, "address") == 4096);
  REQUIRE_FALSE(number_argument(request.arguments, "space"));
  REQUIRE(answer_line(request, {{"mapped", true}}) ==
          "{\"id\":7,\"ok\":true,\"result\":{\"mapped\":true}}\n");
  REQUIRE(error_line(request.id, "no") == "{\"error\":\"no\",\"id\":7,\"ok\":false}\n");
  REQUIRE(error_line({}, "no", "why") == "{\"code\":\"why\",\"error\":\"no\",\"ok\":false}\n");
}

TEST_CASE("what is no request is refused with a sentence") {
  for (const char* text :
       {"", "x", "[]", "7", "{}", "{\"command\": 7}", "{\"command\": \"ps\", \"arguments\": []}",
        "{\"command\": \"ps\"} {}", "{\"command\": \"a name that is longer than any command is\"}",
        "{\"command\": \"ps\", \"arguments\": {\"a\": [[[[[[[[[[]]]]]]]]]]}}"}) {
    INFO(text);
    REQUIRE_THROWS_AS(parse_request(text), CommandError);
  }
  REQUIRE_THROWS_AS(parse_request(std::string(60'000, '[')), CommandError);
}

TEST_CASE("arguments of the wrong kind are refused") {
  const Json arguments = {{"a", "1"}, {"b", -1}, {"c", 1.5}, {"d", 1}, {"e", nullptr}};
  for (const char* name : {"a", "b", "c"}) {
    REQUIRE_THROWS_AS(number_argument(arguments, name), CommandError);
  }
  REQUIRE_THROWS_AS(flag_argument(arguments, "d"), CommandError);
  REQUIRE_FALSE(flag_argument(arguments, "e"));
  REQUIRE_FALSE(number_argument(arguments, "e"));
}

TEST_CASE("lines come out whole, however they came in") {
  LineBuffer lines;
  lines.append("{\"a\"");
  REQUIRE_FALSE(lines.next());
  lines.append(":1}\n{}\n\nrest");
  REQUIRE(*lines.next() == "{\"a\":1}");
  REQUIRE(*lines.next() == "{}");
  REQUIRE(lines.next()->empty());
  REQUIRE_FALSE(lines.next());
  lines.append(std::string(LineBuffer::kLineMax, 'x'));
  REQUIRE_THROWS_AS(lines.next(), CommandError);
}

TEST_CASE("answers hold only what was counted") {
  Figures figures{};
  figures.calls.resize(kCallIndexCount);
  figures.calls[1].count = 3;
  figures.calls[1].latency.add(9);
  const Json calls = calls_json(figures);
  REQUIRE(calls["calls"].size() == 1);
  REQUIRE(calls["calls"][0]["name"] == "write");
  REQUIRE(calls["calls"][0]["where"] == "linux");
  REQUIRE(calls["calls"][0]["latency"]["buckets"] == Json({0, 0, 0, 1}));
  REQUIRE(exits_json(figures)["exits"].size() == kExitKindCount);
}

TEST_CASE("a vCPU whose counters a guest made up is summed without harm") {
  Figures figures{};
  const auto counters = std::make_unique<VcpuCounters>();
  std::fill_n(reinterpret_cast<uint8_t*>(counters.get()), sizeof *counters, uint8_t{0xff});
  add_counters(figures, *counters);
  REQUIRE(figures.calls.size() == kCallIndexCount);
  REQUIRE(figures.calls[0].timed() == 0);  // row 255 is none
}

}  // namespace dbos::vmm
