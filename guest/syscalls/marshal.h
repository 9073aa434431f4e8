// One proxied system call: turns the program's arguments into ones that Linux can use (see
// hypercall/syscall_kinds.h), makes the call, and hands back what Linux wrote.
//
// A pointer that the program may not use becomes a fault address, so that Linux itself answers
// EFAULT, and only where it looks at that argument.
#pragma once

#include "guest/lib/result.h"
#include "guest/syscalls/marshal_bounce.h"
#include "guest/syscalls/marshal_transfer.h"
#include "hypercall/syscall_table.h"

namespace dbos {

struct HostMessage;  // marshal_message.h
struct HostMessageOfMany;
struct MessageState;

class Marshaller {
 public:
  Marshaller(u32 number, const syscalls::SystemCall& call, const u64 arguments[6]);
  ~Marshaller();
  Marshaller(const Marshaller&) = delete;
  Marshaller& operator=(const Marshaller&) = delete;

  // The call's result, -errno, kInterrupted or kNotStarted.
  i64 run();

  // Moves no more than this, and in one part.
  void limit_bytes(u64 bytes) { bytes_limit_ = bytes; }

 private:
  using Argument = syscalls::Argument;

  // When and how a copy goes back to the program.
  enum class Back : u8 {
    kWhole,           // if the call succeeded
    kResult,          // as many bytes as its result says
    kLengthAndBytes,  // as many bytes as `length` says now
    kChanged,         // what differs from `before`, whatever the result
    kChangedQuietly,  // likewise, no matter whether the program may write there
  };
  struct CopyBack {
    Back rule;
    const Argument* argument;
    u64 program;
    u8* data;
    u64 size;
    const u8* before;   // kChanged: the bytes as the program gave them
    const u32* length;  // kLengthAndBytes
  };

  struct FileStatus {
    u32 type = 0;  // S_IFREG ...
    u64 size = 0;
  };

  Result<void> marshal(u32 index, const Argument& argument);
  Result<void> marshal_string(u32 index, const Argument& argument);
  Result<void> marshal_bytes(u32 index, const Argument& argument);
  Result<void> marshal_piece(u32 index, const Argument& argument, u64 bytes);
  Result<void> marshal_sized_by_pointer(u32 index, const Argument& argument);
  Result<void> marshal_socket_option(u32 index, const Argument& argument);
  Result<void> marshal_descriptor_set(u32 index, const Argument& argument);
  Result<void> marshal_poll_array(u32 index, const Argument& argument);
  Result<void> marshal_self_sized(u32 index, const Argument& argument);
  Result<void> marshal_file_handle(u32 index, const Argument& argument);
  Result<void> marshal_mask_and_size(u32 index);
  Result<void> marshal_by_request(u32 index, const Argument& argument);
  Result<void> marshal_interface_list(u32 index);
  Result<void> marshal_notification(u32 index);
  Result<void> marshal_semaphore_values(u32 index, const Argument& argument);

  // Allocates a piece and fills it from the program; data == nullptr: the program may not read it.
  Result<Bounce> copy_in(u64 program, u64 bytes);
  // The same, and what the call changes in it goes back.
  Result<Bounce> copy_in_and_back(u64 program, u64 bytes, Back rule);
  void add_back(const CopyBack& back);
  void set_fault(u32 index, u64 bytes) { host_[index] = syscalls::fault_address(bytes); }
  // Gives Linux the piece of copy_in(), or a fault address in place of its `bytes`. Whether it is
  // the piece.
  bool pass(u32 index, const Bounce& piece, u64 bytes);

  i64 call_host(u32 number) const;
  i64 finish(i64 result);
  Result<void> copy_back(const CopyBack& back, i64 result);

  // Calls that move data (marshal_stream.cpp).
  i64 run_bulk(u32 index);
  i64 run_random(u32 index);
  i64 run_vector(u32 index);
  i64 run_stream(const Buffer* buffers, u32 count, u32 index);
  i64 run_part(const Buffer* buffers, u32 count, u64 skip, u32 index, u64 part, bool* more);
  u64 read_part_max(const FileStatus& file);
  u64 read_position() const;
  bool goes_on_reading();
  FileStatus file_status();
  i64 run_gathered(const Buffer* buffers, u32 count, u32 index);
  i64 call_with(const Transfer& transfer, u64 skip, u32 index);
  i64 call_as_message(const Transfer& transfer, bool send);
  marshal_memory::HostAccess access_of(u32 index) const;

  // Messages (marshal_message.cpp).
  i64 run_message(u32 index);
  i64 run_messages(u32 index);
  bool is_time_over() const;
  i64 run_message_batch(u32 index, u64 program, u32 count, bool* full);
  Result<u32> marshal_batch(u64 program, u32 count, HostMessageOfMany* message, MessageState* state,
                            marshal_memory::HostAccess access);
  Result<bool> marshal_message(u64 program, u32 capacity, HostMessage& message,
                               MessageState& state);
  Result<void> marshal_message_name(HostMessage& message, MessageState& state);
  Result<void> marshal_control(HostMessage& message, MessageState& state);
  Result<void> marshal_message_data(u32 capacity, HostMessage& message, MessageState& state);
  bool is_message_socket();

  static constexpr u32 kBacksMax = 8;

  const u32 number_;
  const syscalls::SystemCall& call_;
  u64 program_[6];  // as the program gave them
  u64 host_[6];     // as Linux gets them
  u64 bytes_limit_ = kTransferMax;
  u32 back_count_ = 0;
  CopyBack backs_[kBacksMax];
  BounceBuffer bounce_;
};

}  // namespace dbos
