package suite

import (
	"testing"
)

func TestMachine(t *testing.T) {
	m, err := Machine(t.TempDir())
	if err != nil || m.Cores < 1 || m.MemoryMiB < 1 || m.Kernel == "" || m.CPU == "" || m.FileSystem == "" {
		t.Errorf("got %+v, %v", m, err)
	}
	if _, err := Machine("/no/such/folder"); err == nil {
		t.Error("no error for a folder that is not there")
	}
}
