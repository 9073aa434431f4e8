// What dbos_host_call answers when it makes no call or Linux would restart it, for the assembler;
// host_call.h holds the numbers to hypercall/abi.h.
#pragma once

#define DBOS_HOST_CALL_INTERRUPTED (-512)
#define DBOS_HOST_CALL_NOT_STARTED (-513)
// A signal of the VMM's own ended it, which the guest is not told of.
#define DBOS_HOST_CALL_AGAIN (-514)
