package state

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzVerify: what passes the check can be opened and read to its end.
func FuzzVerify(f *testing.F) {
	for _, n := range []int{0, 1, 40} {
		dir := f.TempDir()
		s, err := Open(dir)
		if err != nil {
			f.Fatal(err)
		}
		for i := range n {
			if err := s.Put(record(f, s, string(rune('A'+i)))); err != nil {
				f.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			f.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(dir, fileName))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[:min(len(data), 64<<10)])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if verifyData(data) != nil {
			return
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(dir)
		if err != nil {
			return
		}
		_, listed := s.All()
		if err := s.Close(); err != nil || listed != nil {
			t.Error(err, listed)
		}
	})
}
