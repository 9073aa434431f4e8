// Opens a program and its interpreter, and checks both before anything of the machine is made.
#pragma once

#include <string>

#include "hypercall/abi.h"
#include "vmm/loader/file_descriptor.h"

namespace dbos::vmm {

struct LoadedProgram {
  // Their descriptors are owned by the two members below; an image without file has -1.
  LoadImage program;
  LoadImage interpreter;
  FileDescriptor program_file;
  FileDescriptor interpreter_file;
  std::string real_path;         // absolute, links resolved
  std::string interpreter_path;  // as PT_INTERP names it; empty: none
  // The file's set-user-ID or set-group-ID bit or its capabilities would have changed the process's
  // rights under execve. Here they don't: the program runs with the user's own.
  bool privileges_ignored = false;

  // From now on the guest closes the descriptors (after it has mapped the images).
  void hand_over_descriptors();
};

// What a guest kernel gets that runs no program.
LoadedProgram no_program();

// Throws LoadError: one sentence that says what is wrong with which file, and what to do.
LoadedProgram load_program(const std::string& path);

// One image from an open file; `path` is for the messages. The descriptor stays the caller's.
LoadImage load_image(int descriptor, const std::string& path);

}  // namespace dbos::vmm
