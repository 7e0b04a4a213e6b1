package daemon

import (
	"encoding/binary"
	"hash/crc32"
	"os"

	"golang.org/x/sys/unix"

	"sluice/block"
)

// memory is a file in memory that outlives the process in the service manager's
// store. It has two slots, written in turn, so that a process that is killed while
// it writes leaves the older content:
//
//	0   sequence number, 8 bytes, little-endian
//	8   length of the content, 4 bytes
//	12  CRC-32C of the bytes before and of the content, 4 bytes
//	16  content
type memory struct {
	file    *os.File
	seq     uint64
	content []byte // of the newest slot, when it was opened
}

const (
	slotSize = 1 << 20
	slotHead = 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func newMemory() (*memory, error) {
	fd, err := unix.MemfdCreate("sluice", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, block.Wrap(err, "make", "a memory file", -1)
	}
	return &memory{file: os.NewFile(uintptr(fd), "sluice")}, nil
}

// openMemory reads what another process has left.
func openMemory(f *os.File) (*memory, error) {
	m := &memory{file: f}
	for slot := range int64(2) {
		head := make([]byte, slotHead)
		if _, err := f.ReadAt(head, slot*slotSize); err != nil {
			continue // not written yet
		}
		seq, n := binary.LittleEndian.Uint64(head), binary.LittleEndian.Uint32(head[8:])
		if n > slotSize-slotHead || seq <= m.seq {
			continue
		}
		content := make([]byte, n)
		if _, err := f.ReadAt(content, slot*slotSize+slotHead); err != nil {
			continue
		}
		if sum(head, content) == binary.LittleEndian.Uint32(head[12:]) {
			m.seq, m.content = seq, content
		}
	}
	if m.seq == 0 {
		return nil, block.Errorf(block.Corrupt, "read", f.Name(), -1, "there is nothing whole in it")
	}
	return m, nil
}

func sum(head, content []byte) uint32 {
	return crc32.Update(crc32.Checksum(head[:12], castagnoli), castagnoli, content)
}

// write replaces the content.
func (m *memory) write(content []byte) error {
	if len(content) > slotSize-slotHead {
		return block.Errorf(block.NoSpace, "write", m.file.Name(), -1, "%d bytes", len(content))
	}
	p := make([]byte, slotHead, slotHead+len(content))
	binary.LittleEndian.PutUint64(p, m.seq+1)
	binary.LittleEndian.PutUint32(p[8:], uint32(len(content)))
	binary.LittleEndian.PutUint32(p[12:], sum(p, content))
	if _, err := m.file.WriteAt(append(p, content...), int64((m.seq+1)%2)*slotSize); err != nil {
		return block.Wrap(err, "write", m.file.Name(), -1)
	}
	m.seq++
	return nil
}

func (m *memory) fd() int      { return int(m.file.Fd()) }
func (m *memory) close() error { return m.file.Close() }
