// How the parts of dispatch.cpp say what a system call answers, or that it is another part's.
#pragma once

#include <optional>

#include "guest/lib/types.h"

namespace dbos {

// A system call's result, or nothing: it is none of the part's.
using Answer = std::optional<i64>;

}  // namespace dbos
