package state

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"hash/fnv"
	"slices"

	"go.etcd.io/bbolt"

	"sluice/block"
	"sluice/gateway/spec"
)

// Record is an export as it is kept.
type Record struct {
	Spec   spec.Spec `json:"spec"`
	ID     uint64    `json:"id"`               // from NextID
	Source string    `json:"source,omitempty"` // who asked for it
	Size   int64     `json:"size,omitempty"`   // bytes, when it was open last; 0 where unknown
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode writes a record: its checksum (CRC-32C, big-endian) and JSON. bbolt
// checks its own roots only.
func encode(r Record) ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(text, castagnoli)), text...), nil
}

func decode(value []byte) (Record, error) {
	var r Record
	if len(value) < 4 || binary.BigEndian.Uint32(value) != crc32.Checksum(value[4:], castagnoli) {
		return r, errors.New("wrong checksum")
	}
	d := json.NewDecoder(bytes.NewReader(value[4:]))
	d.DisallowUnknownFields() // what is not understood would be lost with the next change
	return r, d.Decode(&r)
}

// sum is over all records, so that one that is missing is missed. It does not
// depend on their order, and can be kept up.
type sum struct {
	count, xor uint64
}

func (s *sum) add(name, value []byte)    { s.count++; s.xor ^= hash(name, value) }
func (s *sum) remove(name, value []byte) { s.count--; s.xor ^= hash(name, value) }

func (s sum) bytes() []byte { return append(number(s.count), number(s.xor)...) }

func hash(name, value []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(name)
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(value)
	return h.Sum64()
}

// replace puts a value in the place of a name's old one, nil in place of both.
func replace(tx *bbolt.Tx, name, value []byte) error {
	meta, exports := tx.Bucket(metaBucket), tx.Bucket(exportsBucket)
	b := meta.Get(sumKey)
	s := sum{count: binary.BigEndian.Uint64(b), xor: binary.BigEndian.Uint64(b[8:])}
	if old := exports.Get(name); old != nil {
		s.remove(name, old)
	}
	if value == nil {
		return errors.Join(exports.Delete(name), meta.Put(sumKey, s.bytes()))
	}
	s.add(name, value)
	return errors.Join(exports.Put(name, value), meta.Put(sumKey, s.bytes()))
}

// Put keeps an export, in the place of the one of that name if there is one. Its
// number must be one that NextID gave out.
func (s *State) Put(r Record) error {
	if err := spec.CheckName(r.Spec.Name); err != nil {
		return err
	}
	if !s.given(r.ID) {
		return block.Errorf(block.Invalid, "keep export", r.Spec.Name, -1, "number %d was not given out", r.ID)
	}
	value, err := encode(r)
	if err != nil {
		return block.Wrap(err, "keep export", r.Spec.Name, -1)
	}
	err = s.commit(len(value), func(tx *bbolt.Tx) error { return replace(tx, []byte(r.Spec.Name), value) })
	return block.Wrap(err, "keep export", r.Spec.Name, -1)
}

// Delete forgets an export. It fails with kind NotFound when there is none of
// that name.
func (s *State) Delete(name string) error {
	var missing bool
	err := s.commit(0, func(tx *bbolt.Tx) error {
		missing = name == "" || tx.Bucket(exportsBucket).Get([]byte(name)) == nil
		if missing {
			return nil
		}
		return replace(tx, []byte(name), nil)
	})
	if err == nil && missing {
		return block.Errorf(block.NotFound, "forget export", name, -1, "")
	}
	return block.Wrap(err, "forget export", name, -1)
}

// All gives every export, in the order of their numbers.
func (s *State) All() ([]Record, error) {
	var all []Record
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(exportsBucket).ForEach(func(name, value []byte) error {
			r, err := decode(value)
			if err != nil {
				return block.Errorf(block.Corrupt, "read state", s.path, -1, "the record of export %q is damaged", name)
			}
			all = append(all, r)
			return nil
		})
	})
	slices.SortFunc(all, func(a, b Record) int {
		if a.ID < b.ID {
			return -1
		}
		return 1 // numbers differ
	})
	return all, block.Wrap(closedOr(err), "read state", s.path, -1)
}
