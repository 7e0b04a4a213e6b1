package fsxtest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// Kind is what an operation does.
type Kind uint8

// The kinds of operations.
const (
	Read        Kind = iota // pread, at any place, also past the end
	Write                   // pwrite
	DirectRead              // pread with O_DIRECT, aligned
	DirectWrite             // pwrite with O_DIRECT, aligned
	MapRead                 // read of a shared mapping
	MapWrite                // write into a shared mapping, with or without msync
	Punch                   // fallocate: punch a hole
	Zero                    // fallocate: zero a range
	Allocate                // fallocate of a range within the file
	Sync                    // fsync
	DataSync                // fdatasync
	SeekData                // lseek to data
	SeekHole                // lseek to a hole
	Copy                    // copy_file_range within the file, the ranges being apart
	Reopen                  // close and open again
	kinds       = iota
)

var kindNames = [kinds]string{
	"read", "write", "directread", "directwrite", "mapread", "mapwrite", "punch", "zero", "allocate",
	"sync", "datasync", "seekdata", "seekhole", "copy", "reopen",
}

// String gives the kind's name in logs.
func (k Kind) String() string { return kindNames[k] }

// Op is one operation.
type Op struct {
	Kind Kind
	Off  int64 // bytes
	Len  int64 // bytes; 0 for operations on the whole file
	To   int64 // Copy: where the bytes go
	Data uint64
	Wait bool // MapWrite: msync waits for the server
}

// String writes the operation as a line of a log has it: kind, offset, length, target, seed of the data, and whether it
// waits.
func (o Op) String() string {
	return fmt.Sprintf("%s %d %d %d %#x %t", o.Kind, o.Off, o.Len, o.To, o.Data, o.Wait)
}

// ParseOp reads what String wrote.
func ParseOp(line string) (Op, error) {
	var o Op
	var name string
	if _, err := fmt.Sscanf(line, "%s %d %d %d %v %t", &name, &o.Off, &o.Len, &o.To, &o.Data, &o.Wait); err != nil {
		return Op{}, fmt.Errorf("operation %q: %w", line, err)
	}
	i := slices.Index(kindNames[:], name)
	if i < 0 {
		return Op{}, fmt.Errorf("operation %q: there is no %q", line, name)
	}
	o.Kind = Kind(i)
	return o, nil
}

// ReadLog reads the operations of a log, one a line, to be done again.
func ReadLog(r io.Reader) ([]Op, error) {
	var ops []Op
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		op, err := ParseOp(lines.Text())
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, lines.Err()
}

// reads tells whether the operation gives bytes of the file.
func (o Op) reads() bool { return o.Kind == Read || o.Kind == DirectRead || o.Kind == MapRead }

// writes tells whether the operation takes bytes.
func (o Op) writes() bool { return o.Kind == Write || o.Kind == DirectWrite || o.Kind == MapWrite }

// clears tells whether the operation leaves zeroes.
func (o Op) clears() bool { return o.Kind == Punch || o.Kind == Zero }

// changes tells whether the operation changes the byte at an offset.
func (o Op) changes(at int64) bool {
	switch {
	case o.Kind == Copy:
		return at >= o.To && at < o.To+o.Len
	case o.writes() || o.clears():
		return at >= o.Off && at < o.Off+o.Len
	}
	return false
}

// fill writes the data of a writing operation: other bytes for each operation, and for each place.
func (o Op) fill(p []byte) {
	state := o.Data
	var word [8]byte
	for len(p) > 0 {
		state += 0x9e3779b97f4a7c15
		z := (state ^ state>>30) * 0xbf58476d1ce4e5b9
		binary.LittleEndian.PutUint64(word[:], z^z>>27)
		p = p[copy(p, word[:]):]
	}
}
