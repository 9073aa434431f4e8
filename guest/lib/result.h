// Result<T>: a value, or the errno that Linux would answer with.
#pragma once

#include <asm/errno.h>

#include <new>
#include <type_traits>
#include <utility>

#include "guest/lib/types.h"

namespace dbos {

// An errno, positive (EINVAL, not -EINVAL). Never 0.
class [[nodiscard]] Error {
 public:
  constexpr explicit Error(int code) : code_(code) {}
  constexpr int code() const { return code_; }
  constexpr bool operator==(const Error&) const = default;

 private:
  int code_;
};

template <typename T>
class [[nodiscard]] Result {
  static_assert(std::is_trivially_destructible_v<T>, "results are plain values");

 public:
  constexpr Result(T value) : value_(value), error_(0) {}            // NOLINT: implicit
  constexpr Result(Error error) : empty_(), error_(error.code()) {}  // NOLINT: implicit
  constexpr bool is_ok() const { return error_ == 0; }
  constexpr bool is_error() const { return error_ != 0; }
  constexpr Error error() const { return Error(error_); }
  constexpr T value() const { return value_; }

 private:
  union {
    T value_;
    char empty_;
  };
  int error_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  constexpr Result() = default;
  constexpr Result(Error error) : error_(error.code()) {}  // NOLINT: implicit
  constexpr bool is_ok() const { return error_ == 0; }
  constexpr bool is_error() const { return error_ != 0; }
  constexpr Error error() const { return Error(error_); }
  constexpr void value() const {}

 private:
  int error_ = 0;
};

// Of what a system call returned in rax, which is below 0.
constexpr Error error_of(i64 result) {
  return Error(static_cast<int>(-result));
}
// What a system call returns for it, in rax.
constexpr i64 negative(Error error) {
  return -static_cast<i64>(error.code());
}
constexpr i64 result_of(Result<void> result) {
  return result.is_ok() ? 0 : negative(result.error());
}
constexpr i64 result_of(Result<u32> result) {
  return result.is_ok() ? i64{result.value()} : negative(result.error());
}
constexpr i64 result_of(Result<VirtualAddress> result) {
  return result.is_ok() ? static_cast<i64>(result.value().value()) : negative(result.error());
}

// Yields the value of a Result, or returns its error from the function around it.
#define DBOS_TRY(expression)                                        \
  ({                                                                \
    auto dbos_try_result = (expression);                            \
    if (dbos_try_result.is_error()) return dbos_try_result.error(); \
    dbos_try_result.value();                                        \
  })
#define DBOS_RETURN_IF_ERROR(expression)                            \
  do {                                                              \
    auto dbos_try_result = (expression);                            \
    if (dbos_try_result.is_error()) return dbos_try_result.error(); \
  } while (false)

// The same in a function that answers as a system call does.
#define DBOS_TRY_CALL(expression)                                             \
  ({                                                                          \
    auto dbos_try_result = (expression);                                      \
    if (dbos_try_result.is_error()) return negative(dbos_try_result.error()); \
    dbos_try_result.value();                                                  \
  })

}  // namespace dbos
