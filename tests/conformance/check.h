// The frame of a conformance test: named cases, checks that explain themselves, one output line per
// case.
//
//   CASE(name_of_the_behaviour) { CHECK(...); }      one case
//   HELPER(name) { ... }                             the other side of an execve:
//                                                    `prog --helper name ...`
//
//   prog            runs every case        prog --list     names the cases
//   prog CASE...    runs those             exit status     0 all passed or skipped, 1 otherwise
//
// Output goes straight to write(2), so that a crash shows where it happened and a forked child
// inherits no buffer. A failed CHECK goes on; a failed REQUIRE ends the process.
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <vector>

namespace check {

struct Case {
  const char* name;
  void (*body)();
};
struct Helper {
  const char* name;
  int (*body)(int argc, char** argv);
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}
inline std::vector<Helper>& helpers() {
  static std::vector<Helper> all;
  return all;
}
struct Register {
  Register(const char* name, void (*body)()) { cases().push_back({name, body}); }
  Register(const char* name, int (*body)(int, char**)) { helpers().push_back({name, body}); }
};

inline std::atomic<int> failures{0};
inline const char* current = "";
inline bool skipped = false;
inline std::string self;  // absolute path of this program, for execve of itself
inline char** arguments = nullptr;

[[gnu::format(printf, 1, 2)]] inline void print(const char* format, ...) {
  char line[1024];
  va_list list;
  va_start(list, format);
  int length = vsnprintf(line, sizeof line, format, list);
  va_end(list);
  if (length > static_cast<int>(sizeof line) - 1) length = sizeof line - 1;
  for (int done = 0; done < length;) {
    ssize_t n = write(STDOUT_FILENO, line + done, static_cast<size_t>(length - done));
    if (n <= 0) break;
    done += static_cast<int>(n);
  }
}

inline const char* errno_name(int number) {
  const char* name = strerrorname_np(number);
  return name == nullptr ? "?" : name;
}

inline bool failed(const char* file, int line, const char* what) {
  int saved = errno;
  const char* slash = strrchr(file, '/');
  print("FAILED %s:%d: %s (errno %s)\n", slash == nullptr ? file : slash + 1, line, what,
        errno_name(saved));
  failures.fetch_add(1);
  errno = saved;
  return false;
}

inline bool equal(const char* file, int line, const char* what, long long left, long long right) {
  if (left == right) return true;
  char text[512];
  snprintf(text, sizeof text, "%s [%lld (%#llx) against %lld (%#llx)]", what, left,
           static_cast<unsigned long long>(left), right, static_cast<unsigned long long>(right));
  return failed(file, line, text);
}

inline bool gives_errno(const char* file, int line, const char* what, long result, int expected) {
  if (result == -1 && errno == expected) return true;
  char text[512];
  snprintf(text, sizeof text, "%s [returned %ld, expected errno %s]", what, result,
           errno_name(expected));
  return failed(file, line, text);
}

inline void skip(const char* why) {
  skipped = true;
  print("SKIP %s: %s\n", current, why);
}

inline void run(const Case& one) {
  int before = failures.load();
  current = one.name;
  skipped = false;
  errno = 0;
  one.body();
  if (failures.load() != before) {
    print("FAIL %s\n", one.name);
  } else if (!skipped) {
    print("ok %s\n", one.name);
  }
}

inline int main(int argc, char** argv) {
  arguments = argv;
  char* path = realpath(strchr(argv[0], '/') != nullptr ? argv[0] : "/proc/self/exe", nullptr);
  self = path == nullptr ? argv[0] : path;
  free(path);
  if (argc > 2 && strcmp(argv[1], "--helper") == 0) {
    for (const Helper& one : helpers()) {
      if (strcmp(one.name, argv[2]) == 0) return one.body(argc - 3, argv + 3);
    }
    print("no helper %s\n", argv[2]);
    return 1;
  }
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (const Case& one : cases()) print("%s\n", one.name);
    return 0;
  }
  if (argc < 2) {
    for (const Case& one : cases()) run(one);
  }
  for (int i = 1; i < argc; ++i) {
    bool known = false;
    for (const Case& one : cases()) {
      if (strcmp(one.name, argv[i]) != 0) continue;
      known = true;
      run(one);
    }
    if (!known) failed("check.h", 0, argv[i]);
  }
  return failures.load() == 0 ? 0 : 1;
}

}  // namespace check

#define CASE(name)                                             \
  static void case_##name();                                   \
  static const check::Register reg_##name(#name, case_##name); \
  static void case_##name()
#define HELPER(name)                                                    \
  static int helper_##name(int argc, char** argv);                      \
  static const check::Register reg_helper_##name(#name, helper_##name); \
  static int helper_##name([[maybe_unused]] int argc, [[maybe_unused]] char** argv)

#define CHECK(...) \
  static_cast<void>((__VA_ARGS__) ? true : check::failed(__FILE__, __LINE__, #__VA_ARGS__))
#define CHECK_EQ(left, right)                                             \
  static_cast<void>(check::equal(__FILE__, __LINE__, #left " == " #right, \
                                 static_cast<long long>(left), static_cast<long long>(right)))
#define REQUIRE(...) \
  static_cast<void>( \
      (__VA_ARGS__) ? true : (check::failed(__FILE__, __LINE__, #__VA_ARGS__), _exit(1), false))
#define CHECK_ERRNO(call, expected) \
  static_cast<void>(                \
      check::gives_errno(__FILE__, __LINE__, #call, (errno = 0, (long)(call)), expected))
#define SKIP(why)     \
  do {                \
    check::skip(why); \
    return;           \
  } while (false)
#define CHECK_MAIN                  \
  int main(int argc, char** argv) { \
    return check::main(argc, argv); \
  }
