// Call chains with names: of the program and its libraries by their .eh_frame, of the guest kernel
// by frame pointers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "hypercall/debug.h"
#include "vmm/debug/symbols.h"

namespace dbos::vmm {

// Reads guest-virtual memory; returns how many bytes it could.
using MemoryReader = std::function<size_t(uint64_t address, void* destination, size_t size)>;

// The program's file and the libraries that the dynamic linker has loaded, from the auxiliary
// vector on: it lies in [auxiliary_begin, auxiliary_end).
std::vector<LoadedModule> loaded_modules(const MemoryReader& read, const std::string& program,
                                         uint64_t auxiliary_begin, uint64_t auxiliary_end);

inline constexpr size_t kCallFramesMax = 64;

// Of the program, from `frame` on. Needs some 256 KiB of stack.
std::vector<CallFrame> program_backtrace(const ProgramFrame& frame, const MemoryReader& read,
                                         const std::vector<LoadedModule>& modules);
// Of the guest kernel, whose ELF file `image` is (kernel_image.h); it ends where the program was
// left.
std::vector<CallFrame> kernel_backtrace(std::span<const std::byte> image, uint64_t instruction,
                                        uint64_t frame_pointer, const MemoryReader& read);

// "#0  0x00007f... work+0x12 (debugged.cpp:16)": one line a frame.
std::string format_backtrace(const std::vector<CallFrame>& frames);

}  // namespace dbos::vmm
