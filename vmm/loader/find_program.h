// Which file a command name stands for, found as execvp(3) finds it.
#pragma once

#include <string>

namespace dbos::vmm {

struct FoundProgram {
  std::string real_path;       // absolute, links resolved: /proc/self/exe
  std::string execution_name;  // what execvp would pass to execve: AT_EXECFN
  std::string name;            // as the user gave it: argv[0]
};

// A name with a slash is a path; any other is looked for in the folders of `search_path` (PATH's
// value; null: unset). Throws LoadError: kNotFound if there is no such file, kCannotExecute if
// there is one that this user may not execute.
FoundProgram find_program(const std::string& name, const char* search_path);

}  // namespace dbos::vmm
