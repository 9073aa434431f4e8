#include "guest/process/trace.h"

#include <asm/unistd_64.h>

#include "guest/hypercall.h"
#include "guest/memory/direct_map.h"
#include "guest/memory/user_copy.h"
#include "guest/platform.h"
#include "guest/process/process.h"
#include "guest/process/trace_capture.h"

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

// Nothing is traced once they are through.
bool does_not_return(u32 number) {
  return number == __NR_exit || number == __NR_exit_group || number == __NR_execve ||
         number == __NR_execveat;
}

TraceRing& ring() {
  return *pointer_to<TraceRing>(PhysicalAddress(trace_ring_address(platform::current_vcpu())));
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
      call_(begin_watch(platform::counters(), control(), frame.error_code)) {
  if (call_.is_traced && does_not_return(number_)) trace(0, kTraceNoResult);
}

void CallWatch::finish(i64 result) const {
  end_watch(platform::counters(), control(), call_, result);
  if (call_.is_traced) trace(result, 0);
}

void CallWatch::trace(i64 result, u32 flags) const {
  TraceEvent* const event = begin_event(call_.begin_ticks);
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
