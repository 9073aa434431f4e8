// Catch's own program, for all unit tests.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
