// Fuzzes what the control thread reads from its sockets: requests of dbos-dbg, line by line, and
// the HTTP of --metrics. Whatever comes, it is parsed or refused with a sentence, and the answer is
// one line of JSON.
//
// With libFuzzer: clang++ -fsanitize=fuzzer,address -DDBOS_LIBFUZZER. Otherwise a program that
// changes sound requests at random: control_fuzz [seconds] [seed].
#include <iterator>
#include <stdexcept>
#include <string>

#include "tests/fuzz/rounds.h"
#include "vmm/control/metrics_page.h"
#include "vmm/control/trace_filter.h"
#include "vmm/network_address.h"

namespace {

using namespace dbos::vmm;
using dbos::test::accepted;
using dbos::test::fail;

void check_answer(const std::string& line) {
  const Json answer = Json::parse(line, nullptr, false);
  const bool is_one_line = line.find('\n') == line.size() - 1;
  if (!is_one_line || !answer.is_object() || !answer.contains("ok")) fail("answer: " + line);
}

void run_line(const std::string& line) {
  ControlRequest request;
  try {
    request = parse_request(line);
    ++accepted;
    number_argument(request.arguments, "address");
    flag_argument(request.arguments, "on");
    parse_trace_filter(request.arguments);
    check_answer(answer_line(request, request.arguments));
  } catch (const CommandError& error) {
    check_answer(error_line(request.id, error.what()));
  }
}

void run(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  LineBuffer lines;
  try {
    // In two parts, as a socket may give it.
    lines.append(std::string_view(text).substr(0, size / 3));
    while (const auto line = lines.next()) run_line(*line);
    lines.append(std::string_view(text).substr(size / 3));
    while (const auto line = lines.next()) run_line(*line);
  } catch (const CommandError&) {
  }
  const auto page = http_answer(text, [] { return std::string("x 1\n"); });
  if (page && page->rfind("HTTP/1.1 ", 0) != 0) fail("page: " + *page);
  try {
    parse_network_address(text);
  } catch (const std::invalid_argument&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run(data, size);
  return 0;
}

#ifndef DBOS_LIBFUZZER
namespace {

constexpr const char* kSound[] = {
    R"({"command":"pt","arguments":{"address":140000000000,"space":4711},"id":1}
)",
    R"({"command":"trace","arguments":{"calls":["read","write"],"in_guest":true,"process":1}}
{"command":"trace_stop"}
)",
    R"({"command":"time_all","arguments":{"on":true},"id":"x"}
)",
    "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "[::1]:9100",
};

std::string changed(dbos::test::Random& random) {
  std::string text = kSound[random() % std::size(kSound)];
  for (uint64_t changes = random() % 6; changes > 0; --changes) {
    const size_t at = random() % (text.size() + 1);
    switch (random() % 4) {
      case 0:
        text.insert(at, 1, static_cast<char>(random()));
        break;
      case 1:
        text.erase(at, random() % 8);
        break;
      case 2:
        text.insert(at, std::string(random() % 200, "[{\"0,:\n"[random() % 7]));
        break;
      default:
        text.insert(at, kSound[random() % std::size(kSound)]);
    }
  }
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  return dbos::test::fuzz_main(argc, argv, changed);
}
#endif
