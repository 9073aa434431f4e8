#pragma once

#include <optional>

#include "guest/lib/types.h"

namespace dbos {

// A system call's result, or nothing: it is none of those that were asked for.
using Answer = std::optional<i64>;

}  // namespace dbos
