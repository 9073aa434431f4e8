// Fuzzes what a dbos-dbg that debugs sends to the debugger's thread: requests line by line, and
// from "gdb" on gdb's remote protocol. Behind it is a program that is a few bytes of memory. Each
// line is answered with one line of JSON, and the program is left as it is.
//
// With libFuzzer: clang++ -fsanitize=fuzzer,address -DDBOS_LIBFUZZER. Otherwise a program that
// changes sound requests at random: debug_fuzz [seconds] [seed].
#include <iterator>
#include <string>

#include "tests/fuzz/rounds.h"
#include "tests/unit/debug/fake_program.h"
#include "vmm/control/debug_session.h"

namespace {

using dbos::test::accepted;
using dbos::test::fail;
using dbos::vmm::DebugSession;
using dbos::vmm::Json;

// Answers and events, up to where gdb's protocol begins.
void check_output(const std::string& output) {
  for (size_t at = 0; at < output.size() && output[at] == '{';) {
    const size_t end = output.find('\n', at);
    if (end == std::string::npos) fail("no whole line: " + output.substr(at));
    const Json line = Json::parse(output.substr(at, end - at), nullptr, false);
    if (!line.is_object() || (!line.contains("ok") && !line.contains("event"))) fail(line.dump());
    if (line.value("ok", false)) ++accepted;
    at = end + 1;
  }
}

// gdb's 'k' and vKill would kill the harness.
std::string without_killing(std::string text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == 'K' || (text[i] == 'k' && i > 0 && text[i - 1] == '$')) text[i] = 'g';
  }
  return text;
}

void run(const uint8_t* data, size_t size) {
  const std::string whole = without_killing({reinterpret_cast<const char*>(data), size});
  const std::string_view text = whole;
  fake::Program& program = fake::reset();
  DebugSession session([] { return -1; });
  // In two parts, as a socket may give it, with a stop between them.
  session.receive(text.substr(0, size / 2));
  while (session.answer_next()) {
  }
  program.events.push_back({0, dbos::vmm::StopCause::kBreakpoint, 0, 0});
  session.handle_events();
  session.receive(text.substr(size / 2));
  while (session.answer_next()) {
  }
  check_output(session.take_output());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  run(data, size);
  return 0;
}

#ifndef DBOS_LIBFUZZER
namespace {

constexpr const char* kSound[] = {
    "{\"command\":\"debug\",\"id\":1}\n",
    "{\"command\":\"threads\"}\n{\"command\":\"registers\",\"arguments\":{\"thread\":101,\"all\":"
    "true}}\n",
    "{\"command\":\"read\",\"arguments\":{\"address\":4096,\"length\":64}}\n",
    "{\"command\":\"break\",\"arguments\":{\"address\":4096,\"kind\":\"write\",\"length\":8}}\n",
    "{\"command\":\"unbreak\",\"arguments\":{\"address\":4096,\"kind\":\"write\",\"length\":8}}\n",
    "{\"command\":\"run\",\"arguments\":{\"step\":true,\"thread\":100}}\n{\"command\":"
    "\"interrupt\"}\n",
    "{\"command\":\"core\",\"arguments\":{\"path\":\"/x\"}}\n",
    "{\"command\":\"gdb\"}\n$g#67$m1000,4#8e",
};

std::string changed(dbos::test::Random& random) {
  std::string text;
  for (uint64_t parts = 1 + random() % 4; parts > 0; --parts) {
    text += kSound[random() % std::size(kSound)];
  }
  for (uint64_t changes = random() % 6; changes > 0; --changes) {
    const size_t at = random() % (text.size() + 1);
    switch (random() % 3) {
      case 0:
        text.insert(at, 1, "{}[]\":,0987654321-.e \n"[random() % 22]);
        break;
      case 1:
        text.erase(at, random() % 8);
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
