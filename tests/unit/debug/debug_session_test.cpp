#include <catch2/catch.hpp>

#include <csignal>
#include <utility>

#include "tests/unit/debug/fake_program.h"
#include "vmm/control/debug_session.h"

using dbos::vmm::DebugSession;
using dbos::vmm::Json;
using dbos::vmm::Run;
using dbos::vmm::StopCause;

namespace {

int no_file() {
  return -1;
}

std::vector<Json> lines_of(const std::string& text) {
  std::vector<Json> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    REQUIRE(end != std::string::npos);
    lines.push_back(Json::parse(text.substr(at, end - at)));
    at = end + 1;
  }
  return lines;
}

// All lines that come for one request.
std::vector<Json> ask(DebugSession& session, const char* command, Json arguments = Json::object()) {
  const Json request = {{"command", command}, {"arguments", std::move(arguments)}, {"id", 5}};
  session.receive(request.dump() + "\n");
  REQUIRE(session.answer_next());
  REQUIRE_FALSE(session.answer_next());
  return lines_of(session.take_output());
}

Json result(DebugSession& session, const char* command, Json arguments = Json::object()) {
  const auto lines = ask(session, command, std::move(arguments));
  REQUIRE(lines.size() == 1);
  INFO(lines[0].dump());
  REQUIRE(lines[0]["ok"] == true);
  REQUIRE(lines[0]["id"] == 5);
  return lines[0]["result"];
}

std::string error(DebugSession& session, const char* command, Json arguments = Json::object()) {
  const auto lines = ask(session, command, std::move(arguments));
  REQUIRE(lines.size() == 1);
  REQUIRE(lines[0]["ok"] == false);
  return lines[0]["error"];
}

}  // namespace

TEST_CASE("a debugger sees the threads, their registers and the memory") {
  fake::reset();
  DebugSession session(no_file);
  REQUIRE(result(session, "debug")["program"] == "/bin/program");
  const Json threads = result(session, "threads");
  REQUIRE(threads.size() == 2);
  REQUIRE(threads[0] == Json{{"thread", 0x64}, {"process", 0x64}, {"state", "held"}});
  REQUIRE(threads[1]["state"] == "in call");
  REQUIRE(result(session, "registers")["registers"]["rip"] == 0x400000);
  const Json second = result(session, "registers", {{"thread", 0x65}});
  REQUIRE(second["registers"]["rip"] == 0x400001);
  REQUIRE(second["kernel"]["instruction"] == 0xffffffff80001000);
  REQUIRE_FALSE(second["registers"].contains("xmm0"));
  const Json all = result(session, "registers", {{"all", true}});
  REQUIRE(all["registers"]["xmm0"].get<std::string>().size() == 34);
  REQUIRE(result(session, "read", {{"address", 0x1001}, {"length", 3}})["bytes"] == "010203");
  REQUIRE(result(session, "read", {{"address", 0x10fe}, {"length", 9}})["bytes"] == "feff");
  REQUIRE(result(session, "read", {{"address", 1}, {"length", 9}})["bytes"] == "");
}

TEST_CASE("what a debugger asks wrongly is refused with a sentence") {
  fake::reset();
  DebugSession session(no_file);
  REQUIRE(error(session, "registers", {{"thread", 9}}) == "the program has no thread 9");
  REQUIRE(error(session, "read", {{"address", 0}}) == "\"length\" is missing");
  REQUIRE(error(session, "read", {{"address", 0}, {"length", 65537}}) ==
          "at most 65536 bytes at once");
  REQUIRE(error(session, "break", {{"kind", "soft"}, {"address", 1}}).find("of kind") !=
          std::string::npos);
  REQUIRE(error(session, "break", {{"address", 1}}).find("\"kind\"") != std::string::npos);
  REQUIRE(error(session, "core") == "no file came with the request");
  REQUIRE(error(session, "core", {{"thread", 9}}) == "the program has no thread 9");
  REQUIRE(error(session, "trace") == "there is no such command for a debugger");
  REQUIRE(error(session, "interrupt") == "the program is stopped already");
  REQUIRE_FALSE(session.is_over());
  session.receive(std::string(70'000, 'x'));
  REQUIRE_FALSE(session.answer_next());
  REQUIRE(lines_of(session.take_output())[0]["ok"] == false);
  REQUIRE(session.is_over());
}

TEST_CASE("a core goes to the file that came with the request, and nowhere else") {
  fake::reset();
  int file = 7;
  DebugSession session([&file] { return std::exchange(file, -1); });
  REQUIRE(result(session, "core", {{"path", "/etc/passwd"}}) == true);
  REQUIRE(fake::program().core_file == 7);
  REQUIRE(error(session, "core") == "no file came with the request");
  file = 8;
  fake::program().core_error = "that is no regular file";
  REQUIRE(error(session, "core") == "that is no regular file");
}

TEST_CASE("a watchpoint that this machine can't have is refused with a code") {
  fake::Program& program = fake::reset();
  DebugSession session(no_file);
  const Json watchpoint = {{"kind", "write"}, {"address", 0x1008}, {"length", 8}};
  REQUIRE(result(session, "break", watchpoint) == true);
  program.has_debug_registers = false;
  REQUIRE(ask(session, "break", watchpoint)[0]["code"] == dbos::vmm::kNoDebugRegisters);
  const Json too_long = {{"kind", "access"}, {"address", 3}, {"length", 99}};
  REQUIRE_FALSE(ask(session, "break", too_long)[0].contains("code"));
}

TEST_CASE("a program that goes on says when and why it stops") {
  fake::Program& program = fake::reset();
  DebugSession session(no_file);
  REQUIRE(result(session, "break", {{"kind", "software"}, {"address", 0x1004}}) == true);
  REQUIRE(program.breakpoints.size() == 1);
  REQUIRE(result(session, "run") == true);
  REQUIRE(program.resumes == 1);
  REQUIRE(program.runs.empty());  // all go on
  REQUIRE(error(session, "registers").find("the program runs") == 0);
  program.events.push_back({0, StopCause::kBreakpoint, 0, 0});
  session.handle_events();
  REQUIRE(program.is_stopped);
  REQUIRE(lines_of(session.take_output()) ==
          std::vector<Json>{{{"event", "stop"}, {"cause", "breakpoint"}, {"thread", 0x64}}});
  REQUIRE(result(session, "unbreak", {{"kind", "software"}, {"address", 0x1004}}) == true);

  REQUIRE(result(session, "run", {{"step", true}, {"thread", 0x64}}) == true);
  REQUIRE(program.runs.size() == 1);
  REQUIRE(program.runs[0].run == Run::kStep);
  session.handle_events();
  REQUIRE(session.take_output().empty());
  const auto lines = ask(session, "interrupt");
  REQUIRE(lines.size() == 2);
  REQUIRE(lines[0]["ok"] == true);
  REQUIRE(lines[1]["cause"] == "interrupt");
}

TEST_CASE("a signal that can't be passed on is told") {
  fake::Program& program = fake::reset();
  DebugSession session(no_file);
  REQUIRE(result(session, "run") == true);
  program.events.push_back({0, StopCause::kSignal, SIGUSR1, 0});
  program.refused_stops = 1;
  session.handle_events();
  REQUIRE(lines_of(session.take_output()).at(0)["cause"] == "signal");
}

TEST_CASE("only signals that dump core stop the program") {
  fake::Program& program = fake::reset();
  DebugSession session(no_file);
  REQUIRE(result(session, "run") == true);
  for (const int passed_on : {SIGUSR1, SIGTERM}) {
    program.events.push_back({1, StopCause::kSignal, passed_on, 0});
    session.handle_events();
    REQUIRE(session.take_output().empty());
    REQUIRE_FALSE(program.is_stopped);
    REQUIRE(program.runs.empty());  // all go on with their own signals
  }
  program.events.push_back({1, StopCause::kSignal, SIGSEGV, 0});
  session.handle_events();
  const auto lines = lines_of(session.take_output());
  REQUIRE(lines[0]["signal"] == SIGSEGV);
  // A step into the signal's delivery keeps it.
  REQUIRE(result(session, "run", {{"step", true}, {"thread", 0x65}}) == true);
  REQUIRE(program.runs[0].signal == dbos::vmm::kOwnSignal);
}

TEST_CASE("a thread that is not there is refused, also where it need not be stepped") {
  fake::reset();
  DebugSession session(no_file);
  session.receive(R"({"command": "run", "arguments": {"thread": 7}})"
                  "\n");
  REQUIRE(session.answer_next());
  REQUIRE(lines_of(session.take_output())[0]["ok"] == false);
  REQUIRE_FALSE(fake::program().resumes != 0);
}

TEST_CASE("a step goes on behind a signal that the program lives with") {
  fake::Program& program = fake::reset();
  DebugSession session(no_file);
  REQUIRE(result(session, "run", {{"step", true}, {"thread", 0x64}}) == true);
  for (const uint32_t vcpu : {0u, 1u}) {  // its own, and another thread's
    program.events.push_back({vcpu, StopCause::kSignal, SIGALRM, 0});
    program.runs.clear();
    session.handle_events();
    REQUIRE(program.runs.size() == 1);
    CHECK((program.runs[0].run == Run::kStep && program.runs[0].vcpu == 0));
    CHECK(program.runs[0].signal == dbos::vmm::kOwnSignal);
    CHECK(session.take_output().empty());
  }
  // One that comes together with the end of the step.
  const uint32_t resumes = program.resumes;
  program.events.push_back({1, StopCause::kSignal, SIGALRM, 0});
  program.events.push_back({0, StopCause::kStep, 0, 0});
  session.handle_events();
  CHECK(lines_of(session.take_output())[0]["cause"] == "step");
  CHECK(program.resumes == resumes);
}

TEST_CASE("a debugger is told of the program's end") {
  fake::Program& program = fake::reset();
  DebugSession session(no_file);
  REQUIRE(result(session, "run") == true);
  program.end = dbos::vmm::ProcessEnd{false, 3};
  session.handle_events();
  REQUIRE(lines_of(session.take_output()) == std::vector<Json>{{{"event", "end"}, {"status", 3}}});
  REQUIRE(session.is_over());
}

TEST_CASE("a session becomes gdb's") {
  fake::reset();
  DebugSession session(no_file);
  session.receive("{\"command\": \"gdb\"}\n" + dbos::vmm::make_gdb_packet("qC"));
  REQUIRE(session.answer_next());
  const std::string output = session.take_output();
  REQUIRE(output.substr(0, output.find('\n')) == R"({"ok":true,"result":true})");
  REQUIRE(output.substr(output.find('\n') + 1) == "+" + dbos::vmm::make_gdb_packet("QC64"));
  session.receive(dbos::vmm::make_gdb_packet("D"));
  REQUIRE(session.is_over());
}

TEST_CASE("a refused debugger gets its own request answered") {
  REQUIRE(Json::parse(dbos::vmm::refused_request("{\"command\":\"debug\",\"id\":3}\nx", "why")) ==
          Json{{"ok", false}, {"error", "why"}, {"id", 3}});
  REQUIRE(Json::parse(dbos::vmm::refused_request("nonsense", "why"))["error"] == "why");
}
