#!/usr/bin/env python3
"""Writes the tables of system calls and constants of one architecture.

    generate.py ARCHITECTURE COMPILER

ARCHITECTURE is x86_64, aarch64 or arm. COMPILER is a C compiler for it (gcc,
aarch64-linux-gnu-gcc, arm-linux-gnueabihf-gcc). The headers of the kernel and of the C library
have to be installed. The tables are committed, so this script is only needed to add an
architecture or to follow newer headers.
"""

import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

# The kernel's headers come first, because a filter sees the kernel's values. The C library has
# different values for some names.
HEADERS = """
asm/ioctls.h asm/mman.h asm/signal.h linux/capability.h linux/close_range.h linux/dma-buf.h
linux/errno.h linux/eventpoll.h linux/fcntl.h linux/fs.h linux/fscrypt.h linux/fsverity.h
linux/futex.h linux/if_tun.h linux/inotify.h linux/io_uring.h linux/kvm.h linux/loop.h
linux/membarrier.h linux/memfd.h linux/mman.h linux/netlink.h linux/openat2.h linux/prctl.h
linux/random.h linux/resource.h linux/sched.h linux/seccomp.h linux/signalfd.h linux/sockios.h
linux/stat.h linux/time.h linux/timerfd.h linux/udmabuf.h linux/usbdevice_fs.h linux/userfaultfd.h
linux/vfio.h linux/vhost.h linux/wait.h
fcntl.h poll.h sched.h signal.h sys/epoll.h sys/eventfd.h sys/ioctl.h sys/mman.h sys/resource.h
sys/socket.h sys/stat.h sys/timerfd.h sys/uio.h sys/wait.h time.h unistd.h
""".split()
PREAMBLE = "#define _GNU_SOURCE 1\n#include <linux/types.h>\n#include <linux/ioctl.h>\n"
NAME = re.compile(r"#define ([A-Z][A-Za-z0-9_]*) (\S.*)")
SKIP = re.compile(r"(_H|_H_|_SOURCE|_MAX_ALIGN.*)$|^(_|__|INT|UINT|LONG|ULONG|SIZE_|WCHAR|FLT|DBL)")


def run(arguments, **more):
    return subprocess.run(arguments, capture_output=True, text=True, **more)


def macros(compiler, source):
    """The macro definitions of a source. None if a header is missing, as linux/kvm.h is on arm."""
    done = run([compiler, "-E", "-dM", "-x", "c", "-"], input=source)
    return [] if done.returncode else done.stdout.splitlines()


def evaluate(compiler, includes, names, folder):
    """The names that are integer constants, each with its value."""
    while names:
        lines = [f"(long long)(({name}) | 0)," for name in names]
        head = includes + 'const long long t[] __attribute__((section("values"), used)) = {\n'
        first = head.count("\n") + 1
        source, target = folder / "t.c", folder / "t.o"
        source.write_text(head + "\n".join(lines) + "\n};\n")
        done = run([compiler, "-w", "-fmax-errors=0", "-c", source, "-o", target])
        wrong = {int(n) - first for n in re.findall(r"t\.c:(\d+):\d+: error", done.stderr)}
        if not wrong:
            break
        names = [name for i, name in enumerate(names) if i not in wrong]
    if not names:
        return []
    if done.returncode:
        sys.exit(done.stderr)
    objcopy = compiler.removesuffix("gcc") + "objcopy"
    run([objcopy, "-O", "binary", "-j", "values", target, folder / "t.bin"], check=True)
    return zip(names, struct.unpack(f"<{len(names)}q", (folder / "t.bin").read_bytes()))


def constants(architecture, compiler, folder):
    builtin = set(macros(compiler, ""))
    mask = 0xFFFF_FFFF if architecture == "arm" else 0xFFFF_FFFF_FFFF_FFFF
    found = {}
    for header in HEADERS:
        include = PREAMBLE + f"#include <{header}>\n"
        lines = [line for line in macros(compiler, include) if line not in builtin]
        names = {m[1] for m in map(NAME.match, lines) if m and not SKIP.search(m[1])}
        for name, value in evaluate(compiler, include, sorted(names - found.keys()), folder):
            found[name] = f"{name} {value & mask:#x}"
    return list(found.values())


def calls(compiler, folder):
    includes = "#include <asm/unistd.h>\n"
    pattern = re.compile(r"#define (__(ARM_)?NR_([a-z0-9_]+)) ")
    found = {m[1]: (m[2] or "") + m[3] for m in map(pattern.match, macros(compiler, includes)) if m}
    found = {macro: name for macro, name in found.items() if name != "arch_specific_syscall"}
    values = evaluate(compiler, includes, sorted(found), folder)
    return sorted(f"{found[macro]} {value}" for macro, value in values)


def main():
    architecture, compiler = sys.argv[1:]
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tables = {"syscalls": calls(compiler, folder),
                  "constants": constants(architecture, compiler, folder)}
    for kind, lines in tables.items():
        lines.sort(key=lambda line: line.split()[0])
        (here / f"{architecture}.{kind}").write_text("\n".join(lines) + "\n")


main()
