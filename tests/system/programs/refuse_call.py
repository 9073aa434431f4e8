"""Executes a program for which Linux refuses a system call: refuse_call.py NUMBER ERRNO PROGRAM [ARGUMENT]..."""
import ctypes
import os
import struct
import sys

number, error = int(sys.argv[1]), int(sys.argv[2])
LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2


def instruction(code, if_true=0, if_false=0, value=0):
    return struct.pack("<HBBI", code, if_true, if_false, value)


instructions = (
    instruction(LOAD_NUMBER)
    + instruction(JUMP_IF_EQUAL, 0, 1, number)
    + instruction(RETURN, value=ERRNO | error)
    + instruction(RETURN, value=ALLOW)
)
buffer = ctypes.create_string_buffer(instructions)
program = struct.pack("<HxxxxxxQ", len(instructions) // 8, ctypes.addressof(buffer))
prctl = ctypes.CDLL(None, use_errno=True).prctl
for call in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)):
    if prctl(*call) != 0:
        sys.exit(os.strerror(ctypes.get_errno()))
os.execv(sys.argv[3], sys.argv[3:])
