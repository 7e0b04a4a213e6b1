package fsxtest

import (
	"bytes"
	"fmt"
)

var zeroes [64 << 10]byte

// zero fails when the plain file, which tells what is right, has anything but zeroes in a range that was called a hole.
func (r *runner) zero(what string, from, to int64) error {
	for off := from; off < to; {
		n := min(to-off, int64(len(zeroes)))
		got := r.want[:n]
		if _, err := readAt(r.right.f, got, off); err != nil {
			return fmt.Errorf("plain file: %w", err)
		}
		if !bytes.Equal(got, zeroes[:n]) {
			// What is read of a hole is zeroes, so this is what a client misses.
			return differ(what, off, zeroes[:n], got)
		}
		off += n
	}
	return nil
}

// checkData checks where SEEK_DATA from off ended: there is nothing but zeroes before.
func (r *runner) checkData(off, at int64) error {
	if at < off || at > r.size {
		return fmt.Errorf("seekdata from %d: ended at %d of %d", off, at, r.size)
	}
	return r.zero(fmt.Sprintf("seekdata from %d ended at %d", off, at), off, at)
}

// checkHole checks where SEEK_HOLE from off ended: a hole is there, as far as to the next data, or the end of the file.
func (r *runner) checkHole(off, at int64) error {
	if at < off || at > r.size {
		return fmt.Errorf("seekhole from %d: ended at %d of %d", off, at, r.size)
	}
	if at == r.size {
		return nil
	}
	_, data, err := r.dut.do(Op{Kind: SeekData, Off: at}, nil)
	if err != nil {
		return fmt.Errorf("seekdata: %w", err)
	}
	if data == at {
		return fmt.Errorf("seekhole from %d ended at %d, where seekdata finds data", off, at)
	}
	return r.checkData(at, data)
}

// holes walks over the whole file from hole to data to hole: what is not data has to be zeroes.
func (r *runner) holes() error {
	if !r.does(SeekData) || !r.does(SeekHole) {
		return nil
	}
	r.walked = 0
	for off := int64(0); off < r.size; r.walked++ {
		_, data, err := r.dut.do(Op{Kind: SeekData, Off: off}, nil)
		if err != nil {
			return fmt.Errorf("seekdata: %w", err)
		}
		if err := r.checkData(off, data); err != nil || data == r.size {
			return err
		}
		_, hole, err := r.dut.do(Op{Kind: SeekHole, Off: data}, nil)
		if err != nil {
			return fmt.Errorf("seekhole: %w", err)
		}
		if hole <= data {
			return fmt.Errorf("seekhole from %d, where there is data: ended at %d", data, hole)
		}
		off = hole
	}
	return nil
}
