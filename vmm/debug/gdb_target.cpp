// What gdb is told of the machine: the XML of its registers, and signals in its own numbers.
#include <csignal>

#include "vmm/debug/gdb_registers.h"

namespace dbos::vmm {
namespace {

// Types that the standard features refer to, in the words of gdb's manual ("Target Description
// Format").
constexpr const char* kFlagsType =
    "<flags id=\"flags\" size=\"4\">"
    "<field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"PF\" start=\"2\" end=\"2\"/>"
    "<field name=\"AF\" start=\"4\" end=\"4\"/><field name=\"ZF\" start=\"6\" end=\"6\"/>"
    "<field name=\"SF\" start=\"7\" end=\"7\"/><field name=\"TF\" start=\"8\" end=\"8\"/>"
    "<field name=\"IF\" start=\"9\" end=\"9\"/><field name=\"DF\" start=\"10\" end=\"10\"/>"
    "<field name=\"OF\" start=\"11\" end=\"11\"/><field name=\"RF\" start=\"16\" end=\"16\"/>"
    "<field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"ID\" start=\"21\" end=\"21\"/>"
    "</flags>";
constexpr const char* kVectorType =
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>"
    "<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>"
    "<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
    "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>"
    "<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
    "<union id=\"vector\">"
    "<field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
    "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"
    "<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"
    "<field name=\"uint128\" type=\"uint128\"/></union>";

// Linux's signals of 1 to 31 in gdb's numbers.
constexpr int kGdbSignals[32] = {0, 1,  2,  3,  4,  5,  6,  10, 8,  9,  30, 11, 31, 13, 14, 15,
                                 0, 20, 19, 17, 18, 21, 22, 16, 24, 25, 26, 27, 28, 23, 32, 12};
constexpr int kFirstRealtime = 32;
constexpr int kGdbRealtime32 = 77;
constexpr int kGdbRealtime33 = 45;
constexpr int kLastRealtime = 64;
constexpr int kGdbRealtime64 = 78;

}  // namespace

std::string gdb_target_description(Avx avx) {
  std::string xml =
      "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>"
      "<architecture>i386:x86-64</architecture><osabi>GNU/Linux</osabi>";
  std::string feature;
  for (const GdbRegister& entry : gdb_registers(avx)) {
    if (entry.feature != feature) {
      if (!feature.empty()) xml += "</feature>";
      feature = entry.feature;
      xml += "<feature name=\"" + feature + "\">";
      if (feature.ends_with(".core")) xml += kFlagsType;
      if (feature.ends_with(".sse")) xml += kVectorType;
    }
    xml += "<reg name=\"" + entry.name + "\" bitsize=\"" + std::to_string(entry.bits) +
           "\" type=\"" + entry.type + "\"/>";
  }
  return xml + "</feature></target>";
}

int gdb_signal(int linux_signal) {
  if (linux_signal <= 0 || linux_signal > kLastRealtime) return 0;
  if (linux_signal < kFirstRealtime) return kGdbSignals[linux_signal];
  if (linux_signal == kFirstRealtime) return kGdbRealtime32;
  if (linux_signal == kLastRealtime) return kGdbRealtime64;
  return kGdbRealtime33 + (linux_signal - 33);
}

int linux_signal(int gdb_signal_number) {
  if (gdb_signal_number <= 0) return 0;
  for (int signal = 1; signal <= kLastRealtime; ++signal) {
    if (gdb_signal(signal) == gdb_signal_number) return signal;
  }
  return 0;
}

}  // namespace dbos::vmm
