package fsxtest

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// plain is the file that tells what is right. It uses nothing but reads, writes and holes, so that a mistake of its
// file system's more special calls is not taken for right.
type plain struct {
	f   *os.File
	buf []byte // for copies
}

// newPlain makes the file, with the contents of the one under test.
func newPlain(path, like string) (p *plain, size int64, err error) {
	from, err := os.Open(like)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	f, err := os.Create(path)
	if err != nil {
		return nil, 0, err
	}
	if size, err = io.Copy(f, from); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return &plain{f: f, buf: make([]byte, large)}, size, nil
}

func (p *plain) close() error { return p.f.Close() }

func (p *plain) do(op Op, buf []byte) (n int, at int64, err error) {
	switch {
	case op.reads():
		n, err = readAt(p.f, buf, op.Off)
	case op.writes():
		n, err = p.f.WriteAt(buf, op.Off)
	case op.clears():
		err = retry(func() error {
			return unix.Fallocate(int(p.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, op.Off, op.Len)
		})
	case op.Kind == Copy && op.Len > 0:
		if _, err = p.f.ReadAt(p.buf[:op.Len], op.Off); err == nil {
			_, err = p.f.WriteAt(p.buf[:op.Len], op.To)
		}
	}
	return n, 0, err
}
