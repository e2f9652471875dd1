#!/usr/bin/env python3
"""Makes the traces beside this file: what programs read and write of files, page by page, as strace sees it.

    make.py GIT-REPOSITORY [NAME...]

Needs git, strace, sqlite3 (with FTS5), e2fsprogs, tar and grep, and some minutes. Other machines and repositories give other traces of the same kind.
Only numbers of pages are kept. Mapped files (packs of git, libraries) are not seen.

A trace is a series of runs: how far its first page is from the one after the last run (zigzag), and how many pages it has less one, each as LEB128.
Accesses of one page in a row are one. Each file has its own range of pages, in the order in which they were first used.
"""

import os
import random
import re
import subprocess
import sys
import tempfile

PAGE = 4096
HERE = os.path.dirname(os.path.abspath(__file__))
CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)(?:<(.*)>)?")
FD = re.compile(r"^(\d+)<([^>]*)>")


def strace(work, name, shell, cwd):
    out = os.path.join(work, name + ".strace")
    calls = "trace=read,pread64,write,pwrite64,lseek,openat"
    subprocess.run(["strace", "-f", "-y", "-qq", "-s", "0", "-e", calls, "-e", "signal=none", "-o", out, "sh", "-c", shell],
                   cwd=cwd, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return out


def accesses(path, root):
    """(file, first page, pages) of each call that moved bytes of a file below root."""
    at = {}
    for line in open(path, errors="replace"):
        call = CALL.match(line)
        if not call:
            continue
        pid, name, args, result, opened = call.groups()
        result = int(result)
        if name == "openat":
            if result >= 0:
                at[pid, result] = 0
            continue
        fd = FD.match(args)
        if not fd or result < 0:
            continue
        key, file = (pid, int(fd.group(1))), fd.group(2)
        if name == "lseek":
            at[key] = result
            continue
        if name in ("pread64", "pwrite64"):
            start = int(args.rsplit(",", 1)[1])
        else:
            start = at.get(key, 0)
            at[key] = start + result
        if result > 0 and file.startswith(root):
            yield file, start // PAGE, (start + result - 1) // PAGE - start // PAGE + 1


def pages(path, root, most):
    every, sizes = [], {}
    for file, first, count in accesses(path, root):
        sizes[file] = max(sizes.get(file, 0), first + count)
        every.append((file, first, count))
    base, end = {}, 0
    for file, size in sizes.items():
        base[file] = end
        end += size
    series, last = [], None
    for file, first, count in every:
        for page in range(base[file] + first, base[file] + first + count):
            if page != last:
                series.append(page)
            last = page
    return series[:most]


def leb128(value, out):
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def encode(series):
    out, at, last = bytearray(), 0, 0
    while at < len(series):
        count = 1
        while at + count < len(series) and series[at + count] == series[at] + count:
            count += 1
        delta = series[at] - last
        leb128((delta << 1) ^ (delta >> 63), out)
        leb128(count - 1, out)
        last, at = series[at] + count, at + count
    return bytes(out)


def git(work, repo):
    clone = os.path.join(work, "git")
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", repo, clone], check=True)
    log = subprocess.run(["git", "rev-list", "HEAD"], cwd=clone, check=True, capture_output=True, text=True).stdout.split()
    step = max(1, len(log) // 12)
    words = ["unsafe", "Refused", "fn submit", "timeout", "TODO", "interrupt"]
    lines = []
    for number, commit in enumerate(log[::step]):
        lines += [f"git checkout -q -f {commit}", "git status", f"git grep -c '{words[number % len(words)]}'", "git diff HEAD~1 --stat"]
    return strace(work, "git", "; ".join(lines), clone), clone


def tree(work, repo):
    root = os.path.join(work, "tree")
    os.mkdir(root)
    subprocess.run(f"git -C {repo} archive HEAD | tar x -C {root}", shell=True, check=True)
    steps = [f"tar cf - {root}", f"grep -rc unsafe {root}", f"find {root} -name '*.rs' | xargs wc -l", f"grep -rl SAFETY {root}/hal",
             f"grep -rl Request {root}/block {root}/virtio", f"tar cf - {root}/hal {root}/block", f"grep -rc 'pub fn' {root}"]
    return strace(work, "tree", "; ".join(f"{step} | cat" for step in steps), work), root


def database(work, repo):
    """A full-text index of a source tree's lines, asked and changed."""
    root, db = os.path.join(work, "db"), os.path.join(work, "db", "lines.db")
    os.mkdir(root)
    files = subprocess.run(["git", "ls-files", "*.rs", "*.md"], cwd=repo, check=True, capture_output=True, text=True).stdout.split()
    lines = [line.strip() for file in files for line in open(os.path.join(repo, file), errors="replace") if len(line) > 8]
    words = [word for line in lines for word in re.findall(r"[a-z_]{4,}", line.lower())]
    pick = random.Random(1)
    quote = lambda text: "'" + text.replace("'", "''") + "'"
    fill = os.path.join(root, "fill.sql")
    with open(fill, "w") as out:
        out.write("PRAGMA page_size=4096; CREATE VIRTUAL TABLE lines USING fts5(line); CREATE TABLE seen(word TEXT PRIMARY KEY, count INT); BEGIN;\n")
        out.writelines(f"INSERT INTO lines VALUES({quote(line)});\n" for line in lines)
        out.write("COMMIT;\n")
    subprocess.run(f"sqlite3 {db} < {fill}", shell=True, check=True)
    ask = os.path.join(root, "ask.sql")
    with open(ask, "w") as out:
        out.write("PRAGMA cache_size=40; PRAGMA mmap_size=0; PRAGMA synchronous=OFF;\n")
        for number in range(6000):
            # Words as often as they are in the text.
            word = pick.choice(words)
            out.write(f"SELECT rowid, line FROM lines WHERE lines MATCH {quote(word)} ORDER BY rank LIMIT 5;\n")
            if number % 8 == 0:
                out.write(f"INSERT INTO seen VALUES({quote(word)}, 1) ON CONFLICT(word) DO UPDATE SET count = count + 1;\n")
            if number % 50 == 0:
                out.write(f"INSERT INTO lines VALUES({quote(pick.choice(lines))});\n")
            if number % 2000 == 1999:
                out.write("SELECT count(*), sum(length(line)) FROM lines;\n")
    return strace(work, "database", f"sqlite3 {db} < {ask}", root), db


def fsck(work, repo):
    """A file system that is checked, listed and read, block by block."""
    root, image = os.path.join(work, "fs"), os.path.join(work, "fs.img")
    os.mkdir(root)
    for copy in range(4):
        os.mkdir(f"{root}/{copy}")
        subprocess.run(f"git -C {repo} archive HEAD~{copy * 20} | tar x -C {root}/{copy}", shell=True, check=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", root, image, "256M"], check=True)
    out = os.path.join(work, "out")
    os.mkdir(out)
    steps = [f"e2fsck -fn {image}", f"debugfs -R 'rdump /0/hal /1/docs {out}' {image}", f"debugfs -R 'ls -l /2' {image}",
             f"e2fsck -fn {image}", f"debugfs -R 'rdump /3 {out}' {image}"]
    return strace(work, "fsck", "; ".join(steps), work), image


KINDS = {"git": git, "tree": tree, "database": database, "fsck": fsck}


def main():
    repo, names = os.path.abspath(sys.argv[1]), sys.argv[2:] or list(KINDS)
    for name in names:
        with tempfile.TemporaryDirectory() as work:
            log, root = KINDS[name](work, repo)
            series = pages(log, root, 60_000)
        bytes_ = encode(series)
        open(os.path.join(HERE, name + ".trace"), "wb").write(bytes_)
        print(f"{name}: {len(series)} accesses of {len(set(series))} pages in {len(bytes_)} bytes", flush=True)


main()
