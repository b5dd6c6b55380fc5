"""Writes one word of another process's stack back into it, as it was: PID and the way to do it."""
import ctypes
import os
import sys

pid, way = int(sys.argv[1]), sys.argv[2]
with open(f"/proc/{pid}/maps") as maps:
    stack = next(line for line in maps if line.rstrip().endswith("[stack]"))
address = int(stack.split("-")[1].split()[0], 16) - 64
memory = os.open(f"/proc/{pid}/mem", os.O_RDWR)
word = os.pread(memory, 8, address)
if way == "process-vm-writev":

    class Piece(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    buffer = ctypes.create_string_buffer(word, 8)
    ours, theirs = Piece(ctypes.addressof(buffer), 8), Piece(address, 8)
    call = ctypes.CDLL(None, use_errno=True).process_vm_writev
    call.restype = ctypes.c_ssize_t
    none, one = ctypes.c_ulong(0), ctypes.c_ulong(1)
    assert call(pid, ctypes.byref(ours), one, ctypes.byref(theirs), one, none) == 8
elif way == "pwrite":
    assert os.pwrite(memory, word, address) == 8
elif way == "write":
    os.lseek(memory, address, os.SEEK_SET)
    assert os.write(memory, word) == 8
else:
    assert way == "read"
