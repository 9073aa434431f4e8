// The names behind addresses: of the program, its libraries and the guest kernel, from their ELF
// files and what debug information there is (libdwfl).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

struct Dwfl;

namespace dbos::vmm {

struct CallFrame {
  uint64_t address;
  std::string function;  // empty: unknown
  uint64_t offset;       // in the function
  std::string source;    // "file:line"; empty: unknown
  std::string module;    // file name; empty: unknown
};

// An ELF file in the program's memory, and what is added to its addresses.
struct LoadedModule {
  std::string path;
  uint64_t bias;
};

// "dbos::work(int)" without "(int)", and a Rust name without its hash.
std::string without_arguments(const std::string& function);

class Symbols {
 public:
  // `kernel`: the guest kernel's ELF file (kernel_image.h), which must stay; empty: without it. A
  // file that can't be read is left out. Throws std::bad_alloc.
  Symbols(const std::vector<LoadedModule>& modules, std::span<const std::byte> kernel);
  Symbols(const Symbols&) = delete;
  Symbols& operator=(const Symbols&) = delete;

  // `lookup`: an address within the instruction that is meant; the caller's call, for a return
  // address.
  CallFrame describe(uint64_t address, uint64_t lookup) const;

  // The address of a function or variable, by its name in the file or, in C++, without arguments:
  // "dbos::work". The program's come before the libraries'.
  std::optional<uint64_t> find(const std::string& name) const;

  Dwfl* handle() const { return dwfl_.get(); }

 private:
  struct End {
    void operator()(Dwfl* dwfl) const;
  };
  std::span<const std::byte> kernel_;  // libdwfl has its address
  std::unique_ptr<Dwfl, End> dwfl_;
};

}  // namespace dbos::vmm
