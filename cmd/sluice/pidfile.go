package main

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// pidFile is a file with this process's id, for as long as the process serves. A
// lock on it tells a file in use from one that a killed process left behind; the
// kernel gives it back with the descriptor, whatever end the process takes.
type pidFile struct {
	path string
	file *os.File
}

// writePIDFile makes the file that --pid-file names, or takes over one that a
// process which is gone left behind. A file that another process holds is Busy;
// one with anything else in it was named by mistake and stays as it is.
func writePIDFile(path string) (*pidFile, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644) // not truncated: whose it is comes first
		if err != nil {
			return nil, block.Wrap(err, "write pid file", path, -1)
		}
		p := &pidFile{path: path, file: f}
		if err := p.claim(); err != nil {
			_ = f.Close()
			return nil, err
		}
		// Who held it may have removed it after it was opened here.
		if p.inPlace() {
			return p, p.write()
		}
		_ = f.Close()
	}
}

// claim takes the lock and makes sure that the file is one for process ids.
func (p *pidFile) claim() error {
	info, err := p.file.Stat()
	if err != nil {
		return block.Wrap(err, "write pid file", p.path, -1)
	}
	if !info.Mode().IsRegular() {
		return block.Errorf(block.Invalid, "write pid file", p.path, -1, "it is no regular file")
	}
	var text [32]byte
	n, err := p.file.ReadAt(text[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return block.Wrap(err, "write pid file", p.path, -1)
	}
	holder := strings.TrimSpace(string(text[:n]))
	if _, err := strconv.ParseUint(holder, 10, 31); err != nil && n > 0 {
		return block.Errorf(block.Exists, "write pid file", p.path, -1, "it is there and holds no process id")
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err = unix.FcntlFlock(p.file.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return block.Errorf(block.Busy, "write pid file", p.path, -1, "it is in use by process %s", holder)
	}
	return block.Wrap(err, "lock", p.path, -1)
}

// inPlace reports whether the path still leads to the file.
func (p *pidFile) inPlace() bool {
	there, err := os.Stat(p.path)
	if err != nil {
		return false
	}
	own, err := p.file.Stat()
	return err == nil && os.SameFile(there, own)
}

// write puts the process id in the place of an older one.
func (p *pidFile) write() error {
	err := p.file.Truncate(0)
	if err == nil {
		_, err = p.file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		p.remove()
	}
	return block.Wrap(err, "write pid file", p.path, -1)
}

// remove takes the file away, unless somebody put another one in its place, and
// gives up the lock after that.
func (p *pidFile) remove() {
	if p.inPlace() {
		_ = os.Remove(p.path)
	}
	_ = p.file.Close()
}
