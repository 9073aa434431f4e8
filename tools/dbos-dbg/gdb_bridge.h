// `dbos-dbg gdb`: gdb's remote protocol for a program that was not started with --gdb.
#pragma once

#include <string>

namespace dbos::dbg {

// Attaches over the control socket and carries gdb's bytes to and fro until one side ends. Without
// an address gdb is on standard input and output (gdb's 'target remote | dbos-dbg gdb'); otherwise
// one gdb is waited for at HOST:PORT, :PORT (of the loopback interface) or the path of a Unix
// socket. The program (machines.h, choose_machine) runs until gdb has come. Throws Failure.
void serve_gdb(const std::string& program, const std::string& address);

}  // namespace dbos::dbg
