#include "guest/syscalls/trace.h"

#include <asm/unistd_64.h>

#include "guest/arch/hypercall.h"
#include "guest/memory/direct_map.h"
#include "guest/memory/user_copy.h"
#include "guest/platform.h"
#include "guest/process/process.h"
#include "guest/syscalls/trace_capture.h"

namespace dbos {
namespace {

const ObserveControl& control() {
  return *pointer_to<ObserveControl>(PhysicalAddress(kObserveControlAddress));
}

u32 wanted() {
  return control().flags.load(std::memory_order_relaxed);
}

u64 ticks() {
  return __builtin_ia32_rdtsc();
}

bool is_chosen(u32 number) {
  if (number > syscalls::kNumberMax) return true;
  return (control().traced[number / 64].load(std::memory_order_relaxed) >> number % 64 & 1) != 0;
}

// Nothing is traced once they are through.
bool does_not_return(u32 number) {
  return number == __NR_exit || number == __NR_exit_group || number == __NR_execve ||
         number == __NR_execveat;
}

TraceRing& ring() {
  return *pointer_to<TraceRing>(
      PhysicalAddress(kTraceRegionBase + platform::current_vcpu() * kTraceStride));
}

// A place in the ring, with what all events have; null: it is lost.
TraceEvent* begin_event(u64 begin_ticks) {
  TraceEvent* const event = ring().reserve();
  if (event == nullptr) return nullptr;
  const Thread& thread = current_thread();
  event->begin_ticks = begin_ticks;
  event->end_ticks = ticks();
  event->process_id = static_cast<u32>(thread.process->process_id);
  event->thread_id = static_cast<u32>(thread.thread_id);
  event->space_root = platform::counters().space_root;
  return event;
}

void end_event() {
  ring().commit();
  if ((wanted() & kObserveReport) != 0) hypercall(Service::kTrace);
}

}  // namespace

CallWatch::CallWatch(const TrapFrame& frame)
    : frame_(frame),
      number_(static_cast<u32>(frame.error_code)),
      index_(call_index(frame.error_code)) {
  VcpuCounters& counters = platform::counters();
  ++counters.calls[index_];
  const u32 flags = wanted();
  is_timed_ = (flags & kObserveTimeAll) != 0;
  if (counters.until_sample-- == 0) {
    counters.until_sample = kSamplePeriod - 1;
    is_timed_ = true;
  }
  is_traced_ = (flags & kObserveTrace) != 0 && is_chosen(number_);
  if (is_timed_ || is_traced_) begin_ticks_ = ticks();
  if (is_traced_ && does_not_return(number_)) trace(0, kTraceNoResult);
}

void CallWatch::finish(i64 result) const {
  VcpuCounters& counters = platform::counters();
  if (result < 0 && result > -4096) ++counters.failed[index_];
  if (!is_timed_ && !is_traced_) return;
  const u64 end = ticks();
  if (is_timed_) {
    const u64 passed = end > begin_ticks_ ? end - begin_ticks_ : 0;
    counters.row_for(index_).add(ns_of(passed, control().ns_multiplier));
  }
  if (is_traced_) trace(result, 0);
}

void CallWatch::trace(i64 result, u32 flags) const {
  TraceEvent* const event = begin_event(begin_ticks_);
  if (event == nullptr) return;
  event->number = number_;
  event->flags = flags;
  event->result = result;
  const u64 arguments[] = {frame_.rdi, frame_.rsi, frame_.rdx, frame_.r10, frame_.r8, frame_.r9};
  for (u32 i = 0; i < 6; ++i) event->arguments[i] = arguments[i];
  capture_payload(*event, peek_program_bytes);
  end_event();
}

void trace_fault(const TrapFrame& frame, u32 signal, u64 address) {
  if ((wanted() & kObserveTrace) == 0) return;
  TraceEvent* const event = begin_event(ticks());
  if (event == nullptr) return;
  event->number = 0;
  event->flags = kTraceFault;
  event->result = signal;
  const u64 arguments[] = {frame.vector, address, frame.rip, 0, 0, 0};
  for (u32 i = 0; i < 6; ++i) event->arguments[i] = arguments[i];
  for (u8& size : event->payload_size) size = TraceEvent::kNoPayload;
  end_event();
}

}  // namespace dbos
