#include <catch2/catch.hpp>

#include <csignal>

#include "tests/unit/debug/fake_program.h"
#include "vmm/debug/gdb_session.h"

using dbos::vmm::BreakpointKind;
using dbos::vmm::GdbSession;
using dbos::vmm::make_gdb_packet;
using dbos::vmm::Run;
using dbos::vmm::StopCause;

namespace {

// The texts that the session sends in answer to one packet.
std::string ask(GdbSession& session, const std::string& text) {
  session.receive(make_gdb_packet(text));
  std::string output = session.take_output();
  if (!output.empty() && output.front() == '+') output.erase(0, 1);
  if (output.empty()) return "nothing";
  REQUIRE(output.front() == '$');
  return output.substr(1, output.find('#') - 1);
}

}  // namespace

TEST_CASE("gdb's first questions are answered") {
  fake::reset();
  GdbSession session;
  REQUIRE(ask(session, "qSupported:swbreak+;xmlRegisters=i386")
              .find("PacketSize=4000;QStartNoAckMode+;swbreak+") == 0);
  REQUIRE(ask(session, "QStartNoAckMode") == "OK");
  session.receive(make_gdb_packet("qfThreadInfo"));
  REQUIRE(session.take_output() == make_gdb_packet("m64,65"));
  REQUIRE(ask(session, "?") == "T00thread:64;");
  REQUIRE(ask(session, "qC") == "QC64");
  REQUIRE(ask(session, "T65") == "OK");
  REQUIRE(ask(session, "T66") == "E03");
  REQUIRE(ask(session, "vMustReplyEmpty").empty());
  REQUIRE(ask(session, "qXfer:exec-file:read::0,100") == "l/bin/program");
  REQUIRE(ask(session, "qXfer:exec-file:read::3,4") == "mn/pr");
  REQUIRE(ask(session, "qXfer:exec-file:read::c,4") == "l");
  REQUIRE(ask(session, "qXfer:auxv:read::0,1000") == "l\1\2\3}]");
}

TEST_CASE("memory is read and written, and errors say so") {
  fake::reset();
  GdbSession session;
  REQUIRE(ask(session, "m1001,3") == "010203");
  REQUIRE(ask(session, "m10fe,8") == "feff");
  REQUIRE(ask(session, "m0,1") == "E0e");
  REQUIRE(ask(session, "M1000,2:aabb") == "OK");
  REQUIRE(fake::program().memory[1] == 0xbb);
  REQUIRE(ask(session, "X1000,0:") == "OK");
  REQUIRE(ask(session, "X1000,2:}x") == "OK");
  REQUIRE(fake::program().memory[0] == '}');
  for (const char* bad :
       {"m", "m1000", "m1000,", "m,1", "M1000,2:aa", "M1000,2", "X1000,9:a", "m1,2x"}) {
    REQUIRE(ask(session, bad) == "E16");
  }
}

TEST_CASE("registers of a thread that is in a host call can be read only") {
  fake::reset();
  GdbSession session;
  REQUIRE(ask(session, "p10") == "0000400000000000");
  REQUIRE(ask(session, "P10=0000500000000000") == "OK");
  REQUIRE(fake::program().registers[0].general.rip == 0x500000);
  REQUIRE(ask(session, "Hg65") == "OK");
  REQUIRE(ask(session, "p10") == "0100400000000000");
  REQUIRE(ask(session, "P10=0000500000000000").find("E.the thread is in a system call") == 0);
  REQUIRE(ask(session, "Hg99") == "E03");
  REQUIRE(ask(session, "p999") == "E16");
  REQUIRE(ask(session, "P10=00") == "E16");
}

TEST_CASE("a step concerns one thread, and the others stay or go as gdb says") {
  fake::reset();
  GdbSession session;
  REQUIRE(ask(session, "vCont;s:64;c") == "nothing");
  REQUIRE(fake::program().runs.size() == 2);
  REQUIRE(fake::program().runs[0].run == Run::kStep);
  REQUIRE(fake::program().runs[1].run == Run::kContinue);
  // While it runs nothing is answered.
  REQUIRE(ask(session, "g") == "nothing");
  fake::program().events = {{0, StopCause::kStep, 0, 0}};
  session.handle_events();
  REQUIRE(session.take_output() == make_gdb_packet("T05thread:64;"));
  REQUIRE(fake::program().is_stopped);
  REQUIRE(ask(session, "vCont;s:65") == "nothing");
  REQUIRE(fake::program().runs[0].run == Run::kStay);
  REQUIRE(fake::program().runs[1].run == Run::kStep);
}

TEST_CASE("signals go to the program as gdb decides") {
  fake::reset();
  GdbSession session;
  REQUIRE(ask(session, "vCont;c") == "nothing");
  fake::program().events = {{1, StopCause::kSignal, SIGUSR1, 0}};
  session.handle_events();
  REQUIRE(session.take_output() == make_gdb_packet("T1ethread:65;"));
  REQUIRE(ask(session, "vCont;C1e:65;c") == "nothing");
  REQUIRE(fake::program().runs[1].signal == SIGUSR1);
  REQUIRE(fake::program().runs[0].signal == 0);
}

TEST_CASE("Ctrl-C stops a program that runs, and is nothing to one that stands") {
  fake::reset();
  GdbSession session;
  session.receive("\003");
  REQUIRE(session.take_output().empty());
  REQUIRE(ask(session, "c") == "nothing");
  session.receive("\003");
  REQUIRE(session.take_output() == make_gdb_packet("T02thread:64;"));
  REQUIRE(fake::program().is_stopped);
}

TEST_CASE("breakpoints and watchpoints") {
  fake::reset();
  GdbSession session;
  REQUIRE(ask(session, "qSupported:swbreak+;hwbreak+") != "nothing");
  REQUIRE(ask(session, "Z0,1000,1") == "OK");
  REQUIRE(ask(session, "Z2,1008,8") == "OK");
  REQUIRE(fake::program().breakpoints.back().kind == BreakpointKind::kHardwareWrite);
  REQUIRE(ask(session, "Z2,1001,8") == "E.not watchable");
  REQUIRE(ask(session, "Z3,1000,4").empty());
  REQUIRE(ask(session, "z0,1000,1") == "OK");
  REQUIRE(ask(session, "z0,1000,1") == "E.there is none");
  for (const char* bad : {"Z0", "Z0,1000", "Z0,1000,1;x", "Z"}) REQUIRE(ask(session, bad) == "E16");
  REQUIRE(ask(session, "c") == "nothing");
  fake::program().events = {{0, StopCause::kWatchpoint, 0, 0x1008}};
  session.handle_events();
  REQUIRE(session.take_output() == make_gdb_packet("T05watch:1008;thread:64;"));
  REQUIRE(ask(session, "c") == "nothing");
  fake::program().events = {{0, StopCause::kBreakpoint, 0, 0}};
  session.handle_events();
  REQUIRE(session.take_output() == make_gdb_packet("T05swbreak:;thread:64;"));
}

TEST_CASE("the program's end is reported, and ends the session") {
  fake::reset();
  GdbSession session;
  REQUIRE(ask(session, "vCont;c:-1") == "nothing");
  fake::program().end = dbos::vmm::ProcessEnd{false, 7};
  session.handle_events();
  REQUIRE(session.take_output() == make_gdb_packet("W07"));
  REQUIRE(session.is_over());
}

TEST_CASE("an end that comes while the program is stopped is told of when it goes on") {
  fake::reset();
  GdbSession session;
  fake::program().end = dbos::vmm::ProcessEnd{false, 7};
  session.handle_events();
  REQUIRE(session.take_output().empty());
  REQUIRE(ask(session, "vCont;c:-1") == "W07");
  REQUIRE(session.is_over());
}

TEST_CASE("a damaged packet is asked for again, and damaged requests change nothing") {
  fake::reset();
  GdbSession session;
  session.receive("$g#00");
  REQUIRE(session.take_output() == "-");
  REQUIRE(ask(session, "T64") == "OK");
  session.receive("-");
  REQUIRE(session.take_output() == make_gdb_packet("OK"));
  for (const char* bad :
       {"vCont;", "vCont;x", "vCont;c:zz", "vCont;Cxyz", "s1000", "C", "H", "Hg"}) {
    REQUIRE(ask(session, bad) == "E16");
  }
  REQUIRE(ask(session, "vCont;t") == "T00thread:64;");
  REQUIRE(fake::program().resumes == 0);
  REQUIRE(ask(session, "D") == "OK");
  REQUIRE(session.is_over());
}
