// Assertions of the guest kernel. They stay in every build: this kernel holds people's data, and
// one compare and a branch that is never taken costs less than a wrong page.
#pragma once

namespace dbos {

[[noreturn]] void panic(const char* message, const char* file, int line);

#define DBOS_ASSERT(condition)                                                            \
  do {                                                                                    \
    if (__builtin_expect(!(condition), 0)) ::dbos::panic(#condition, __FILE__, __LINE__); \
  } while (false)

#define DBOS_PANIC(message) ::dbos::panic(message, __FILE__, __LINE__)

}  // namespace dbos
